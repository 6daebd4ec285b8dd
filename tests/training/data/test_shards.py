"""The shards we write, read by datatrove; those that datatrove writes, read by us."""

from pathlib import Path

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.pipeline.tokens.tokenizer import DocumentTokenizer, TokenizedFile
from datatrove.utils.dataset import DatatroveFolderDataset

from model.tokenizer import Tokenizer
from training.data.errors import DataError
from training.data.ids import Ids
from training.data.shards import (
    MANIFEST,
    ShardWriter,
    id_dtype,
    is_token_folder,
    open_datatrove,
    open_shards,
    read_manifest,
    verify_shards,
)

STORIES = ["The quick brown fox.", "A small boat in 1869.", "\u65e5\u672c\u8a9e \U0001f642"]
LENGTHS = [5, 1, 7, 3, 9]


def write(folder: Path, *, vocab_size: int = 384, shard_tokens: int = 100) -> tuple[Ids, Ids]:
    ids = np.arange(sum(LENGTHS)).astype(id_dtype(vocab_size)) + vocab_size - 100
    ends = np.cumsum(LENGTHS).astype(np.uint64)
    writer = ShardWriter(
        folder, vocab_size=vocab_size, tokenizer_sha256="abc", tokenizer_name="mine", shard_tokens=shard_tokens
    )
    writer.write(ids[:6], ends[:2])
    writer.write(ids[6:], ends[2:] - np.uint64(6))
    writer.finish(num_bytes=99)
    return ids, ends


def test_what_is_written_comes_back_mapped_and_counted(tmp_path: Path) -> None:
    ids, ends = write(tmp_path)
    (tokens,) = open_shards(tmp_path)
    assert np.array_equal(tokens.ids, ids)
    assert np.array_equal(tokens.ends, ends)
    assert isinstance(tokens.ids.base, np.memmap)
    manifest = read_manifest(tmp_path)
    assert (manifest.num_tokens, manifest.num_documents, manifest.num_bytes, manifest.dtype) == (25, 5, 99, "uint16")


def test_shards_end_at_the_first_document_end_past_their_size(tmp_path: Path) -> None:
    ids, _ = write(tmp_path, shard_tokens=6)
    files = open_shards(tmp_path)
    assert [tokens.ends.tolist() for tokens in files] == [[5, 6], [7], [3, 12]]
    assert np.array_equal(np.concatenate([tokens.ids for tokens in files]), ids)


def test_large_vocabularies_get_wider_ids(tmp_path: Path) -> None:
    assert (id_dtype(2**16).itemsize, id_dtype(2**16 + 1).itemsize) == (2, 4)
    ids, _ = write(tmp_path, vocab_size=128_256)
    assert open_shards(tmp_path)[0].ids.tolist() == ids.tolist()


def test_a_truncated_shard_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "00000_tokens.ds").write_bytes(b"\0\0")
    with pytest.raises(DataError, match=r"00000_tokens\.ds: 1 ids of 5 documents instead of 25 of 5"):
        open_shards(tmp_path)


@pytest.mark.parametrize("name", ["00001_tokens.ds", "00000_tokens.ds.index"])
def test_a_changed_byte_is_found_when_asked_for(tmp_path: Path, name: str) -> None:
    write(tmp_path, shard_tokens=6)
    verify_shards(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[0] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: not what was written: its checksum is another"):
        verify_shards(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"{name}: No such file"):
        verify_shards(tmp_path)


def test_a_folder_without_a_whole_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json: no such file"):
        open_shards(tmp_path)
    (tmp_path / MANIFEST).write_text('{"dtype": "float32"}')
    with pytest.raises(DataError, match="not a manifest"):
        open_shards(tmp_path)


@pytest.mark.parametrize("vocab_size", [384, 128_256])
def test_datatrove_reads_our_shards(tmp_path: Path, vocab_size: int) -> None:
    ids, _ = write(tmp_path, vocab_size=vocab_size, shard_tokens=6)
    theirs = DatatroveFolderDataset(
        str(tmp_path),
        seq_len=2,
        filename_pattern="*.ds",
        token_size=2 if vocab_size == 384 else 4,
        return_positions=True,
    )
    rows = [theirs[i] for i in range(len(theirs))]
    assert [row["input_ids"].tolist() for row in rows] == [
        ids[i : i + 3].tolist() for i in (0, 3, 6, 9, 13, 16, 19, 22)
    ]
    assert rows[1]["positions"].tolist() == [0, 1, 0]


def test_our_files_are_those_that_datatrove_writes(tmp_path: Path) -> None:
    ids, ends = write(tmp_path / "ours")
    theirs = TokenizedFile(
        str(tmp_path / "theirs"), "00000_tokens.ds", tokenizer_name_or_path="mine", save_final_metadata=True
    )
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        theirs.write(ids[start:end].tolist(), None)
    theirs.close()
    for suffix in ("", ".index"):
        name = f"00000_tokens.ds{suffix}"
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    lines = [(tmp_path / side / "00000_tokens.ds.metadata").read_text().split("\n") for side in ("ours", "theirs")]
    assert lines[0][:2] == lines[1][:2] == ["mine|2", "25"]


@pytest.mark.parametrize("eos_token", ["<|endoftext|>", None])
@pytest.mark.parametrize("has_metadata", [True, False])
def test_a_datatrove_run_is_read_unchanged(
    tmp_path: Path, tokenizer: Tokenizer, eos_token: str | None, has_metadata: bool
) -> None:
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.files()["tokenizer.json"])
    step = DocumentTokenizer(
        str(tmp_path / "tokens"),
        str(tmp_path / "tokenizer.json"),
        eos_token=eos_token,
        shuffle_documents=False,
        save_final_metadata=has_metadata,
    )
    list(step.run([Document(text=text, id=str(i)) for i, text in enumerate(STORIES)]) or [])
    assert is_token_folder(tmp_path / "tokens")
    (tokens,) = open_datatrove(tmp_path / "tokens", tokenizer.vocab_size)
    expected = [[*tokenizer.encode(text), *([tokenizer.eos_id] if eos_token else [])] for text in STORIES]
    assert [part.tolist() for part in np.split(tokens.ids, tokens.ends[:-1].astype(int))] == expected


def test_ids_of_the_wrong_width_are_noticed(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "00000_tokens.ds.metadata").unlink()
    with pytest.raises(DataError, match="index ends at token 25, but there are"):
        open_datatrove_padded(tmp_path)


def open_datatrove_padded(folder: Path) -> None:
    (folder / "00000_tokens.ds").write_bytes((folder / "00000_tokens.ds").read_bytes() + b"\0\0")
    open_datatrove(folder, 128_256)


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(("ends", "message"), [([5, 13, 6, 16, 25], "ascending order"), ([], "index ends at token 0")])
def test_a_damaged_index_is_refused(tmp_path: Path, ends: list[int], message: str, *, ours: bool) -> None:
    write(tmp_path)
    (tmp_path / "00000_tokens.ds.index").write_bytes(np.array(ends, "<u8").tobytes())
    if ours and not ends:
        message = "0 documents instead of"
    with pytest.raises(DataError, match=message):
        open_shards(tmp_path) if ours else open_datatrove(tmp_path, 384)
