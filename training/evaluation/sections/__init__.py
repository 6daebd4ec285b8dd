"""The sections of a report of `groundup evaluate`, by what is asked; the figures themselves are others' work.

text        perplexity of texts
labels      a classifier on labelled texts
assistant   answers and preferences
questions   multiple choice, MMLU, last words
tasks       lm-evaluation-harness
"""
