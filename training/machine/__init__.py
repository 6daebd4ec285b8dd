"""The machine that a run has: its devices, its processes, and how a model and its batches are spread over them.

device, hardware         which device, and torch set up; its peak, operations and memory
parallel, shared_model   many processes, one run; one model on all of them
prefetch, totals         the next batch, in a thread; sums that stay on the device
"""
