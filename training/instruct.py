"""Recipe: teach a model to answer, from conversations; prompts are given, and what is learned follows them.

`run` goes from files to a checkpoint; `instruct` is its heart, for conversations already at hand.
"""

import functools
import logging
from pathlib import Path
from typing import Any, Unpack

from model.checkpoint import save_checkpoint
from model.gpt import GPT
from model.sampling_params import SamplingParams
from model.templates import input_heading
from training.chat_tools import ChatTools, chat_tools
from training.config.instruct import InstructConfig
from training.data.instruction import Conversation, ConversationBatches
from training.data.splits import Part, Parts, read_parts
from training.evaluation.answers import answer_metrics
from training.evaluation.text import Metrics, loss_metrics
from training.finetune import base_digest, load_base, prepare
from training.loss import next_token_loss, readable
from training.machine.parallel import World
from training.new_tokens import make_room
from training.recipe import conduct, digest, keeping, must_be_over, open_log
from training.responses import RESPONSES_FILE, Response, respond, to_jsonl, to_markdown
from training.run.best import best_card
from training.run.card import Card, repeat_command, save_run
from training.run.folder import RunFolder
from training.run.samples import SampleAnswers
from training.run.state import TrainerState
from training.run.tracking import MetricsLog
from training.trainer import Keeping, Trainer

logger = logging.getLogger(__name__)


def run(config: InstructConfig) -> None:
    """Finetune a checkpoint on conversations and write a chat checkpoint.

    Raises:
        CheckpointError: the base cannot be used, or does not fit the template.
        DataError: the conversations cannot be used.
        OutputError: the checkpoint cannot be put where it should go, or the run cannot go on from where it stood.
        NonFiniteError: training diverged.
    """
    conduct(config, functools.partial(make, config))


def make(config: InstructConfig, folder: RunFolder) -> None:
    """Train in the folder of a run; see `run`."""
    world, tools = World.current(), chat_tools(config)
    parts = read_parts(config, input_heading(tools.template.source))
    folder.must_match(
        data=digest([dict(part.conversations) for part in parts if part is not None]),
        base=base_digest(config.base),
        template=digest(tools.template.source),
    )
    model = make_room(load_base(config.base, config), tools.tokenizer.vocab_size, config.seed)
    train, valid, asked = render_parts(parts, tools, model, config)
    saving: dict[str, Any] = {"chat_template": tools.template.source, "eos_token_ids": tools.end_ids}
    if (adapter := prepare(model, config)) is not None:
        saving["adapter"] = adapter

    def write_best(place: Path, best: GPT) -> None:
        save_checkpoint(place, best, tools.tokenizer, model_card=best_card(config.out), **saving)

    with open_log(config, folder) as log:
        kept = keeping(config, folder, log, model.config, write_best)
        if config.sample_answers:
            kept["on_validation"] = sample_answers(
                config, tools, spread(parts.valid, valid, config.sample_answers), log
            )
        state = instruct(model, train, valid, config, **kept)
    must_be_over(state)
    if world.is_first:
        part = parts.test if parts.test is not None else parts.valid
        metrics, responses = held_out_metrics(model, part, asked, tools, config)
        card = describe(config, (train, valid, asked), metrics, responses)
        files = {RESPONSES_FILE: to_jsonl(responses)}
        save_run(config, model, tools.tokenizer, card, log, state, extra_files=files, **saving)
        logger.info("wrote %s: %.1f%% of held-out answers exactly right", config.out, 100 * metrics["exact_match"])


def render_parts(
    parts: Parts, tools: ChatTools, model: GPT, config: InstructConfig
) -> tuple[ConversationBatches, ConversationBatches, ConversationBatches]:
    """Render what is trained on, looked at, and answered at the end, which may be the same as what is looked at.

    Raises:
        DataError: the template refuses a conversation, or none of a part fits the context.
    """

    def render(part: Part) -> ConversationBatches:
        batches = ConversationBatches(
            part.conversations.values(),
            tools.template,
            tools.tokenizer,
            block_size=model.config.block_size,
            loss_on=config.loss_on,
            numbers=part.conversations,
            flag=part.flag,
        )
        batches.warn_of_dropped()
        return batches

    train, valid = render(parts.train), render(parts.valid)
    return train, valid, render(parts.test) if parts.test is not None else valid


def fitting(part: Part, batches: ConversationBatches) -> dict[int, Conversation]:
    """Return the conversations of a part that fit the context, by number."""
    return {number: messages for number, messages in part.conversations.items() if number not in batches.dropped}


def spread(part: Part, batches: ConversationBatches, count: int) -> list[Conversation]:
    """Return a few conversations from all over a part."""
    conversations = list(fitting(part, batches).values())
    count = min(count, len(conversations))
    return [conversations[i * len(conversations) // count] for i in range(count)]


def sample_answers(
    config: InstructConfig, tools: ChatTools, conversations: list[Conversation], log: MetricsLog
) -> SampleAnswers:
    """Return what answers a few questions at every evaluation."""
    world = World.current()
    params = SamplingParams(max_tokens=config.sample_tokens, temperature=config.sample_temperature, seed=config.seed)
    return SampleAnswers(
        *(tools.template, tools.tokenizer, conversations, params, tools.end_ids, log),
        is_alone=world.size == 1,
        is_shown=world.is_first,
    )


def instruct(
    model: GPT,
    train: ConversationBatches,
    valid: ConversationBatches,
    config: InstructConfig,
    **keeping: Unpack[Keeping],
) -> TrainerState:
    """Train a model in place to give the answers of conversations.

    Raises:
        NonFiniteError: training diverged.
    """
    rows = train.packed if config.pack else train.shuffled
    batches = rows(config.batch_size, config.seed)
    held_out = valid.in_order(config.micro_batch_size or config.batch_size)
    return Trainer(
        model, next_token_loss, batches, config, valid=held_out, readable=readable, title="instruct", **keeping
    ).fit()


def held_out_metrics(
    model: GPT, part: Part, batches: ConversationBatches, tools: ChatTools, config: InstructConfig
) -> tuple[Metrics, list[Response]]:
    """Return the loss on held-out answers, how right the given ones are, and those."""
    asked = fitting(part, batches)
    responses = respond(model, list(asked.values()), asked, tools, config.answer_tokens)
    losses = loss_metrics(model, batches.in_order(config.micro_batch_size or config.batch_size))
    return {
        **losses,
        **answer_metrics([each.given for each in responses], [each.answer for each in responses]),
    }, responses


def describe(
    config: InstructConfig, parts: tuple[ConversationBatches, ...], metrics: Metrics, responses: list[Response]
) -> Card:
    """Return what the model card says beside the facts of the run."""
    train, valid, asked = (len(batches.kept) for batches in parts)
    has_test = parts[2] is not parts[1]
    tested = f", {asked:,} to test on" if has_test else ""
    dropped = sum(batches.num_dropped for batches in parts[: 3 if has_test else 2])
    too_long = f" {dropped:,} longer than the context were left out." if dropped else ""
    name = "Test" if has_test else "Held-out"
    return Card(
        summary=f"An assistant, finetuned from `{config.base.name}`.",
        data=f"`{config.data.name}`: {train:,} conversations to train on, {valid:,} held out{tested}.{too_long} "
        f"`{RESPONSES_FILE}` has the answers given to the {name.lower()} part.",
        metrics={
            f"{name} loss (nats per {'token' if config.loss_on == 'everything' else 'answer token'})": metrics["loss"],
            f"{name} answers exactly right": f"{metrics['exact_match']:.1%}",
            f"{name} answers that contain the right one": f"{metrics['contains']:.1%}",
            f"{name} answers, ROUGE-L": metrics["rouge_l"],
            f"{name} answers without an end": f"{metrics['unfinished']:.1%}",
        },
        reproduce=repeat_command("instruct", config.out),
        notes=to_markdown(responses),
    )
