"""How one talks to a server from the terminal: `groundup chat`.

`settings` is what can be chosen, `endpoint` any OpenAI-compatible server over HTTP, `conversation` what was said and
the commands about it, `chat` the terminal. It imports nothing else of ours and nothing heavy: the standard library
speaks HTTP well enough, so that every installation can chat.
"""
