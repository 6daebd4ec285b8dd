"""The benchmark: one engine beside transformers on the same random weights, alone and over HTTP.

command.py      `groundup bench`: what is run, in which order, and the tables
contenders.py   our engine and transformers, each as a function from prompts to seconds
random_gpt2.py  a checkpoint of GPT-2's size with random weights and a vocabulary that needs no download
over_http.py    a real server in processes of its own, and a client that costs it little
"""
