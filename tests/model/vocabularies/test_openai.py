"""OpenAI's vocabularies: the ids of tiktoken, of the `tokenizers` library and of transformers; and no network."""

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from tokenizers import Tokenizer as Oracle
from transformers import AutoTokenizer

from model.tokenizer import Tokenizer, load_tokenizer
from model.vocabularies.openai import TIKTOKEN_NAMES, tiktoken_json
from model.vocabularies.tokenizer_json import TokenizerError
from tests.fuzz import assert_same_ids, fuzzed_strings, write

R50K = "0ea1e91bbb3a60f729a8dc8f777fd2fc07cd8df4"
"""The name under which tiktoken caches r50k_base."""


@pytest.fixture
def cache(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = data_dir / "tiktoken" / "cache"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str, timeout: float) -> Any:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture(scope="module")
def gpt2(data_dir: Path) -> Tokenizer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(data_dir / "tiktoken" / "cache"))
        return load_tokenizer("gpt2")


def test_gpt2_is_what_openai_published(gpt2: Tokenizer, data_dir: Path) -> None:
    published = json.loads((data_dir / "tiktoken" / "encoder.json").read_text("utf-8"))
    merges = (data_dir / "tiktoken" / "vocab.bpe").read_text("utf-8").split("\n")[1:-1]
    written = json.loads(gpt2.files()["tokenizer.json"])["model"]
    assert written["vocab"] == published
    assert [" ".join(pair) for pair in written["merges"]] == merges
    assert (gpt2.vocab_size, gpt2.eos_id, gpt2.pad_id) == (50257, 50256, None)


def test_gpt2_counts_the_verdict_as_the_book_does(gpt2: Tokenizer, data_dir: Path) -> None:
    text = (data_dir / "the-verdict" / "the-verdict.txt").read_text("utf-8")
    assert len(gpt2.encode(text)) == 5145
    assert gpt2.decode(gpt2.encode(text)) == text


def test_gpt2_gives_the_ids_of_the_tokenizers_library_on_20000_fuzzed_strings(gpt2: Tokenizer) -> None:
    assert_same_ids(gpt2.files()["tokenizer.json"].decode(), count=20_000)


def test_gpt2_gives_the_ids_of_tiktoken_and_transformers(gpt2: Tokenizer, cache: Path, tmp_path: Path) -> None:
    write(tmp_path, gpt2.files())
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    theirs, original = AutoTokenizer.from_pretrained(tmp_path), tiktoken.get_encoding("gpt2")
    for text in fuzzed_strings(1_000, seed=1):
        ids = gpt2.encode(text, parse_special=True)
        assert ids == theirs.encode(text) == original.encode(text, allowed_special="all")
    assert theirs.eos_token_id == gpt2.eos_id
    assert Tokenizer.from_directory(tmp_path).files() == gpt2.files()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r50k_base", "p50k_base", "cl100k_base"])
def test_other_vocabularies_give_the_ids_of_tiktoken_and_the_tokenizers_library(name: str, cache: Path) -> None:
    ours, original = load_tokenizer(name), tiktoken.get_encoding(name)
    library = Oracle.from_str(ours.files()["tokenizer.json"].decode())
    for text in fuzzed_strings(2_000):
        ids = ours.encode(text, parse_special=True)
        assert ids == original.encode(text, allowed_special="all") == library.encode(text).ids
    assert ours.vocab_size == original.n_vocab
    assert ours.special_tokens == {text: original.encode_single_token(text) for text in original.special_tokens_set}


def test_without_cache_and_network_one_line_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(tmp_path))
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer("r50k_base")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("encodings/r50k_base.tiktoken", R50K, "TIKTOKEN_CACHE_DIR", str(tmp_path)):
        assert part in message


def test_a_broken_cached_file_is_named_and_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    (tmp_path / R50K).write_bytes((cache / R50K).read_bytes()[:-7])
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(TokenizerError, match=f"{R50K}: broken"):
        load_tokenizer("r50k_base")
    assert (tmp_path / R50K).exists()


def test_what_is_fetched_is_kept_for_the_next_time(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def fetch(address: str, timeout: float) -> Any:
        fetched.append(address)
        return (cache / R50K).open("rb")

    monkeypatch.setattr(urllib.request, "urlopen", fetch)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "new"))
    assert tiktoken_json("r50k_base") == tiktoken_json("r50k_base")
    assert [address.rsplit("/")[-1] for address in fetched] == ["r50k_base.tiktoken"]
    assert [file.name for file in (tmp_path / "new").iterdir()] == [R50K]


def test_a_name_that_is_nothing_lists_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=f"nowhere: neither a directory nor one of {', '.join(TIKTOKEN_NAMES)}"):
        load_tokenizer("nowhere")


def test_a_directory_wins_over_a_name(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpt2").mkdir()
    write(tmp_path / "gpt2", tokenizer.files())
    monkeypatch.chdir(tmp_path)
    assert load_tokenizer("gpt2").vocab_size == tokenizer.vocab_size


def test_a_copy_of_the_cache_serves_as_well(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(cache / R50K, tmp_path)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert load_tokenizer("r50k_base").encode("Hello, do you like tea?") == [15496, 11, 466, 345, 588, 8887, 30]
