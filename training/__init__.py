"""How a model is taught: recipes, one loop, embedded data. Imports `model`, never `service`; nothing here by itself.

pretrain, instruct, classify   the recipes: a model, its data, a loss
chat_tools, responses          how a chat model writes and ends; its answers, for judges
trainer, loss, optim           the one loop and what it needs
data                           texts, conversations and labels, read or generated
evaluate, baselines, decode    how good it is, and beside what
card, tracking, run_folder     what a run leaves behind
demo                           the three demo models, from nothing
"""
