"""The HTTP process: everything between a socket and token ids. It knows no tensors.

in       middleware -> routes -> intake (body, fields, protocol, validation) -> models -> prompts
across   frontend, calls: to the workers and back
out      generation, classify -> output, text, logprobs -> shapes -> streaming
errors   everything that can be wrong, with its HTTP answer
"""
