"""What the training benchmarks can be told. Free of torch, as every settings file."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt
from pydantic_settings import BaseSettings

from training.config.run import RunConfig


class PeerBenchSettings(BaseSettings):
    """Train beside nanoGPT: the same model and data, in turn; print markdown."""

    model_config = RunConfig.model_config

    peer: Path
    """Folder of a nanoGPT checkout, with `model.py` and `train.py`."""
    data: Path | None = None
    """Tiny Shakespeare (`input.txt`), for the `shakespeare` part."""
    parts: tuple[Literal["throughput", "shakespeare"], ...] = ("throughput",)
    """`throughput`: training steps per second at each size. `shakespeare`: nanoGPT's whole CPU run and ours."""
    sizes: tuple[Literal["char", "124m"], ...] = ("char", "124m")
    """`char`: 4 layers, width 128, 12 rows of 64. `124m`: GPT-2's smallest shape, 1 row of 1,024."""
    rounds: PositiveInt = 5
    """Rounds of timed steps of each contender; they are interleaved, and their medians count."""
    steps: PositiveInt | None = None
    """Steps of each round, of the whole run for `shakespeare`; left out: as many as the part needs."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` puts both under autocast."""
    compile: bool = False
    """Compile both."""
    lr: float = Field(3e-3, gt=0)
    """Peak learning rate of our `shakespeare` run."""
    seed: int = Field(123, ge=0)
    """Fixes initial weights and order of our runs."""
    device: str = "cpu"
    """`cpu`, `cuda`, ..."""
    num_threads: PositiveInt | None = None
    """CPU threads of the tensor library; left out: its own choice."""


class TextBenchSettings(BaseSettings):
    """Measure compressors and a word n-gram on a text, in bits per byte; print markdown."""

    model_config = RunConfig.model_config

    data: Path
    """Held-out text: a file or a folder of `.txt` files."""
    train: Path | None = None
    """Text to learn from first; without it only what compressors do by themselves."""
    order: PositiveInt = 5
    """Words that the n-gram looks at, the predicted one included."""


class ClassifyBenchSettings(BaseSettings):
    """Finetune classifiers in several ways, each with several seeds, beside simple methods; print markdown."""

    model_config = RunConfig.model_config

    recipe: Path
    """Settings of `groundup classify` that all rows share, as TOML."""
    out: Path
    """File that receives a line of JSON for each finished cell; what it holds already is not trained again."""
    data: Path | None = None
    """Labelled texts; left out: those of the recipe."""
    base: Path | None = None
    """Checkpoint to start from; left out: that of the recipe."""
    rows: dict[str, dict[str, Any]] = {
        "head": {"trainable": "head"},
        "last block": {"trainable": 1},
        "last two blocks": {"trainable": 2},
        "all": {"trainable": "all"},
        "LoRA": {"lora": {"rank": 16}},
    }
    """Ways to train, by name: settings of `groundup classify` in which each differs from the recipe."""
    sights: tuple[Literal["whole text", "first token"], ...] = ("whole text", "first token")
    """What a classifier sees: pooling on the last token sees the whole text, pooling on the first only that token."""
    seeds: tuple[int, ...] = Field((1, 2, 3, 4, 5), min_length=1)
    """Each starts the new weights and orders the texts in its own way."""
    vary_split: bool = False
    """Let each seed also split the texts in its own way, instead of all as the recipe says."""
    num_threads: PositiveInt | None = None
    """CPU threads of the tensor library; left out: its own choice."""
