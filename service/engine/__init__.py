"""The engine: token ids in, token ids out, many sequences at once.

request.py    one sequence and the events it produces
pages.py      who owns which page of the cache
scheduler.py  who runs in the next step, and with how many tokens
runner.py     one step on the device; the only file here that knows tensors
engine.py     add, abort, step
build.py      from a checkpoint directory and limits to an engine

It knows no text, no HTTP and no processes.
"""
