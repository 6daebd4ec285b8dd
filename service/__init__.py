"""How checkpoints are served: three kinds of process, one folder each. Imports `model`, never `training`.

web      the HTTP process: what clients may send, and what they get back; text, no tensors
host     what holds the processes together: messages, wires, workers, supervision; no API, no text
engine   inside the generation worker: continuous batching over token ids; no HTTP, no processes
bench    the engine beside transformers, and the service beside the engine

A request walks web -> host -> engine and back; nobody imports the other way. Nothing is imported here by itself.
"""
