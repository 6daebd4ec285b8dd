"""The page pool alone: every page has at most one owner, and none is ever lost."""

import random

import pytest

from service.engine.pages import PagePool


def test_a_sequence_gets_just_enough_pages_and_keeps_them_as_it_grows():
    pool = PagePool(num_pages=8, page_size=4)
    assert pool.grow("a", 5)
    first = list(pool.owned_by("a"))
    assert len(first) == 2
    assert pool.grow("a", 8)
    assert pool.owned_by("a") == first
    assert pool.grow("a", 9)
    assert pool.owned_by("a")[:2] == first
    assert len(pool.owned_by("a")) == 3
    pool.check()


def test_growth_beyond_the_free_pages_changes_nothing():
    pool = PagePool(num_pages=3, page_size=4)
    assert pool.grow("a", 8)
    assert not pool.grow("b", 5)
    assert pool.owned_by("b") == []
    assert pool.num_free == 1
    pool.check()


def test_release_returns_every_page_and_a_stranger_owns_none():
    pool = PagePool(num_pages=3, page_size=4)
    pool.grow("a", 12)
    assert pool.usage == 1
    pool.release("a")
    pool.release("never seen")
    assert pool.usage == 0
    pool.check()


def test_check_notices_a_page_with_two_owners():
    pool = PagePool(num_pages=3, page_size=4)
    pool.grow("a", 4)
    pool.grow("b", 4)
    pool.owned_by("a")[0] = pool.owned_by("b")[0]
    with pytest.raises(AssertionError, match="two owners"):
        pool.check()


@pytest.mark.parametrize("seed", range(3))
def test_random_growth_and_release_keep_the_invariants(seed):
    rng = random.Random(seed)
    pool = PagePool(num_pages=rng.randint(1, 20), page_size=rng.randint(1, 9))
    wanted: dict[str, int] = {}
    for _ in range(1000):
        uid = rng.choice("abcdef")
        if rng.random() < 0.3:
            pool.release(uid)
            wanted.pop(uid, None)
        else:
            num_tokens = wanted.get(uid, 0) + rng.randint(0, 12)
            if pool.grow(uid, num_tokens):
                wanted[uid] = num_tokens
        pool.check()
        for owner, num_tokens in wanted.items():
            assert len(pool.owned_by(owner)) == -(-num_tokens // pool.page_size)
