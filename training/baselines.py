"""What simple methods reach on the same data, so that a model's numbers mean something.

Word n-grams for text; naive Bayes and TF-IDF with logistic regression for labels.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline

from training.data.labelled import Marks
from training.kneser_ney import UNSEEN, NGramTable

WORD = re.compile(r" ?\w+| ?[^\w\s]+|\s")
"""Cuts a text into words with the space before them, punctuation and further white space; nothing is lost."""

END: str = ""
"""Ends a text, and the spelling of a word."""


Labeller = Callable[[Sequence[str], Marks, Sequence[str]], Marks]
"""From training texts, their labels and other texts to the labels of those."""


def label_baselines(train: Sequence[str], marks: Marks, texts: Sequence[str]) -> dict[str, Marks]:
    """Return what simple methods, trained on some texts and their labels, say of other texts, by the methods' names.

    A method that finds no word in the training texts is left out.
    """
    methods: dict[str, Labeller] = {
        "TF-IDF + logistic regression": tfidf_logistic_regression,
        "naive Bayes": naive_bayes,
        "always the most frequent": most_frequent,
    }
    found = {}
    for name, method in methods.items():
        try:
            found[name] = method(train, marks, texts)
        except ValueError as error:
            if "empty vocabulary" not in str(error):
                raise
    return found


def tfidf_logistic_regression(train: Sequence[str], marks: Marks, texts: Sequence[str]) -> Marks:
    """Label texts by logistic regression on TF-IDF of words, scikit-learn's defaults."""
    return _label(make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000)), train, marks, texts)


def naive_bayes(train: Sequence[str], marks: Marks, texts: Sequence[str]) -> Marks:
    """Label texts by multinomial naive Bayes on word counts."""
    return _label(make_pipeline(CountVectorizer(), MultinomialNB()), train, marks, texts)


def most_frequent(train: Sequence[str], marks: Marks, texts: Sequence[str]) -> Marks:
    """Give every text the largest class, or each label that most texts have."""
    shares = marks.mean(0)
    one = np.arange(len(shares)) == shares.argmax() if (marks.sum(1) == 1).all() else shares >= 0.5
    return np.tile(one, (len(texts), 1))


def _label(pipeline: Pipeline, train: Sequence[str], marks: Marks, texts: Sequence[str]) -> Marks:
    """Fit one model of all classes; where texts have several labels or none, one for each label."""
    if (marks.sum(1) == 1).all():
        found = pipeline.fit(train, marks.argmax(1)).predict(texts)
        one: Marks = np.arange(marks.shape[1]) == found[:, None]
        return one
    columns = [
        np.full(len(texts), column[0])
        if column.all() or not column.any()
        else pipeline.fit(train, column).predict(texts)
        for column in marks.T
    ]
    return np.stack(columns, axis=1)


class NGram:
    """Interpolated Kneser-Ney (Kneser and Ney 1995) over any symbols.

    Each order subtracts a discount from its counts and gives what that frees to the order below. Lower orders count
    in how many contexts a symbol was seen, not how often. Below the lowest stands `base`, which must know every
    symbol, so that nothing has probability zero.
    """

    def __init__(self, order: int, base: Callable[[Hashable], float]) -> None:
        self.order = order
        self.base = base
        self._counts: list[dict[tuple[Hashable, ...], Counter[Hashable]]] = []
        self._discounts: list[float] = []

    def fit(self, sequences: Iterable[Sequence[Hashable]]) -> None:
        """Count sequences; each is preceded by `order - 1` empty symbols."""
        highest: dict[tuple[Hashable, ...], Counter[Hashable]] = defaultdict(Counter)
        for sequence in sequences:
            for context, symbol in self._walk(sequence):
                highest[context][symbol] += 1
        levels = [highest]
        for _ in range(self.order - 1):
            lower: dict[tuple[Hashable, ...], Counter[Hashable]] = defaultdict(Counter)
            for context, symbols in levels[-1].items():
                lower[context[1:]].update(symbols.keys())
            levels.append(lower)
        self._counts = levels[::-1]
        self._discounts = [_discount(level) for level in self._counts]

    def bits(self, sequence: Sequence[Hashable]) -> float:
        """Return the code length of a sequence."""
        return -sum(math.log2(self.probability(context, symbol)) for context, symbol in self._walk(sequence))

    def probability(self, context: tuple[Hashable, ...], symbol: Hashable) -> float:
        """Return the chance of a symbol after `order - 1` symbols."""
        p = self.base(symbol)
        for length, (level, discount) in enumerate(zip(self._counts, self._discounts, strict=True)):
            counts = level.get(context[len(context) - length :])
            if counts is not None:
                total = counts.total()
                p = (max(counts[symbol] - discount, 0.0) + discount * len(counts) * p) / total
        return p

    def _walk(self, sequence: Sequence[Hashable]) -> Iterable[tuple[tuple[Hashable, ...], Hashable]]:
        padded = [None] * (self.order - 1) + list(sequence)
        for end in range(self.order - 1, len(padded)):
            yield tuple(padded[end - self.order + 1 : end]), padded[end]


def _discount(level: dict[tuple[Hashable, ...], Counter[Hashable]]) -> float:
    """Estimate the discount from the symbols seen once and twice (Ney, Essen and Kneser 1994)."""
    tally = Counter(count for counts in level.values() for count in counts.values())
    once, twice = tally[1], tally[2]
    return once / (once + 2 * twice) if once and twice else 0.5


class WordNGram:
    """A word n-gram that can spell: words it has not seen are coded byte by byte by a byte n-gram."""

    def __init__(self, order: int = 5, spelling_order: int = 6) -> None:
        self._order = order
        self._spelling = NGram(spelling_order, lambda _: 1 / 257)
        self._numbers: dict[str, int] = {}
        self._words: NGramTable | None = None
        self._spelled: dict[str, float] = {}

    def fit(self, texts: Iterable[str]) -> None:
        """Count the words of some texts, and the bytes of each different word once."""
        sequences = [
            np.array([self._numbers.setdefault(word, len(self._numbers) + 1) for word in cut_words(text)])
            for text in texts
        ]
        self._spelling.fit(_spelling(word) for word in sorted(self._numbers))
        self._words = NGramTable(sequences, order=self._order, num_symbols=len(self._numbers) + 1)

    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """Return the code length of some texts, their ends included, by UTF-8 bytes."""
        return sum(map(self._bits, texts)) / sum(len(text.encode()) for text in texts)

    def _bits(self, text: str) -> float:
        assert self._words is not None, "fit comes first"
        words = cut_words(text)
        numbers = np.array([self._numbers.get(word, UNSEEN) for word in words])
        return float(-self._words.log2(numbers, np.array([self._spell(word) for word in words])).sum())

    def _spell(self, word: str) -> float:
        if word not in self._spelled:
            self._spelled[word] = 2.0 ** -self._spelling.bits(_spelling(word))
        return self._spelled[word]


def cut_words(text: str) -> list[str]:
    """Cut a text into words, without loss, and end it."""
    return [*WORD.findall(text), END]


def _spelling(word: str) -> list[Hashable]:
    return [*word.encode(), END]
