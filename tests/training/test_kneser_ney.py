import numpy as np
import pytest

from training.baselines import NGram
from training.kneser_ney import UNSEEN, NGramTable, Numbers

NUM_SYMBOLS = 31


def sequence(seed: int, length: int, largest: int = NUM_SYMBOLS - 1) -> Numbers:
    """Symbols from 1, small ones far more often than large ones."""
    return np.random.default_rng(seed).zipf(1.6, size=length).clip(1, largest).astype(np.int64)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_arrays_give_every_symbol_the_chance_that_dictionaries_give(order: int) -> None:
    sequences = [sequence(0, 200), sequence(1, 1), sequence(2, 300)]
    tested = sequence(3, 100, largest=NUM_SYMBOLS + 3)
    oracle = NGram(order, lambda _: 1 / 40)
    oracle.fit([list(map(int, symbols)) for symbols in sequences])
    table = NGramTable(sequences, order=order, num_symbols=NUM_SYMBOLS)
    numbers = np.where(tested < NUM_SYMBOLS, tested, UNSEEN)
    walked = [-np.log2(oracle.probability(*place)) for place in oracle._walk(list(map(int, tested)))]
    assert -table.log2(numbers, np.full(len(tested), 1 / 40)) == pytest.approx(np.array(walked), rel=1e-12)


def test_what_was_seen_in_many_contexts_is_likelier_in_a_new_one_than_what_was_only_seen_often() -> None:
    often, everywhere = 1, 2
    sequences = [np.array([3, often] * 8 + [s for other in range(4, 10) for s in (other, everywhere)])]
    table = NGramTable(sequences, order=2, num_symbols=12)
    after_new = [table.log2(np.array([11, symbol]), np.full(2, 1 / 12))[1] for symbol in (often, everywhere)]
    assert after_new[0] < after_new[1]
