from hypothesis import given
from hypothesis import strategies as st

from training.data.packing import pack


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60), seed=st.integers(0, 5))
def test_every_item_is_packed_once_and_no_row_is_too_full(lengths: list[int], seed: int) -> None:
    rows = pack(lengths, 50, seed)
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[item] for item in row) <= 50 for row in rows)
    assert pack(lengths, 50, seed) == rows
    assert sum(sum(lengths[item] for item in row) <= 25 for row in rows) <= 1  # two half rows would have been one


def test_what_fits_exactly_leaves_no_room() -> None:
    assert sorted(map(sorted, pack([3, 7, 5, 5, 10], 10, seed=0))) == [[0, 1], [2, 3], [4]]
