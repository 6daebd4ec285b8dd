"""A run while it goes on, and what it leaves behind. The loop itself is `training.trainer`.

state, snapshots, best   all that the next step needs; that on disk; the best weights, put aside
folder, lock             where a run writes, and a hold on that place
stop, progress           ending a run early; what the terminal shows
tracking, samples        metrics as JSON lines; texts continued meanwhile
card, curves, plot       what was done and how it went, told and drawn
"""
