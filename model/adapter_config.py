"""What an adapter is, apart from its weights: rank, scale, and the linear layers it changes, by their public names.

It knows PEFT's rules for matching names (peft 0.21, `check_target_module_exists` and `get_pattern_key`) and the keys of
its `adapter_config.json`; the weights are `model.adapter`'s, their arithmetic `model.lora`'s. Free of torch.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from model.config import GPTConfig
from model.convert import public_tensors

ALL_LINEAR = "all"
"""Stands for every linear layer of the blocks."""

READ = {
    *("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "use_rslora"),
    *("rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern", "modules_to_save", "bias"),
    *("base_model_name_or_path", "init_lora_weights", "fan_in_fan_out", "inference_mode", "revision"),
    *("auto_mapping", "peft_version", "megatron_core", "qalora_group_size"),
}
"""Keys of an `adapter_config.json` that are read, or that change nothing: how a matrix lies in PEFT's base, sizes of
methods that are off."""
HARMLESS_STARTS = {"gaussian", "orthogonal", "eva"}
"""Named ways to start from, beside `true` and `false`, that leave the base as it is."""

Names = str | tuple[str, ...]
"""Public module names, or endings of them after a dot; a lone string is a regular expression for whole names."""


@dataclass(frozen=True, slots=True)
class PublicLinear:
    """One linear layer of the public model and the rows of ours that it is."""

    public_name: str
    """Such as `model.layers.0.self_attn.q_proj`."""
    name: str
    """Our module, which may join several public ones along its rows."""
    part: str
    """The last word of the public name: names this part of our module."""
    first_row: int
    num_rows: int


class AdapterConfig(BaseModel):
    """Low-rank updates of some linear layers (Hu et al. 2021, "LoRA"), as PEFT describes them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    """Updates are scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the inputs of an update that training leaves out."""
    targets: Names = (ALL_LINEAR,)
    excluded: Names = ()
    """Not changed even where a target matches."""
    layers: tuple[int, ...] | None = None
    """Blocks to change, counted from 0; None: all."""
    rank_pattern: dict[str, PositiveInt] = {}
    """Other ranks, by regular expressions for the ends of names."""
    alpha_pattern: dict[str, float] = {}
    """Other alphas, likewise."""
    is_rank_stabilized: bool = False
    """Scale by alpha / sqrt(rank) instead (Kalajdzievski 2023, "rsLoRA")."""
    base: str | None = None
    """The checkpoint that is adapted, as its user named it."""

    @field_validator("targets", "excluded", "rank_pattern", "alpha_pattern")
    @classmethod
    def _must_be_expressions(cls, value: Any) -> Any:
        for pattern in (value,) if isinstance(value, str) else value if isinstance(value, dict) else ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern} is no regular expression: {error}") from None
        return value

    @classmethod
    def from_public(cls, public: Mapping[str, Any]) -> Self:
        """Read the keys of an `adapter_config.json`.

        Raises:
            ValueError: it asks for what is not supported; the message names the key.
        """
        _refuse_unsupported(public)
        layers = public.get("layers_to_transform")
        return cls(
            rank=public.get("r", 8),
            alpha=public.get("lora_alpha", 8),
            dropout=public.get("lora_dropout", 0.0),
            targets=_names(public.get("target_modules")),
            excluded=_names(public.get("exclude_modules")),
            layers=(layers,) if isinstance(layers, int) else tuple(layers) if layers else None,
            rank_pattern=public.get("rank_pattern") or {},
            alpha_pattern=public.get("alpha_pattern") or {},
            is_rank_stabilized=public.get("use_rslora", False),
            base=public.get("base_model_name_or_path"),
        )

    def to_public(self, shape: GPTConfig, *, is_classifier: bool) -> dict[str, Any]:
        """Return the keys of an `adapter_config.json`, as PEFT writes them."""
        alpha = int(self.alpha) if self.alpha.is_integer() else self.alpha
        return {
            "peft_type": "LORA",
            "task_type": "SEQ_CLS" if is_classifier else "CAUSAL_LM",
            "base_model_name_or_path": self.base,
            "inference_mode": True,
            "r": self.rank,
            "lora_alpha": alpha,
            "lora_dropout": self.dropout,
            "target_modules": self._public_targets(shape),
            "exclude_modules": self.excluded or None,
            "layers_to_transform": self.layers,
            "rank_pattern": self.rank_pattern,
            "alpha_pattern": self.alpha_pattern,
            "use_rslora": self.is_rank_stabilized,
            "fan_in_fan_out": shape.family == "gpt2",
            "bias": "none",
            "modules_to_save": ["classifier", "score"] if is_classifier else None,
            "init_lora_weights": True,
        }

    def _public_targets(self, shape: GPTConfig) -> Names:
        if isinstance(self.targets, str) or ALL_LINEAR not in self.targets:
            return self.targets
        in_blocks = [linear.public_name for linear in public_linears(shape) if _layer(linear.public_name) is not None]
        others = [target for target in self.targets if target != ALL_LINEAR]
        return tuple(dict.fromkeys([*kinds_of_linears(in_blocks), *others]))

    def rank_of(self, public_name: str) -> int:
        """Return the rank of one layer's update."""
        return self.rank_pattern.get(_matching_pattern(self.rank_pattern, public_name), self.rank)

    def scale_of(self, public_name: str) -> float:
        """Return what one layer's update is multiplied by."""
        alpha = self.alpha_pattern.get(_matching_pattern(self.alpha_pattern, public_name), self.alpha)
        rank = self.rank_of(public_name)
        return alpha / (math.sqrt(rank) if self.is_rank_stabilized else rank)

    def adapted(self, shape: GPTConfig, *, is_classifier: bool) -> list[PublicLinear]:
        """Return the linear layers of a model that are changed, in the order of its tensors.

        Raises:
            ValueError: a target names none; the message lists those there are.
        """
        linears = [each for each in public_linears(shape) if not is_classifier or each.public_name != "lm_head"]
        self._must_be_known([linear.public_name for linear in linears], shape)
        found = [linear for linear in linears if self._is_targeted(linear.public_name)]
        if not found:
            raise ValueError("no linear layer is left to change")
        return found

    def _is_targeted(self, public_name: str) -> bool:
        if matches(self.excluded, public_name):
            return False
        if isinstance(self.targets, str):
            return matches(self.targets, public_name)
        layer = _layer(public_name)
        is_named = matches(self.targets, public_name) or (ALL_LINEAR in self.targets and layer is not None)
        return is_named and (self.layers is None or layer in self.layers)

    def _must_be_known(self, public_names: Sequence[str], shape: GPTConfig) -> None:
        kinds = ", ".join(kinds_of_linears(public_names))
        for target in (self.targets,) if isinstance(self.targets, str) else self.targets:
            found = [name for name in public_names if matches(target if target is self.targets else (target,), name)]
            if target == "lm_head" and shape.tie_embeddings:
                raise ValueError(
                    f"{target}: is one matrix with the embeddings here, so it cannot change alone; there are: {kinds}"
                )
            if not found and target != ALL_LINEAR:
                raise ValueError(f"{target}: no linear layer of this model is called so; there are: {kinds}")
        layers = [layer for layer in self.layers or () if not 0 <= layer < shape.n_layer]
        if layers or self.layers == ():
            raise ValueError(f"layers: {layers or 'none'} of the {shape.n_layer} blocks, counted from 0")


def _refuse_unsupported(public: Mapping[str, Any]) -> None:
    """Refuse by name what would change the result: what we do not know counts as long as it says anything."""
    if public.get("peft_type") != "LORA":
        raise ValueError(f"peft_type: {public.get('peft_type')} is not supported; supported: LORA")
    if public.get("task_type") not in (None, "CAUSAL_LM", "SEQ_CLS"):
        raise ValueError(f"task_type: {public['task_type']} is not supported; supported: CAUSAL_LM, SEQ_CLS")
    if public.get("bias", "none") != "none":
        raise ValueError(f"bias: {public['bias']} is not supported; supported: none")
    if isinstance(how := public.get("init_lora_weights"), str) and how.lower() not in HARMLESS_STARTS:
        raise ValueError(
            f"init_lora_weights: {how} is not supported, since it changes the base as well; "
            "let PEFT save it converted to plain LoRA (`path_initial_model_for_weight_conversion`)"
        )
    for key, names in {"modules_to_save": ("classifier", "score"), "layers_pattern": ("h", "layers")}.items():
        found = public.get(key) or ()
        for name in (found,) if isinstance(found, str) else found:
            if name not in names:
                raise ValueError(f"{key}: {name} is not supported; supported: {', '.join(names)}")
    for key, value in public.items():
        if key not in READ and value not in (None, False, "", [], {}):
            raise ValueError(f"{key}: {value!r} is not supported")


def _names(public: Any) -> Names:
    return public if isinstance(public, str) else tuple(public or ())


def matches(names: Names, public_name: str) -> bool:
    """Say whether a public name is one of some names, or ends with one after a dot."""
    if isinstance(names, str):
        return re.fullmatch(names, public_name) is not None
    return any(public_name == name or public_name.endswith(f".{name}") for name in names)


def public_linears(shape: GPTConfig) -> Iterator[PublicLinear]:
    """List the linear layers of a language model under their public names."""
    for tensor in public_tensors(shape):
        is_linear = len(tensor.shape) == 2 and not tensor.name.startswith(("wte.", "wpe."))
        if is_linear:
            public_name = tensor.public_name.removesuffix(".weight")
            rows = tensor.shape[1] if tensor.is_transposed else tensor.shape[0]
            name, part = tensor.name.removesuffix(".weight"), public_name.rpartition(".")[2]
            yield PublicLinear(public_name, name, part, tensor.first_row, rows)


def kinds_of_linears(public_names: Sequence[str]) -> list[str]:
    """Return the shortest names that tell the kinds of linear layers apart, such as `q_proj` or `mlp.c_proj`."""
    whole = list(dict.fromkeys(re.sub(r"^.*?\.\d+\.", "", name) for name in public_names))
    last = [name.rpartition(".")[2] for name in whole]
    return [name if last.count(end) > 1 else end for name, end in zip(whole, last, strict=True)]


def _layer(public_name: str) -> int | None:
    match = re.match(r".*?\.[^.]*\.(\d+)\.", public_name)
    return int(match[1]) if match else None


def _matching_pattern(patterns: Mapping[str, object], public_name: str) -> str:
    return next((pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", public_name)), public_name)
