import numpy as np
import pytest

from training.data.order import POOL_BATCHES, EpochOrder, LengthGroupedOrder


def test_each_epoch_holds_every_item_once_in_its_own_order() -> None:
    order = EpochOrder(10, batch_size=4, seed=1)
    items = np.concatenate([order(step) for step in range(10)])
    epochs = items.reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    walked = EpochOrder(10, batch_size=4, seed=1)
    for step in range(7):
        expected = walked(step)
    assert np.array_equal(EpochOrder(10, batch_size=4, seed=1)(6), expected)
    assert not np.array_equal(EpochOrder(10, batch_size=4, seed=2)(6), expected)


def test_a_batch_may_be_larger_than_the_data() -> None:
    assert sorted(EpochOrder(3, batch_size=9, seed=0)(0)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("step", [0, 5, POOL_BATCHES, 3 * POOL_BATCHES + 1])
def test_grouped_batches_depend_on_seed_and_step_alone(step: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 99, 50).tolist()
    walked = LengthGroupedOrder(lengths, batch_size=8, seed=3)
    for earlier in range(step + 1):
        expected = walked(earlier)
    assert np.array_equal(LengthGroupedOrder(lengths, batch_size=8, seed=3)(step), expected)


def test_grouping_shows_items_as_often_and_pads_less() -> None:
    lengths = np.random.default_rng(0).integers(1, 99, POOL_BATCHES * 8)
    grouped = LengthGroupedOrder(lengths.tolist(), batch_size=8, seed=3)
    batches = [grouped(step) for step in range(POOL_BATCHES)]
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    plain = EpochOrder(len(lengths), batch_size=8, seed=3)
    width = sum(int(lengths[batch].max()) for batch in batches)
    plain_width = sum(int(lengths[plain(step)].max()) for step in range(POOL_BATCHES))
    assert width < 0.7 * plain_width
