"""Models in other projects' files, each described by a config and a table of tensors (`foreign_model`) and copied in.

`nanogpt` knows nanoGPT's file, `book` that of the book, `meta_llama` Meta's; `model.import_command` chooses among them.
"""
