"""Texts that a model in training continues, or questions that it answers, so that its progress can be read.

It knows a model, prompts and a log. No random generator is touched: a run with samples is the run without them.
"""

import logging
from collections.abc import Collection, Sequence

import torch

from model.chat import ChatTemplate, Message
from model.gpt import GPT
from model.sampling import SampleRow, sample
from model.sampling_params import SamplingParams
from model.tokenizer import StreamDecoder, Tokenizer
from training.run.tracking import MetricsLog

logger = logging.getLogger(__name__)


class Samples:
    """Continues some prompts, shows the texts and logs them as `sample` records of the newest step.

    Args:
        tokenizer: of the model.
        prompts: texts to continue; an empty one stands for the start of a document.
        num_tokens: length of each sample, unless the context ends before.
        log: receives the samples.
        seed: of the choices, which are a pure function of it.
        is_shown: whether to show them; of several processes only one speaks.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompts: Sequence[str],
        num_tokens: int,
        log: MetricsLog,
        *,
        seed: int,
        is_shown: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._prompts = {p: [*tokenizer.bos_ids, *tokenizer.encode(p)] or [tokenizer.eos_id] for p in prompts}
        self._params = SamplingParams(max_tokens=num_tokens, temperature=0.8, top_k=50, seed=seed)
        self._log = log
        self._is_shown = is_shown

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # every length would be compiled anew
    def __call__(self, model: GPT) -> None:
        """Continue every prompt; where a model is shared out over processes, all of them must call together."""
        step = self._log.last_step
        for prompt, ids in self._prompts.items():
            decoder = StreamDecoder(self._tokenizer, opens_text=not prompt)
            output_ids = until([self._tokenizer.eos_id], continued(model, ids, self._params))
            text = "".join(map(decoder.push, output_ids)) + decoder.flush()
            self._log.write("sample", step, prompt=prompt, text=text)
            if self._is_shown:
                logger.info("%s", f"step {step}: {prompt}|{text}".replace("\n", "\n    "))


class SampleAnswers:
    """Answers some questions, shows the answers and logs them as `sample` records of the newest step.

    Args:
        template: writes the prompts.
        tokenizer: of the model.
        conversations: each ends with the right answer, which is logged too and not shown to the model.
        params: length and temperature of the answers, and the seed of the choices.
        end_ids: tokens that end an answer.
        log: receives the samples.
        is_alone: whether one process holds the whole model, which then stops at an end.
        is_shown: whether to show them; of several processes only one speaks.
    """

    def __init__(
        self,
        template: ChatTemplate,
        tokenizer: Tokenizer,
        conversations: Sequence[Sequence[Message]],
        params: SamplingParams,
        end_ids: Collection[int],
        log: MetricsLog,
        *,
        is_alone: bool = True,
        is_shown: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._asked = [(messages, template.encode(messages[:-1])) for messages in conversations]
        self._params = params
        self._end_ids = end_ids
        self._stops = end_ids if is_alone else ()
        self._log = log
        self._is_shown = is_shown

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # every length would be compiled anew
    def __call__(self, model: GPT) -> None:
        """Answer every question; where a model is shared out over processes, all of them must call together."""
        step = self._log.last_step
        for messages, ids in self._asked:
            found = until(self._end_ids, continued(model, ids, self._params, stops=self._stops))
            prompt, right = (message["content"] for message in (messages[-2], messages[-1]))
            text = self._tokenizer.decode(found, skip_special=True)
            self._log.write("sample", step, prompt=prompt, text=text, right=right)
            if self._is_shown:
                logger.info("%s", f"step {step}: {prompt} -> {text} (right: {right})".replace("\n", "\n    "))


@torch.no_grad()
def continued(
    model: GPT, prompt_ids: Sequence[int], params: SamplingParams, *, stops: Collection[int] = ()
) -> list[int]:
    """Return what follows a prompt, up to one of the tokens that stop it.

    Without `stops` there are always as many tokens, so that processes that share a model stay in step. Not
    `model.generate`: its inference mode is not for weights still in training.
    """
    block_size = model.config.block_size
    prompt_ids = prompt_ids[-block_size + 1 :] if block_size > 1 else prompt_ids[-1:]
    device = next(model.parameters()).device
    output_ids: list[int] = []
    while len(output_ids) < params.max_tokens and len(prompt_ids) + len(output_ids) < block_size:
        idx = torch.tensor([[*prompt_ids, *output_ids]], device=device)  # (1, T)
        logits = model.logits(model(idx)[:, -1]).float()  # (1, V)
        output_ids.append(int(sample(logits, [SampleRow(params, 0, prompt_ids, output_ids, ())])))
        if output_ids[-1] in stops:
            break
    return output_ids


def until(end_ids: Collection[int], ids: Sequence[int]) -> Sequence[int]:
    """Return the ids before the first end token."""
    return ids[: next((place for place, id_ in enumerate(ids) if id_ in end_ids), len(ids))]
