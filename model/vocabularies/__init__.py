"""How a `tokenizer.json` is read and run; `model.tokenizer` is the one door to all of it.

`tokenizer_json` reads what all such files say alike, `byte_level` the kind that tiktoken can run (`tiktoken_backend`);
`library_backend` runs the rest, `decoder` turns ids into bytes, `openai` writes OpenAI's vocabularies as such a file.
"""
