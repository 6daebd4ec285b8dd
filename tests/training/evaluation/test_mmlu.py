from pathlib import Path

import pytest

from training.data.errors import DataError
from training.evaluation.mmlu import Item, SubjectResult, letter_prompt, mmlu_metrics, read_mmlu, text_prompt


def write(folder: Path, test: str, dev: str = "") -> Path:
    for split, content in (("test", test), ("dev", dev)):
        (folder / split).mkdir(exist_ok=True)
        if content:
            (folder / split / f"high_school_physics_{split}.csv").write_text(content)
    return folder


ROWS = 'What falls?,stones,birds,,light,A\n"Two, or\nthree?",2,3,4,5,3\n'


def test_both_published_formats_are_read(tmp_path: Path) -> None:
    (original,) = read_mmlu(write(tmp_path, ROWS))
    assert original.items[0] == Item("What falls?", ("stones", "birds", "", "light"), 0)
    assert original.items[1].answer == 3
    (with_header,) = read_mmlu(write(tmp_path, "question,choice0,choice1,choice2,choice3,answer\n" + ROWS))
    assert with_header == original
    (first,) = read_mmlu(tmp_path, limit=1)
    assert first.items == original.items[:1]


def test_prompts_show_worked_examples_of_the_subject(tmp_path: Path) -> None:
    (subject,) = read_mmlu(write(tmp_path, "Q?,a,b,c,d,B\n", "E?,k,l,m,n,C\n"))
    (item,) = subject.items
    assert letter_prompt(subject, item, 5) == (
        "The following are multiple choice questions (with answers) about high school physics.\n\n"
        "E?\nA. k\nB. l\nC. m\nD. n\nAnswer: C\n\nQ?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    )
    assert text_prompt(subject, item, 0) == (
        "The following are questions (with answers) about high school physics.\n\nQuestion: Q?\nAnswer:"
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("Q?,a,b,c,B\n", "row 1 is not a question, four answers"),
        ("Q?,a,b,c,d,A\nQ?,a,b,c,d,E\n", "row 2 is not"),
        ("Q?,a,b,c,d,01\n", "row 1 is not"),
        ("question,a,b,c,d,answer\n", "is empty"),
    ],
)
def test_rows_that_are_no_questions_are_refused_by_number(tmp_path: Path, content: str, complaint: str) -> None:
    with pytest.raises(DataError, match=f"--mmlu: .*high_school_physics_test.csv: {complaint}"):
        read_mmlu(write(tmp_path, content))


def test_a_folder_without_tests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--mmlu: .*: holds no test/SUBJECT_test.csv"):
        read_mmlu(tmp_path)


def test_subjects_weigh_by_questions_and_alike(tmp_path: Path) -> None:
    (subject,) = read_mmlu(write(tmp_path, ROWS * 2))
    results = [
        SubjectResult("a", [0, 1, 2], 1, {"letter": 3, "acc": 0, "acc_norm": 1}),
        SubjectResult("b", [3], 0, {"letter": 0, "acc": 1, "acc_norm": 1}),
    ]
    metrics = mmlu_metrics([subject], results)
    assert metrics["letter"] == 0.75
    assert metrics["letter_mean_of_subjects"] == 0.5
    assert metrics["acc"] == 0.25
    assert metrics["num_questions"] == 4
    assert metrics["num_left_out"] == 0
    assert metrics["guessing"] == 0.25


def test_the_published_questions_are_all_read(data_dir: Path) -> None:
    subjects = read_mmlu(data_dir / "eval-mmlu")
    assert len(subjects) == 57
    assert sum(len(subject.items) for subject in subjects) == 14042
    assert all(len(subject.examples) == 5 for subject in subjects)
