"""What a GPT is: its shape, its arithmetic, its files. Imports nothing else of ours, and nothing here by itself.

- `config`: the shape of a model; `gpt`: the model; `classifier`: the model with a label head
- `lora`: the model with low-rank updates beside its weights, which `adapter_config` describes, `adapter` reads and
  writes, and `merge_command` merges
- `packing`: several documents in one row; `kv_cache`: keys and values in pages, read by `cached_attention` and,
  on a CPU, `tiled_attention`
- `sampling_params`, `sampling`: choosing the next token
- `cpu_linear`: faster linear layers for serving on a CPU
- `generate`: one sequence, the slow obvious way; the oracle of the serving engine
- `tokenizer`: text to ids and back, for what `tokenizer_json` and `openai_vocabulary` read; it encodes with
  `tiktoken_backend` what `byte_level` can express, else with `library_backend`, and decodes by `token_decoder`
- `chat`: conversations to ids, by a template; `templates`: the named ones
- `directory`: what a checkpoint says of itself; `checkpoint`: save and load, by `public_config` (its keys), `convert`
  (its tensors), `tensor_files` (how files hold them) and `replace` (all of it in one step)
- `nanogpt`, `book`, `meta_llama`: other projects' files, each described as a `foreign` model for `import_command`

Free of torch: `config`, `adapter_config`, `sampling_params`, `tokenizer` and all it needs, `chat`, `templates`,
`directory`, `public_config`, `convert`, `replace`, `import_command`, `merge_command`.
"""
