from pathlib import Path

import numpy as np
import pytest
import torch
from datatrove.data import Document
from datatrove.pipeline.tokens.tokenizer import DocumentTokenizer

from model.tokenizer import Tokenizer
from training.config.pretrain import PretrainConfig
from training.data.config import PrepareConfig
from training.data.corpus import load_corpus, open_and_split, open_sides, split_files, verify
from training.data.errors import DataError
from training.data.preparation import prepare
from training.data.shards import TokenFile
from training.loss import IGNORE_INDEX
from training.vocabulary import train_bpe

STORIES = [f"The fox number {i} jumps over the dog number {i + 1}.\n" for i in range(60)]
SIZES = {"block_size": 16, "stride": 8, "batch_size": 4}


def config(data: object, **changes: object) -> PretrainConfig:
    return PretrainConfig.model_validate({"data": data, "out": "unused", "vocab_size": 300, **changes})


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "foxes.txt"
    path.write_text("".join(STORIES))
    return path


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    path = tmp_path / "stories.txt"
    path.write_text("<|endoftext|>".join(STORIES))
    return path


@pytest.fixture
def datatrove_run(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """A folder that datatrove wrote, without end tokens and without our manifest."""
    folder = tmp_path / "datatrove"
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.files()["tokenizer.json"])
    step = DocumentTokenizer(str(folder), str(tmp_path / "tokenizer.json"), shuffle_documents=False)
    list(step.run([Document(text=text, id=str(i)) for i, text in enumerate(STORIES)]) or [])
    return folder


def test_the_end_of_a_single_text_is_held_out_at_a_character(text: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = load_corpus(config(text, valid_fraction=0.1), tmp_path / "run", tokenizer=tokenizer)
    content = "".join(STORIES)
    cut = int(len(content) * 0.9)
    (source,) = corpus.sources
    assert tokenizer.decode(source.train[0].ids[:-1].tolist()) == content[:cut]
    assert tokenizer.decode(source.valid[0].ids[:-1].tolist()) == content[cut:]
    assert corpus.valid_bytes == len(content) - cut


def test_what_was_prepared_is_used_again(stories: Path, tmp_path: Path) -> None:
    first = load_corpus(config(stories), tmp_path / "run")
    places = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    again = load_corpus(config(stories), tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == places
    assert again.fingerprint == first.fingerprint
    assert (
        again.num_train_tokens + again.num_valid_tokens
        == sum(len(first.tokenizer.encode(story.strip("\n"))) + 1 for story in STORIES[:-1])
        + len(first.tokenizer.encode(STORIES[-1]))
        + 1
    )


def test_the_fingerprint_tells_data_apart(stories: Path, text: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = {
        load_corpus(config(data, **more), tmp_path / f"{i}", tokenizer=tokenizer).fingerprint
        for i, (data, more) in enumerate(
            [
                (stories, {}),
                (text, {}),
                ((stories, text), {}),
                ((stories, text), {"weights": (1, 2)}),
                ((stories, text), {"weights": (2, 1)}),
            ]
        )
    }
    assert len(found) == 5


def test_every_held_out_token_is_a_target_of_the_validation_batches(stories: Path, tmp_path: Path) -> None:
    corpus = load_corpus(config(stories), tmp_path / "run")
    batches = corpus.valid_batches(block_size=8, batch_size=3, stride=8)
    targets = torch.cat([batch["targets"].flatten() for batch in batches])
    expected = np.concatenate([tokens.ids for tokens in corpus.sources[0].valid]).tolist()
    assert targets[targets != IGNORE_INDEX].tolist() == expected


def test_a_masked_batch_says_which_document_each_input_is_of(stories: Path, tmp_path: Path) -> None:
    corpus = load_corpus(config(stories), tmp_path / "run")
    batch = corpus.train_batches(**SIZES, seed=1, document_mask=True)(0)
    is_end = batch["idx"] == corpus.tokenizer.eos_id
    assert (batch["positions"][is_end] == 0).all()
    assert is_end.any()
    assert (batch["documents"].diff() == (batch["positions"][:, 1:] == 0)).all()


def test_a_datatrove_run_feeds_training_without_predicting_across_its_borders(
    datatrove_run: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    corpus = load_corpus(config(datatrove_run), tmp_path / "run", tokenizer=tokenizer)
    ids = [tokenizer.encode(story) for story in STORIES]
    assert corpus.num_train_tokens + corpus.num_valid_tokens == sum(map(len, ids))
    batch = corpus.train_batches(**SIZES, seed=1)(0)
    first = tokenizer.encode("The")[0]
    assert (batch["idx"] == first).any()
    assert not (batch["targets"] == first).any()  # each document begins so, and only there


def test_the_held_out_bytes_of_a_datatrove_run_are_counted(
    datatrove_run: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    corpus = load_corpus(config(datatrove_run), tmp_path / "run", tokenizer=tokenizer)
    held_out = "".join(tokenizer.decode(tokens.ids.tolist()) for tokens in corpus.sources[0].valid)
    assert "".join(STORIES).endswith(held_out)
    assert corpus.valid_bytes == len(held_out)


def test_token_ids_without_a_tokenizer_are_refused(datatrove_run: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="name theirs with --tokenizer"):
        load_corpus(config(datatrove_run), tmp_path / "run")
    with pytest.raises(DataError, match=r"token \d+ is not of this tokenizer"):
        load_corpus(config(datatrove_run), tmp_path / "run", tokenizer=train_bpe(STORIES, 262))


def test_shards_of_another_tokenizer_are_refused(stories: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    load_corpus(config(stories), tmp_path / "run", tokenizer=tokenizer)
    with pytest.raises(DataError, match="another tokenizer"):
        load_corpus(config(tmp_path / "run" / "00"), tmp_path / "again", tokenizer=train_bpe(STORIES, 270))


def test_sources_are_mixed_in_the_shares_asked_for(
    stories: Path, datatrove_run: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    mixed = config((stories, datatrove_run), weights=(0.75, 0.25))
    corpus = load_corpus(mixed, tmp_path / "run", tokenizer=tokenizer)
    assert len(corpus.sources) == 2
    batches = corpus.train_batches(**SIZES, seed=1)
    rows = torch.cat([batches(step)["idx"] for step in range(16)])
    has_end = (rows == tokenizer.eos_id).any(dim=1)  # only the stories have end tokens, about one in a window
    assert 20 < int(has_end.sum()) <= 48


@pytest.mark.parametrize("lengths", [[[10]], [[3, 4, 3]], [[5, 5], [6, 4]], [[1], [1], [98]], [[98], [1], [1]]])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9])
def test_shards_without_sides_are_cut_once_and_lose_nothing(lengths: list[list[int]], fraction: float) -> None:
    files = [
        TokenFile(np.arange(sum(sizes), dtype=np.uint16) + 100 * i, np.cumsum(sizes).astype(np.uint64))
        for i, sizes in enumerate(lengths)
    ]
    train, valid = split_files(files, fraction)
    together = np.concatenate([tokens.ids for tokens in train + valid])
    assert np.array_equal(together, np.concatenate([tokens.ids for tokens in files]))
    for side in (train, valid):
        assert sum(len(tokens.ids) for tokens in side) > 0
        assert all(not len(tokens.ids) or int(tokens.ends[-1]) == len(tokens.ids) for tokens in side)


def test_prepared_data_with_nothing_held_out_is_refused(stories: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    settings = PrepareConfig(data=(stories,), out=tmp_path / "out", num_workers=1, valid_fraction=0)
    prepare(settings, tokenizer)
    with pytest.raises(DataError, match="nothing is held out; prepare it with a larger --valid-fraction"):
        open_sides(tmp_path / "out", tokenizer)


def test_both_sides_of_prepared_data_can_be_verified(stories: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    load_corpus(config([stories], valid_fraction=0.3), tmp_path, tokenizer=tokenizer)
    folder = tmp_path / "00"
    verify([stories, folder])
    (shard,) = (folder / "valid").glob("*.ds")
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(DataError, match=f"valid/{shard.name}: not what was written"):
        verify([stories, folder])


def test_one_side_of_prepared_data_is_held_to_its_manifest(stories: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    prepare(PrepareConfig(data=(stories,), out=tmp_path / "out", num_workers=1), tokenizer)
    manifest = tmp_path / "out" / "train" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"tokenizer_sha256": "', '"tokenizer_sha256": "other'))
    with pytest.raises(DataError, match="written with another tokenizer"):
        open_and_split(manifest.parent, tokenizer, 0.1)
