"""Labelled texts parted into what is trained, validated and tested on: without repeats, in even shares, balanced.

It knows neither files nor tokens.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.data.errors import DataError
from training.data.labelled import Example


@dataclass(frozen=True, slots=True)
class Split:
    """Three parts of a data set that share no example."""

    train: list[Example]
    valid: list[Example]
    test: list[Example]
    notes: list[str] = field(default_factory=list)
    """What was left out on the way, in sentences for the model card."""


def same(text: str) -> str:
    """Return what two texts share if they differ in letter case and white space only."""
    return " ".join(text.split()).casefold()


def without_duplicates(examples: Iterable[Example]) -> list[Example]:
    """Keep the first of all examples with the same text, whatever their labels; see `same`."""
    seen: dict[str, Example] = {}
    for example in examples:
        seen.setdefault(same(example.text), example)
    return list(seen.values())


def without_those_of(examples: Iterable[Example], others: Iterable[Example]) -> list[Example]:
    """Drop every example whose text is among the others."""
    taken = {same(example.text) for example in others}
    return [example for example in examples if same(example.text) not in taken]


def count_contradictions(examples: Iterable[Example]) -> int:
    """Count the texts that occur with different labels."""
    found: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for example in examples:
        found[same(example.text)].add(example.labels)
    return sum(len(labels) > 1 for labels in found.values())


def balanced(examples: Sequence[Example], seed: int) -> list[Example]:
    """Drop random examples until every class is as large as the smallest."""
    by_label = group_by_label(examples)
    size = min(map(len, by_label.values()))
    rng = np.random.default_rng(seed)
    return [members[i] for members in by_label.values() for i in np.sort(rng.permutation(len(members))[:size])]


def split_examples(examples: Sequence[Example], valid_fraction: float, test_fraction: float, seed: int) -> Split:
    """Split each class by the same shares, in random order; a share of 0 leaves its part empty.

    Texts with several labels are dealt out so that every label keeps its shares as nearly as can be.

    Raises:
        DataError: a class is too small to be in every part.
    """
    rng = np.random.default_rng(seed)
    has_classes = all(len(example.labels) == 1 for example in examples)
    deal = _deal_classes if has_classes else _deal_label_sets
    parts = deal(examples, (valid_fraction, test_fraction), rng)
    wanted = [name for name, share in (("validate", valid_fraction), ("test", test_fraction)) if share]
    for label, count in count_labels(examples).items():
        has_it = [any(label in example.labels for example in part) for part in parts]
        if not all(has for has, share in zip(has_it, (valid_fraction, test_fraction, 1), strict=True) if share):
            uses = " and ".join(["train", *wanted]) if len(wanted) < 2 else "train, validate and test"
            raise DataError(f"--data: class {label!r} has {count} texts, too few to {uses} on")
    valid, test, train = parts
    return Split(train, valid, test)


Parts = tuple[list[Example], list[Example], list[Example]]
"""To validate, test and train on."""


def _deal_classes(examples: Sequence[Example], shares: tuple[float, float], rng: np.random.Generator) -> Parts:
    valid: list[Example] = []
    test: list[Example] = []
    train: list[Example] = []
    for members in group_by_label(examples).values():
        order = [members[i] for i in rng.permutation(len(members))]
        num_valid, num_test = (round(share * len(order)) for share in shares)
        valid += order[:num_valid]
        test += order[num_valid : num_valid + num_test]
        train += order[num_valid + num_test :]
    return valid, test, train


def _deal_label_sets(examples: Sequence[Example], shares: tuple[float, float], rng: np.random.Generator) -> Parts:
    """Deal out the rarest label first, each text to the part that lacks most of it (Sechidis et al. 2011)."""
    all_shares = np.array([*shares, 1 - sum(shares)])
    room = all_shares * len(examples)
    wants = {label: all_shares * count for label, count in count_labels(examples).items()}
    waiting = [int(i) for i in rng.permutation(len(examples))]
    parts: Parts = ([], [], [])
    while waiting:
        left = count_labels(examples[i] for i in waiting)
        rarest = min(left, key=lambda label: (left[label], label)) if left else None
        turn = [i for i in waiting if rarest is None or rarest in examples[i].labels]
        for i in turn:
            need = np.zeros(3) if rarest is None else wants[rarest]
            part = max(range(3), key=lambda p: (all_shares[p] > 0, need[p], room[p]))
            parts[part].append(examples[i])
            room[part] -= 1
            for label in examples[i].labels:
                wants[label][part] -= 1
        done = set(turn)
        waiting = [i for i in waiting if i not in done]
    return parts


def group_by_label(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Sort examples with one label each into classes, by name."""
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_label[example.label].append(example)
    return dict(sorted(by_label.items()))


def count_labels(examples: Iterable[Example]) -> dict[str, int]:
    """Count how often each label is given, by name."""
    return dict(sorted(Counter(label for example in examples for label in example.labels).items()))


def class_sizes(examples: Iterable[Example]) -> str:
    """Say how many examples each class has, such as `ham 747, spam 747`; of many classes the largest."""
    counts = count_labels(examples)
    shown = sorted(counts, key=lambda label: -counts[label])[:10] if len(counts) > 12 else list(counts)
    listed = ", ".join(f"{label} {counts[label]}" for label in shown)
    return listed + (f" and {len(counts) - len(shown)} smaller classes" if len(shown) < len(counts) else "")


def class_weights(examples: Sequence[Example], labels: Sequence[str]) -> list[float]:
    """Return a weight for each class that gives all of them the same say; on average over the texts it is 1.

    A class without a text weighs nothing.
    """
    counts = count_labels(examples)
    return [len(examples) / (len(counts) * counts[label]) if label in counts else 0.0 for label in labels]


def answer_weights(examples: Sequence[Example], labels: Sequence[str]) -> list[tuple[float, float]]:
    """The same for texts with several labels: for each label, the weight of a no and of a yes."""
    counts = count_labels(examples)
    weigh: Callable[[int], float] = lambda count: len(examples) / (2 * max(1, count))  # noqa: E731
    return [(weigh(len(examples) - counts.get(label, 0)), weigh(counts.get(label, 0))) for label in labels]
