"""What clients may send: one frozen model for each request body, its fields in the order of the API's tables.

Only shapes, ranges and rules between fields; the docstring of each field is its line in /openapi.json. What needs a
model, a tokenizer or a queue is checked later, elsewhere.

- `base`: what every body shares.
- `sampling`: how tokens are chosen; the fields of completions and chat alike.
- `generation`: those two as one kind of request; `completions` and `chat` add what each has alone.
- `responses`: the body of the Responses API, which is chat in another shape.
- `classify`, `embeddings`, `tokens`: bodies of the endpoints that generate nothing.
- `admin`: the body of the route that adds models.
"""
