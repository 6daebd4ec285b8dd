"""What each verb of training can be told: frozen configs whose field strings are also the help text.

One file a verb (`pretrain`, `classify`, `instruct`, `evaluate`, `demo`) and what they share (`run`, `shape`). All are
free of torch, so that `groundup VERB --help` is quick. Nothing here opens a file or knows how training works.
"""
