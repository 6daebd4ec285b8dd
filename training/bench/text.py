"""What compressors and a word n-gram reach on a text, in bits per byte: what a trained model stands beside."""

import gzip
import lzma
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.baselines import WordNGram
from training.bench.report import print_table
from training.bench.settings import TextBenchSettings

XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 2**26}]
"""The strongest preset, with a window of 64 MiB to look back into the training text."""


def run(settings: TextBenchSettings) -> None:
    """Measure and print.

    Raises:
        ValueError: a text is missing or not UTF-8.
    """
    valid = read_texts("--data", settings.data)
    train = read_texts("--train", settings.train) if settings.train is not None else []
    rows = [(name, f"{bits:.3f}", f"{seconds:.0f}") for name, bits, seconds in measure(train, valid, settings.order)]
    print_table(("method", "bits per byte", "CPU-s"), rows)


def measure(train: Sequence[str], valid: Sequence[str], order: int) -> Iterator[tuple[str, float, float]]:
    """Yield name, bits per byte and CPU seconds of each method; with training texts, also of those that learn."""
    learnt, text = "".join(train).encode(), "".join(valid).encode()
    methods = {
        "gzip -9": lambda: 8 * len(gzip.compress(text, 9)) / len(text),
        "xz -9e": lambda: 8 * xz_size(text) / len(text),
        "xz -9e, after the training text": lambda: 8 * (xz_size(learnt + text) - xz_size(learnt)) / len(text),
        f"word {order}-gram (Kneser-Ney)": lambda: word_bits(train, valid, order),
    }
    for name in list(methods)[: None if train else 2]:
        started = time.process_time()
        bits = methods[name]()
        yield name, bits, time.process_time() - started


def xz_size(text: bytes) -> int:
    """Return the size of a text as xz writes it."""
    return len(lzma.compress(text, format=lzma.FORMAT_XZ, filters=XZ))


def word_bits(train: Sequence[str], valid: Sequence[str], order: int) -> float:
    """Return the bits per byte of a word n-gram, the ends of the texts included."""
    model = WordNGram(order)
    model.fit(train)
    return model.bits_per_byte(valid)


def read_texts(flag: str, path: Path) -> list[str]:
    """Read a file, or the `.txt` files of a folder in order of name, byte for byte.

    Raises:
        ValueError: nothing there, or not UTF-8.
    """
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{flag}: {path}: no .txt file there")
    try:
        return [file.read_bytes().decode("utf-8") for file in files]
    except UnicodeDecodeError:
        raise ValueError(f"{flag}: {path}: not UTF-8") from None
    except OSError as error:
        raise ValueError(f"{flag}: {path}: {error.strerror}") from None
