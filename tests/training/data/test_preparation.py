"""Preparing texts with real processes: in parallel, ended at any moment, on a disk that is full."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import groundup
from model.tokenizer import Tokenizer
from training.config.pretrain import PretrainConfig
from training.data.claim import hold
from training.data.config import PrepareConfig
from training.data.corpus import load_corpus
from training.data.errors import DataError
from training.data.preparation import plan_pieces, prepare, sample
from training.data.shards import open_shards, read_manifest

STORIES = [f"Story {i}: the fox jumps over dog number {i * 7919}.\n" * (1 + i % 5) for i in range(300)]

SMALL_SLICES = (
    "import sys, training.data.preparation as p, training.data.slices as s\n"
    "p.cut_files = lambda files: s.cut_files(files, 20_000)\n"
    "import groundup; sys.exit(groundup.main(sys.argv[1:]))\n"
)
"""A program like `groundup` that cuts texts into many pieces, so that a few megabytes are enough to be ended in."""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder of four kinds of files."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("<|endoftext|>".join(STORIES[:100]))
    (folder / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in STORIES[100:200]))
    pq.write_table(pa.table({"text": STORIES[200:280]}), folder / "c.parquet", row_group_size=20)
    (folder / "d.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in STORIES[280:]))
    return folder


@pytest.fixture
def vocabulary(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)
    return folder


def flags(texts: Path, vocabulary: Path, out: Path, *more: str) -> list[str]:
    return ["data", "prepare", "--data", str(texts), "--out", str(out), "--tokenizer", str(vocabulary), *more]


def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SMALL_SLICES, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_document_lands_on_one_side_with_its_end(texts: Path, vocabulary: Path, tmp_path: Path) -> None:
    assert groundup.main([*flags(texts, vocabulary, tmp_path / "out", "--num-workers", "1")]) == 0
    tokenizer = Tokenizer.from_directory(tmp_path / "out")
    found = []
    for side in ("train", "valid"):
        (tokens,) = open_shards(tmp_path / "out" / side)
        text = tokenizer.decode(tokens.ids.tolist())
        documents = text.split("<|endoftext|>")[:-1]
        manifest = read_manifest(tmp_path / "out" / side)
        assert (manifest.num_documents, manifest.num_bytes) == (len(documents), len("".join(documents)))
        found += documents
    assert sorted(text.strip("\n") for text in found) == sorted(text.strip("\n") for text in STORIES)


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_workers(texts: Path, vocabulary: Path, tmp_path: Path) -> None:
    for workers in ("1", "3"):
        done = run(flags(texts, vocabulary, tmp_path / workers, "--num-workers", workers, "--shard-tokens", "3000"))
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "1" / "train").glob("*.ds"))) > 2
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_gives_the_same_bytes_and_repeats_no_piece(
    vocabulary: Path, tmp_path: Path
) -> None:
    text = tmp_path / "long.txt"
    text.write_text("<|endoftext|>".join(STORIES * 40))
    whole = run(flags(text, vocabulary, tmp_path / "whole", "--num-workers", "2"))
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "out"
    pieces = tmp_path / "out.part" / "pieces"
    for goal in (5, 40):
        kill_when(flags(text, vocabulary, out, "--num-workers", "2", "--resume"), pieces, goal)
        assert not out.exists()
    kept = {path.name: path.stat().st_mtime_ns for path in pieces.glob("*.json")}
    assert len(kept) >= 40
    last = run(flags(text, vocabulary, out, "--num-workers", "1", "--resume"))
    assert last.returncode == 0, last.stderr
    assert f"kept {len(kept)} finished pieces" in last.stderr
    assert contents(out) == contents(tmp_path / "whole")
    assert not pieces.parent.exists()


def kill_when(arguments: list[str], pieces: Path, num_done: int) -> None:
    """Run until so many pieces are done, then kill without warning, and wait until no worker is left."""
    process = subprocess.Popen([sys.executable, "-c", SMALL_SLICES, *arguments], stderr=subprocess.DEVNULL)
    while len(list(pieces.glob("*.json"))) < num_done:
        assert process.poll() is None, "it was done before it could be killed"
        time.sleep(0.005)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive, "workers outlived the process that started them"


@pytest.mark.slow
def test_a_full_disk_is_an_error_that_leaves_nothing_taken_for_whole(
    texts: Path, vocabulary: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the disk: writing past it fails in the same way."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))\n" + SMALL_SLICES
    out = tmp_path / "out"
    command = [sys.executable, "-c", limited, *flags(texts, vocabulary, out, "--num-workers", "1")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "File too large; what is finished is kept: --resume goes on from there" in error
    assert not out.exists()
    assert not list((tmp_path / "out.part").rglob("*.part"))
    assert run(flags(texts, vocabulary, out, "--num-workers", "1", "--resume")).returncode == 0


def test_an_unwritable_place_is_refused(texts: Path, vocabulary: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"--out: .*Not a directory"):
        prepare(config(texts, vocabulary, tmp_path / "file" / "out"))


def config(texts: Path, vocabulary: Path, out: Path, **changes: object) -> PrepareConfig:
    settings = {"data": texts, "out": out, "tokenizer": str(vocabulary), "num_workers": 1}
    return PrepareConfig.model_validate({**settings, **changes})


def test_a_taken_place_names_the_two_ways_on(texts: Path, vocabulary: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(config(texts, vocabulary, out))
    with pytest.raises(DataError, match="add --resume to go on with it, or --overwrite to start afresh"):
        prepare(config(texts, vocabulary, out))
    before = contents(out)
    prepare(config(texts, vocabulary, out, resume=True))
    assert contents(out) == before
    with pytest.raises(DataError, match="was made with other valid_fraction"):
        prepare(config(texts, vocabulary, out, resume=True, valid_fraction=0.2))
    prepare(config(texts, vocabulary, out, overwrite=True, valid_fraction=0.2))
    assert contents(out) != before


def test_a_changed_text_is_not_mixed_with_what_was_prepared_before(
    texts: Path, vocabulary: Path, tmp_path: Path
) -> None:
    prepare(config(texts, vocabulary, tmp_path / "out"))
    (texts / "a.txt").write_text("Another text.")
    with pytest.raises(DataError, match="was made with other files"):
        prepare(config(texts, vocabulary, tmp_path / "out", resume=True))


def test_a_folder_of_something_else_is_never_removed(texts: Path, vocabulary: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="holds something else"):
        prepare(config(texts, vocabulary, tmp_path / "out", overwrite=True))
    assert (tmp_path / "out" / "thesis.txt").exists()


def test_bad_input_stops_or_is_left_out_and_counted(
    texts: Path, vocabulary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (texts / "b.jsonl").write_bytes(b'{"text": "fine"}\n{"text": \n')
    with pytest.raises(DataError, match=r"b\.jsonl: line 2 is not JSON"):
        prepare(config(texts, vocabulary, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    prepare(config(texts, vocabulary, tmp_path / "out", on_error="skip", overwrite=True))
    assert "left out 1 places" in caplog.text
    counts = [read_manifest(tmp_path / "out" / side).num_documents for side in ("train", "valid")]
    assert sum(counts) == len(STORIES) - 100 + 1


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_an_empty_text_is_refused(tmp_path: Path, vocabulary: Path, content: str) -> None:
    (tmp_path / "empty.txt").write_text(content)
    with pytest.raises(DataError, match=r"empty\.txt: no text; the files are empty"):
        prepare(config(tmp_path / "empty.txt", vocabulary, tmp_path / "out"))


def test_a_vocabulary_is_trained_on_a_bounded_sample(texts: Path, tmp_path: Path) -> None:
    made = []
    for sample_bytes in (500, 10_000_000):
        out = tmp_path / str(sample_bytes)
        settings = config(texts, tmp_path, out, tokenizer=None, vocab_size=400, sample_bytes=sample_bytes)
        prepare(settings)
        made.append(Tokenizer.from_directory(out).vocab_size)
    assert 262 < made[0] < made[1] <= 400


@pytest.mark.parametrize("separator", ["", "<|endoftext|>"])
def test_a_vocabulary_does_not_learn_from_what_is_held_out(tmp_path: Path, separator: str) -> None:
    """The sample and the training side of the result are the same text."""
    text = tmp_path / "stories.txt"
    text.write_text(separator.join(STORIES))
    settings = config(text, tmp_path, tmp_path / "out", tokenizer=None, vocab_size=300, valid_fraction=0.3)
    seen = "".join(sample(plan_pieces(settings, tmp_path), 10_000_000))
    prepare(settings)
    (tokens,) = open_shards(tmp_path / "out" / "train")
    tokenizer = Tokenizer.from_directory(tmp_path / "out")
    assert tokenizer.decode(tokens.ids.tolist(), skip_special=True) == seen


def test_what_was_prepared_is_trained_on_as_it_is(texts: Path, vocabulary: Path, tmp_path: Path) -> None:
    prepare(config(texts, vocabulary, tmp_path / "out"))
    settings = PretrainConfig.model_validate({"data": tmp_path / "out", "out": "unused"})
    corpus = load_corpus(settings, tmp_path / "run")
    assert corpus.num_train_tokens == read_manifest(tmp_path / "out" / "train").num_tokens
    assert not (tmp_path / "run").exists()


def test_texts_in_another_order_are_not_mixed_with_earlier_pieces(
    texts: Path, vocabulary: Path, tmp_path: Path
) -> None:
    files = (texts / "a.txt", texts / "b.jsonl")
    prepare(config(texts, vocabulary, tmp_path / "out", data=files))
    with pytest.raises(DataError, match="was made with other files"):
        prepare(config(texts, vocabulary, tmp_path / "out", data=files[::-1], resume=True))


def test_what_a_run_leaves_that_is_killed_in_its_last_moment_is_removed(
    texts: Path, vocabulary: Path, tmp_path: Path
) -> None:
    prepare(config(texts, vocabulary, tmp_path / "out"))
    (tmp_path / "out.part" / "pieces").mkdir(parents=True)
    prepare(config(texts, vocabulary, tmp_path / "out", resume=True))
    assert not (tmp_path / "out.part").exists()


@pytest.mark.parametrize("place", ["out", "out.part"])
def test_a_folder_with_nothing_of_worth_is_not_in_the_way(
    place: str, texts: Path, vocabulary: Path, tmp_path: Path
) -> None:
    (tmp_path / place).mkdir()
    (tmp_path / place / "plan.json.77.part").write_text("{")
    (tmp_path / "out" / "plan.json.77.part").unlink(missing_ok=True)
    prepare(config(texts, vocabulary, tmp_path / "out"))
    assert read_manifest(tmp_path / "out" / "train").num_tokens


def test_half_written_pieces_of_a_killed_run_do_not_pile_up(
    texts: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = tmp_path / "out.part" / "pieces"
    (texts / "b.jsonl").write_bytes(b"[]")
    with pytest.raises(DataError, match="is not an object"):
        prepare(config(texts, vocabulary, tmp_path / "out"))
    (pieces / "000000.ids.77.part").write_bytes(b"x")
    with pytest.raises(DataError, match="is not an object"):
        prepare(config(texts, vocabulary, tmp_path / "out", resume=True))
    assert not list(pieces.glob("*.part"))


def test_two_runs_do_not_write_to_one_place(texts: Path, vocabulary: Path, tmp_path: Path) -> None:
    with hold(tmp_path / "out.part"):
        for how in ("resume", "overwrite"):
            with pytest.raises(DataError, match="another run is writing to"):
                prepare(config(texts, vocabulary, tmp_path / "out", **{how: True}))
    prepare(config(texts, vocabulary, tmp_path / "out"))


def test_texts_are_never_removed_with_what_was_made_beside_them(texts: Path, vocabulary: Path, tmp_path: Path) -> None:
    prepare(config(texts, vocabulary, tmp_path / "out"))
    (tmp_path / "out" / "mine.txt").write_text("My own text.")
    with pytest.raises(DataError, match=r"holds .*mine\.txt, which is to be read"):
        prepare(config(tmp_path / "out", vocabulary, tmp_path / "out", overwrite=True))
    assert (tmp_path / "out" / "mine.txt").exists()


def test_the_present_folder_is_a_place_like_others(
    texts: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "thesis.txt").write_text("x")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match=r"\. exists"):
        prepare(config(texts, vocabulary, Path()))
