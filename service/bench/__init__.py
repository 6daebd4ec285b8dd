"""The benchmark: one engine beside its peers on the same random weights, alone and over HTTP.

command.py      `groundup bench`: what is run, in which order
contenders.py   our engine and transformers, each as a function from prompts to seconds
peers.py        OpenVINO GenAI and CTranslate2, where they are installed
prompts.py      random ids, the same for every contender
timing.py       runs in turn, and tables of them
curves.py       speed over lengths of context and numbers of requests, drawn
latency.py      what streams wait while long prompts arrive, and what a known beginning of a prompt saves
random_gpt2.py  a checkpoint of GPT-2's size with random weights and a vocabulary that needs no download
over_http.py    a real server in processes of its own, and a client that costs it little
llama_server.py llama.cpp's server on the same weights
gguf_file.py    those weights in llama.cpp's format
"""
