"""What a base needs to chat: a template, the control tokens that it writes, the tokens that end an answer.

It reads checkpoints and knows no data; that the model makes room for new tokens is `new_tokens`' work.
"""

from typing import NamedTuple

from model.chat import ChatTemplate
from model.directory import Checkpoint, CheckpointError
from model.templates import TEMPLATES, TemplateName
from model.tokenizer import Tokenizer
from training.config.instruct import InstructConfig
from training.finetune import must_be_language_model

PROBE = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]


class ChatTools(NamedTuple):
    """How a chat model reads and writes."""

    tokenizer: Tokenizer
    """Its end token ends an answer."""
    template: ChatTemplate
    end_ids: tuple[int, ...]
    """Tokens that end an answer; the first is what is learned."""


def chat_tools(config: InstructConfig) -> ChatTools:
    """Return the base's tokenizer and chat template, or what the settings ask for in their place.

    Raises:
        CheckpointError: the base is a classifier, or template and tokenizer do not fit together.
    """
    base = must_be_language_model(config.base)
    tokenizer = Tokenizer.from_directory(config.base)
    if config.template is None and base.kind == "chat":
        return own_tools(base, tokenizer)
    return named_tools(config, tokenizer, config.template or "groundup")


def own_tools(base: Checkpoint, tokenizer: Tokenizer) -> ChatTools:
    """Return what a chat model already has.

    Raises:
        CheckpointError: it writes control tokens that it does not have, or does not end its answers.
    """
    template = ChatTemplate.from_directory(base.path, tokenizer)
    if unknown := template.unknown_tokens():
        raise CheckpointError(
            f"--base: the chat template of {base.path} writes {unknown[0]}, which is no token of its tokenizer and "
            "would be torn into pieces; finetune it by groundup instruct with a --template that fits"
        )
    last_id = template.encode_answer(PROBE)[1][-1]
    if last_id not in tokenizer.special_ids:
        raise CheckpointError(
            f"--base: the chat template of {base.path} ends no answer with a control token, so that a model could not "
            "learn where to stop; finetune it by groundup instruct with a --template that fits"
        )
    return ChatTools(tokenizer, template, tuple(dict.fromkeys([last_id, *base.eos_token_ids])))


def named_tools(config: InstructConfig, tokenizer: Tokenizer, name: TemplateName) -> ChatTools:
    """Return a template by its name, and the tokenizer with what it needs.

    Raises:
        CheckpointError: the tokenizer lacks control tokens that shall not be added.
    """
    named = TEMPLATES[name]
    missing = [token for token in named.control_tokens if token not in tokenizer.special_tokens]
    if missing and not config.add_tokens:
        raise CheckpointError(
            f"--template: the tokenizer of {config.base} lacks {missing[0]}, which template {name} needs; give "
            "--add-tokens to add it, or --template alpaca, which needs no control tokens"
        )
    tokenizer = tokenizer.with_control_tokens(missing).with_eos(named.end_token or tokenizer.named_tokens["eos_token"])
    opens_with = "{{- bos_token -}}\n" if tokenizer.bos_ids and "bos_token" in tokenizer.named_tokens else ""
    return ChatTools(tokenizer, ChatTemplate(opens_with + named.source, tokenizer), (tokenizer.eos_id,))
