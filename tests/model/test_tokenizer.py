"""Our tokenizer against the `tokenizers` library (the oracle), and streaming against decoding at once."""

import base64
import json
import random
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, pre_tokenizers
from tokenizers import Tokenizer as Oracle
from transformers import AutoTokenizer

from model.tokenizer import StreamDecoder, Tokenizer
from model.vocabularies.byte_level import read_byte_level
from model.vocabularies.tiktoken_backend import MAX_SPACE_RUN
from model.vocabularies.tokenizer_json import NotByteLevel, TokenizerError, byte_alphabet, read_tokenizer_json
from tests.fuzz import SPECIAL, assert_same_ids, fuzzed_strings, write
from tests.vocabularies import CORPUS, LLAMA3_PATTERN, byte_level, split, trained


def single_digits() -> Any:
    """Return what SmolLM and StarCoder have: every digit stands alone."""
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])


def tiktoken_json(file: Path) -> str:
    """Write a .tiktoken vocabulary as Llama-3's file does: every split of every token is a merge, in rank order."""
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(str.split, file.read_text().splitlines())}
    alphabet = byte_alphabet()
    text = {token: "".join(alphabet[byte] for byte in token) for token in ranks}
    splits = (
        (text[token[:cut]], text[token[cut:]])
        for token in sorted(ranks, key=ranks.__getitem__)
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    )
    oracle = Oracle(models.BPE({text[t]: r for t, r in ranks.items()}, list(splits), ignore_merges=True))
    oracle.pre_tokenizer = split(LLAMA3_PATTERN)
    oracle.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    return oracle.to_str()


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        pytest.param(byte_level(), id="gpt2 pattern"),
        pytest.param(byte_level(add_prefix_space=True), id="prefix space"),
        pytest.param(byte_level(use_regex=False), id="no split"),
        pytest.param(split(LLAMA3_PATTERN), id="llama3 pattern"),
        pytest.param(split(r"\p{L}+|\s+(?!\S)|\s+"), id="pattern with gaps"),
        pytest.param(split(r"\p{L}+|\s+(?!\S)|\s+", invert=True), id="inverted pattern"),
        pytest.param(split(LLAMA3_PATTERN, "removed", invert=True), id="everything but matches removed"),
        pytest.param(single_digits(), id="single digits"),
    ],
)
def test_ids_equal_the_tokenizers_library_on_fuzzed_strings(pre_tokenizer: Any) -> None:
    source = trained(pre_tokenizer)
    assert read_byte_level(read_tokenizer_json(source))  # runs in tiktoken
    assert_same_ids(source)


@pytest.mark.parametrize("wrong", ["pattern", "merges reversed", "merge missing", "ids shifted"])
def test_the_comparison_would_find_a_vocabulary_that_is_slightly_wrong(wrong: str) -> None:
    right = json.loads(trained(byte_level()))
    changed = json.loads(trained(single_digits() if wrong == "pattern" else byte_level()))
    merges = changed["model"]["merges"]
    if wrong == "merges reversed":
        merges.reverse()
    elif wrong == "merge missing":
        del merges[0]
    elif wrong == "ids shifted":
        changed["model"]["vocab"] = {text: id_ + 1 for text, id_ in changed["model"]["vocab"].items()}
    ours = Tokenizer.from_json(json.dumps(changed), eos_token="<|endoftext|>")
    library = Oracle.from_str(json.dumps(right))
    assert any(ours.encode(text, parse_special=True) != library.encode(text).ids for text in fuzzed_strings(1_000))


@pytest.mark.slow
def test_ids_equal_the_tokenizers_library_with_a_vocabulary_converted_from_tiktoken(data_dir: Path) -> None:
    cl100k = data_dir / "tiktoken" / "cache" / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
    assert_same_ids(tiktoken_json(cl100k), count=2_000)


def test_ids_equal_the_tokenizers_library_under_nfc() -> None:
    normalizer = {"type": "NFC"}
    assert_same_ids(trained(byte_level(), changes={"normalizer": normalizer}))
    sequence = {"type": "Sequence", "normalizers": [normalizer]}
    assert_same_ids(trained(byte_level(), changes={"normalizer": sequence}), count=100)


def test_ids_need_not_be_in_merge_order() -> None:
    root = json.loads(trained(byte_level()))
    vocab = {text: id_ for text, id_ in root["model"]["vocab"].items() if text not in SPECIAL}
    shuffled = list(vocab.values())
    random.Random(1).shuffle(shuffled)
    root["model"]["vocab"] = dict(zip(vocab, shuffled, strict=True)) | {text: i for i, text in enumerate(SPECIAL)}
    assert_same_ids(json.dumps(root), count=1_000)


def test_merges_may_be_written_as_strings_or_as_pairs() -> None:
    root = json.loads(trained(byte_level()))
    assert isinstance(root["model"]["merges"][0], list)
    pairs = Tokenizer.from_json(json.dumps(root), eos_token="<|endoftext|>")
    root["model"]["merges"] = [" ".join(pair) for pair in root["model"]["merges"]]
    strings = Tokenizer.from_json(json.dumps(root), eos_token="<|endoftext|>")
    assert strings.encode(CORPUS[1]) == pairs.encode(CORPUS[1])


def test_added_tokens_that_are_not_special_are_always_recognised() -> None:
    oracle = Oracle.from_str(trained(byte_level()))
    oracle.add_tokens([AddedToken("<think>", normalized=False), AddedToken("<think>>", normalized=False)])
    ours = Tokenizer.from_json(oracle.to_str(), eos_token="<|endoftext|>")
    text = "a<think>b<think>>c<|end|>"
    assert ours.encode(text, parse_special=True) == oracle.encode(text).ids
    assert oracle.token_to_id("<think>") in ours.encode(text)
    assert "<think>" not in ours.special_tokens
    assert ours.decode(ours.encode(text), skip_special=True) == text


def test_a_long_run_of_spaces_neither_fails_nor_loses_text(tokenizer: Tokenizer) -> None:
    for text in (" " * 1_100_000, "x" + "\n " * 600_000 + "y"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    below = "a" + " " * (MAX_SPACE_RUN - 1) + "b"
    assert tokenizer.encode(below) == Oracle.from_str(tokenizer.files()["tokenizer.json"].decode()).encode(below).ids


@given(st.text())
def test_decoding_returns_the_text(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text, parse_special=True)) == text


@given(st.lists(st.integers(0, 400)), st.booleans())
def test_streamed_text_equals_decoded_text(tokenizer: Tokenizer, ids: list[int], skip_special: bool) -> None:
    stream = StreamDecoder(tokenizer, skip_special=skip_special)
    pushed = [stream.push(id_) for id_ in ids]
    assert "".join(pushed) + stream.flush() == tokenizer.decode(ids, skip_special=skip_special)


@given(st.binary())
def test_invalid_bytes_are_replaced_as_python_replaces_them(tokenizer: Tokenizer, data: bytes) -> None:
    id_of_byte = {tokenizer.token_bytes(id_): id_ for id_ in range(tokenizer.vocab_size)}
    ids = [id_of_byte[bytes([byte])] for byte in data]
    stream = StreamDecoder(tokenizer)
    assert "".join(stream.push(id_) for id_ in ids) + stream.flush() == data.decode("utf-8", "replace")
    assert tokenizer.decode(ids) == data.decode("utf-8", "replace")


@given(st.text())
def test_a_stream_holds_back_at_most_one_unfinished_character(tokenizer: Tokenizer, text: str) -> None:
    stream, seen, shown = StreamDecoder(tokenizer, skip_special=False), b"", ""
    for id_ in tokenizer.encode(text):
        seen += tokenizer.token_bytes(id_)
        shown += stream.push(id_)
        assert shown == seen.decode("utf-8", "ignore")  # `ignore` drops exactly the unfinished character at the end


def test_control_tokens_are_made_only_on_request(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("<|user|>", parse_special=True) == [tokenizer.special_tokens["<|user|>"]]
    plain = tokenizer.encode("<|user|>")
    assert not tokenizer.special_ids & set(plain)
    assert tokenizer.decode(plain) == "<|user|>"
    assert tokenizer.decode([*plain, tokenizer.eos_id], skip_special=True) == "<|user|>"


def test_unknown_ids_have_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bytes(tokenizer.vocab_size) == tokenizer.token_bytes(-1) == b""
    assert tokenizer.decode([10**6, *tokenizer.encode("a")]) == "a"


def test_a_directory_gives_its_files_back_byte_for_byte(tokenizer: Tokenizer, tmp_path: Path) -> None:
    files = tokenizer.files()
    files["tokenizer.json"] = json.dumps(json.loads(files["tokenizer.json"])).encode()  # other spacing than ours
    files["tokenizer_config.json"] = b'{"eos_token": {"content": "<|end|>"}, "pad_token": null, "model_max_length": 7}'
    write(tmp_path, files)
    loaded = Tokenizer.from_directory(tmp_path)
    assert loaded.files() == files
    assert (loaded.eos_id, loaded.pad_id) == (tokenizer.special_tokens["<|end|>"], None)


def test_the_end_token_may_be_named_by_another_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write(tmp_path, tokenizer.files() | {"tokenizer_config.json": b"{}"})
    with pytest.raises(TokenizerError, match="eos_token is missing"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 0]}')
    assert Tokenizer.from_directory(tmp_path).eos_id == 5


def test_another_end_token_keeps_the_vocabulary(tokenizer: Tokenizer) -> None:
    chat = tokenizer.with_eos("<|end|>")
    assert chat.eos_id == tokenizer.special_tokens["<|end|>"] != tokenizer.eos_id
    assert chat.files()["tokenizer.json"] == tokenizer.files()["tokenizer.json"]


def test_a_cut_is_written_as_transformers_writes_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name, data in tokenizer.with_cut(100, "left").files().items():
        (tmp_path / name).write_bytes(data)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["model_max_length"], config["truncation_side"]) == (100, "left")
    again = Tokenizer.from_directory(tmp_path)
    assert (again.max_length, again.truncation_side) == (100, "left")
    assert (tokenizer.max_length, tokenizer.truncation_side) == (None, "right")


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_transformers_loads_the_directory(tokenizer: Tokenizer, tmp_path: Path, model_type: str) -> None:
    write(tmp_path, tokenizer.files())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in fuzzed_strings(300):
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text, parse_special=True)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (tokenizer.eos_id, tokenizer.pad_id)


def unreachable_token() -> dict[str, Any]:
    """`abc` can only come from ab + c, but b + c merges first."""
    root = json.loads(trained(byte_level(), vocab_size=3 + 256))
    for token in ("bc", "ab", "abc"):
        root["model"]["vocab"][token] = len(root["model"]["vocab"])
    root["model"]["merges"] = [["b", "c"], ["a", "b"], ["ab", "c"]]
    return {"model": root["model"]}


def added(**options: bool) -> dict[str, Any]:
    """Return added tokens of which one has unusual options."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    contents = enumerate(SPECIAL)
    return {"added_tokens": [{"id": id_, "content": text, "special": True} | plain | options for id_, text in contents]}


def punctuated() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), byte_level(use_regex=False)])


@pytest.mark.parametrize(
    ("pre_tokenizer", "changes", "reason"),
    [
        (byte_level(), {"normalizer": {"type": "Lowercase"}}, "normalizer 'Lowercase'"),
        (byte_level(), {"pre_tokenizer": None}, "pre_tokenizer None"),
        (byte_level(), unreachable_token(), "token b'abc', which the merges do not reach"),
        (byte_level(), added(lstrip=True), "added token '<|endoftext|>' with 'lstrip'"),
        (byte_level(), added(rstrip=True), "added token '<|endoftext|>' with 'rstrip'"),
        (byte_level(), added(single_word=True), "added token '<|endoftext|>' with 'single_word'"),
        (byte_level(), added(normalized=True) | {"normalizer": {"type": "NFC"}}, "'<|endoftext|>' with 'normalized'"),
        (punctuated(), {}, "pre_tokenizer 'Punctuation + ByteLevel'"),
        (split(r"\s+", "merged_with_next"), {}, "pre_tokenizer Split with MergedWithNext, invert False"),
        (split(LLAMA3_PATTERN, "removed"), {}, "pre_tokenizer Split with Removed, invert False"),
    ],
)
def test_what_tiktoken_cannot_do_runs_in_the_tokenizers_library(
    pre_tokenizer: Any, changes: dict[str, Any], reason: str
) -> None:
    source = trained(pre_tokenizer, changes=changes)
    with pytest.raises(NotByteLevel, match=re.escape(reason)):
        read_byte_level(read_tokenizer_json(source))
    assert_same_ids(source, count=1_000)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"decoder": {"type": "WordPiece"}}, "decoder step 'WordPiece'"),
        ({"model": {"type": "BPE", "dropout": 0.1}}, "model.dropout 0.1"),
        ({"model": {"type": "BPE", "vocab": {}, "merges": [], "unk_token": 7}}, "malformed"),
        ({"model": []}, "malformed"),
        ({"added_tokens": [{"id": 0, "content": ""}]}, "an added token is empty"),
    ],
)
def test_what_nobody_can_do_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_json(trained(byte_level(), changes=changes), eos_token="<|endoftext|>")
    assert named in str(caught.value)


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(TokenizerError, match=r"normalizer 'Lowercase'.*pip install 'groundup\[tokenizers\]'"):
        Tokenizer.from_json(trained(byte_level(), changes={"normalizer": {"type": "Lowercase"}}), eos_token="x")


def test_an_end_token_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(TokenizerError, match="eos_token '</s>'"):
        Tokenizer.from_json(trained(byte_level()), eos_token="</s>")


@pytest.mark.parametrize("broken", ["tokenizer.json", "tokenizer_config.json"])
def test_a_missing_or_broken_file_is_named(tokenizer: Tokenizer, tmp_path: Path, broken: str) -> None:
    write(tmp_path, tokenizer.files() | {broken: b"{"})
    with pytest.raises(TokenizerError, match=str(tmp_path)):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / broken).unlink()
    with pytest.raises(TokenizerError, match=f"{broken}: cannot be read"):
        Tokenizer.from_directory(tmp_path)


def test_older_formats_are_recognised_and_explained(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").touch()
    with pytest.raises(TokenizerError, match=r"tokenizer.json: cannot be read .*tokenizer.model is an older format"):
        Tokenizer.from_directory(tmp_path)


def test_fuzzed_strings_cover_what_they_promise() -> None:
    texts = "".join(fuzzed_strings(10_000))
    assert {unicodedata.category(character) for character in texts} >= {"Lu", "Mn", "Nd", "Zs", "Cc", "So", "Lo", "Sk"}
    assert all(token in texts for token in SPECIAL)
