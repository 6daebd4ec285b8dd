"""How a model is taught: recipes, one loop, embedded data. Imports `model`, never `service`; nothing here by itself.

pretrain, instruct, classify, dpo   the recipes: a model, its data, a loss
chat_tools, responses               how a chat model writes and ends; its answers, for judges
trainer, loss, optim                the one loop and what it needs
config                              what each verb can be told
data                                texts, conversations and labels, read or generated
run                                 a run while it goes on, and what it leaves behind
machine                             devices and processes it has
evaluation, baselines, decode       how good it is, and beside what
bench                               how it compares
demo                                the three demo models, from nothing
"""
