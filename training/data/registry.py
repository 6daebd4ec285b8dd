"""Public data sets that `groundup data fetch` knows: where they are, what they may be used for, how to tell them.

A checksum is there only where it is known for certain; the address of a file without one names a fixed revision where
its host has revisions.
"""

from dataclasses import dataclass

_RAW = "https://raw.githubusercontent.com"
_STORIES = "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One download, and what is made of it."""

    name: str
    """Name of the file that is downloaded."""
    url: str
    size: int | None = None
    """Bytes, where they are known."""
    sha256: str | None = None
    """Checksum of the download; None: unknown, so that the first download is trusted and remembered."""
    unpack: str | None = None
    """How to unpack it; see `training.data.unpack`. None: it is used as it is."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set with its terms."""

    summary: str
    licence: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int | None:
        """Bytes to download, if all of them are known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


def _book(place: str, size: int, sha256: str) -> RemoteFile:
    url = f"{_RAW}/rasbt/LLMs-from-scratch/28c65cdfbc3338e2e040016eea4b7fdf556e4d57/{place}"
    return RemoteFile(place.rpartition("/")[2], url, size, sha256)


def _gutenberg(number: int, title: str) -> RemoteFile:
    url = f"https://www.gutenberg.org/cache/epub/{number}/pg{number}.txt"
    return RemoteFile(f"{title}.txt", url, unpack="gutenberg")


REGISTRY = {
    "the-verdict": DataSet(
        "Edith Wharton's story of 1908 that the book trains on",
        "public domain",
        (
            _book(
                "ch02/01_main-chapter-code/the-verdict.txt",
                20_479,
                "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
            ),
        ),
    ),
    "tinyshakespeare": DataSet(
        "40,000 lines of Shakespeare's plays",
        "public domain (repository: MIT)",
        (
            RemoteFile(
                "input.txt",
                f"{_RAW}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
                1_115_394,
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ),
        ),
    ),
    "tinystories": DataSet(
        "short stories for children by GPT-4 (V2), to train and to validate on",
        "CDLA-Sharing-1.0",
        (
            RemoteFile("TinyStoriesV2-GPT4-train.txt", f"{_STORIES}/TinyStoriesV2-GPT4-train.txt", 2_227_753_162),
            RemoteFile("TinyStoriesV2-GPT4-valid.txt", f"{_STORIES}/TinyStoriesV2-GPT4-valid.txt", 22_502_601),
        ),
    ),
    "sms-spam": DataSet(
        "5,574 text messages, ham or spam (UCI 228)",
        "CC BY 4.0",
        (
            RemoteFile(
                "sms+spam+collection.zip",
                "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
                203_415,
                "1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3",
                unpack="sms-spam",
            ),
        ),
    ),
    "imdb": DataSet(
        "50,000 film reviews, positive or negative (Maas et al. 2011)",
        "none stated; cite the paper; the reviews belong to their authors",
        (
            RemoteFile(
                "aclImdb_v1.tar.gz",
                "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
                84_125_825,
                "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
                unpack="imdb",
            ),
        ),
    ),
    "book-instructions": DataSet(
        "the book's 1,100 instructions with answers, and with better and worse ones",
        "Apache-2.0; the pairs were made with Llama 3.1, whose terms may bear on them",
        (
            _book(
                "ch07/01_main-chapter-code/instruction-data.json",
                203_524,
                "7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
            ),
            _book(
                "ch07/04_preference-tuning-with-dpo/instruction-data-with-preference.json",
                386_968,
                "305315abf14f65fa42c01a0877572f832606571c2a7d49f152ac1d758b16756e",
            ),
        ),
    ),
    "alpaca": DataSet(
        "52,002 instructions with answers by GPT-3.5",
        "CC BY-NC 4.0",
        (
            RemoteFile(
                "alpaca_data.json",
                f"{_RAW}/tatsu-lab/stanford_alpaca/761dc5bfbdeeffa89b8bff5d038781a4055f796a/alpaca_data.json",
            ),
        ),
    ),
    "gutenberg": DataSet(
        "ten English novels of the 19th century from Project Gutenberg, without its headers",
        "public domain in the USA; gutenberg.org/policy/license.html",
        (
            _gutenberg(11, "alices-adventures-in-wonderland"),
            _gutenberg(84, "frankenstein"),
            _gutenberg(98, "a-tale-of-two-cities"),
            _gutenberg(345, "dracula"),
            _gutenberg(768, "wuthering-heights"),
            _gutenberg(1260, "jane-eyre"),
            _gutenberg(1342, "pride-and-prejudice"),
            _gutenberg(1400, "great-expectations"),
            _gutenberg(1661, "the-adventures-of-sherlock-holmes"),
            _gutenberg(2701, "moby-dick"),
        ),
    ),
}
