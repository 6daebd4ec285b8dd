"""How the training compares, measured side by side: nanoGPT from a folder of the user's, n-grams and compressors.

peer           nanoGPT's model and script, from a folder; none of its code is here
throughput     training steps of both, in turn
shakespeare    its CPU run and ours, on the same windows
text           compressors and n-grams on the text a model is measured on
regimes        what of a model trains to classify, in one table
report         tables
settings       what can be chosen
"""
