"""Measure models on held-out data; which data is fair to test on is the caller's business.

`text`, `labels` and `answers` hold the measures of the three kinds of checkpoint, free of files; `command` is
`groundup evaluate`, whose `sections` pick among them and the other measures by the kind of a checkpoint. `label_report`
and `label_figures` tell and draw what `labels` found.
"""
