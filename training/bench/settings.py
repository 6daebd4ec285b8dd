"""What the training benchmarks can be told. Free of torch, as every settings file."""

from pathlib import Path
from typing import Literal

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
