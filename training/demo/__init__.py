"""The three demo models, and the data they are made from: generated here, so that it can be checked and is nobody's.

`command` trains them and `results` says what they reach. `words` and `plots` are the raw material of `stories` (what
the base model reads), of `tasks` and `conversations` (what the assistant learns) and of `spam` (the classifier's).
"""
