"""Texts that a model in training continues, so that its progress can be read.

It knows a model, prompts and a log. No random generator is touched: a run with samples is the run without them.
"""

import logging
from collections.abc import Sequence

import torch

from model.gpt import GPT
from model.sampling import SampleRow, sample
from model.sampling_params import SamplingParams
from model.tokenizer import StreamDecoder, Tokenizer
from training.tracking import MetricsLog

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
            output_ids = until(self._tokenizer.eos_id, continued(model, ids, self._params))
            text = "".join(map(decoder.push, output_ids)) + decoder.flush()
            self._log.write("sample", step, prompt=prompt, text=text)
            if self._is_shown:
                logger.info("%s", f"step {step}: {prompt}|{text}".replace("\n", "\n    "))


@torch.no_grad()
def continued(model: GPT, prompt_ids: Sequence[int], params: SamplingParams) -> list[int]:
    """Return what follows a prompt: always as many tokens, so that processes that share a model stay in step.

    Not `model.generate`: that stops at an end token, and its inference mode is not for weights still in training.
    """
    block_size = model.config.block_size
    prompt_ids = prompt_ids[-block_size + 1 :] if block_size > 1 else prompt_ids[-1:]
    device = next(model.parameters()).device
    output_ids: list[int] = []
    while len(output_ids) < params.max_tokens and len(prompt_ids) + len(output_ids) < block_size:
        idx = torch.tensor([[*prompt_ids, *output_ids]], device=device)  # (1, T)
        logits = model.logits(model(idx)[:, -1]).float()  # (1, V)
        output_ids.append(int(sample(logits, [SampleRow(params, 0, prompt_ids, output_ids, ())])))
    return output_ids


def until(end_id: int, ids: Sequence[int]) -> Sequence[int]:
    """Return the ids before the first end token."""
    return ids[: ids.index(end_id)] if end_id in ids else ids
