"""The HTTP process: everything between a socket and token ids. It knows no tensors.

in       middleware -> routes -> intake: body -> protocol (fields, conversation, complaints), validation -> models
across   prompts -> plan -> generation; frontend and calls: to the workers and back
out      output: text, logprobs, timings -> shapes -> streaming or one object; answers, classify, tokenization
errors   everything that can be wrong, with its HTTP answer
"""
