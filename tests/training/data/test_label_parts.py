import re
from pathlib import Path

import pytest

from training.config.classify import ClassifyConfig
from training.data.errors import DataError
from training.data.label_parts import load_split
from training.data.label_split import class_sizes, same


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [f"win prize number {i} now\tspam" for i in range(40)] + [f"see you at {i}\tham" for i in range(60)]
    path = tmp_path / "messages.tsv"
    path.write_text("text\tlabel\n" + "".join(row + "\n" for row in [*rows, rows[0], rows[1]]))
    return path


def make_run(data: Path, **changes: object) -> ClassifyConfig:
    return ClassifyConfig.model_validate({"data": data, "out": "runs/x", **changes})


def test_repeated_texts_are_dropped_and_classes_balanced_on_request(data: Path) -> None:
    as_is = load_split(make_run(data, deduplicate=False))
    assert len(as_is.train + as_is.valid + as_is.test) == 102
    unique = load_split(make_run(data))
    assert len(unique.train + unique.valid + unique.test) == 100
    even = load_split(make_run(data, balance="undersample-all"))
    assert len(even.train + even.valid + even.test) == 80


def test_a_list_of_labels_without_multi_label_is_refused(tmp_path: Path) -> None:
    tagged = tmp_path / "tags.jsonl"
    tagged.write_text('{"text": "pay and board", "labels": ["money", "travel"]}\n')
    with pytest.raises(DataError, match="row 1 has a list of labels; say --multi-label"):
        load_split(make_run(tagged))


def test_a_file_of_its_own_is_tested_on_whole_and_never_trained_on(data: Path, tmp_path: Path) -> None:
    test = tmp_path / "test.tsv"
    test.write_text("text\tlabel\nwin prize  NUMBER 1 now\tspam\nsee you at 2\tham\nsee you at 2\tham\nnew\tham\n")
    split = load_split(make_run(data, test_data=test))
    assert [example.text for example in split.test] == [
        "win prize  NUMBER 1 now",
        "see you at 2",
        "see you at 2",
        "new",
    ]
    assert len(split.train) + len(split.valid) == 98
    assert not {same(example.text) for example in split.train + split.valid} & {same(e.text) for e in split.test}
    told = " ".join(split.notes)
    assert "2 training texts that also occur in held-out files were dropped." in told
    assert "1 texts of `test.tsv` repeat an earlier one; they stay, as published." in told
    with pytest.raises(DataError, match=r"--valid-data: .*test.tsv: every text of it also occurs in what is held out"):
        load_split(make_run(data, test_data=test, valid_data=test))


def test_a_label_unseen_in_training_is_refused_by_the_flag_of_its_file(data: Path, tmp_path: Path) -> None:
    test = tmp_path / "test.tsv"
    test.write_text("text\tlabel\nhello\tegg\n")
    with pytest.raises(DataError, match=r"--test-data: label 'egg' is none of the classifier's: ham, spam"):
        load_split(make_run(data, test_data=test))


def test_only_the_training_part_is_evened_out_unless_all_is_asked_for(data: Path) -> None:
    split = load_split(make_run(data, balance="undersample"))
    assert class_sizes(split.train) == "ham 28, spam 28"
    assert class_sizes(split.test) == "ham 12, spam 8"


def test_without_deduplication_leaks_are_counted(data: Path) -> None:
    header, rows = data.read_text().split("\n", 1)
    data.write_text(f"{header}\n{rows}{rows}")
    told = " ".join(load_split(make_run(data, deduplicate=False)).notes)
    assert re.search(r"Repeated texts stay; [1-9]\d* of the 41 test texts are also trained on", told)


def test_labels_get_the_names_they_are_given(data: Path) -> None:
    split = load_split(make_run(data, label_names=("spam=unwanted",)))
    assert {example.label for example in split.train} == {"ham", "unwanted"}


def test_a_name_for_a_label_that_no_text_has_is_refused(data: Path) -> None:
    with pytest.raises(DataError, match=r"--label-names: no text has the label '1', which is to be called 'unwanted'"):
        load_split(make_run(data, label_names=("1=unwanted",)))


def test_duplicates_of_the_sms_collection_are_found(data_dir: Path) -> None:
    config = make_run(data_dir / "sms-spam" / "SMSSpamCollection", balance="undersample-all")
    split = load_split(config)
    texts = [example.text for example in split.train + split.valid + split.test]
    assert len(texts) == len(set(texts))
