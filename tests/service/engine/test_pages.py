"""The page pool alone: no page is ever lost, or owned twice but by sharing."""

import random

import pytest

from service.engine.pages import PagePool, first_key, next_key


def keys_of(text: str, page_size: int = 2, adapter: str | None = None, salt: str = "") -> list[bytes]:
    """Keys of the full pages of a sequence in which each letter is a token."""
    keys = [first_key(adapter, salt)]
    for start in range(0, len(text) - page_size + 1, page_size):
        keys.append(next_key(keys[-1], [ord(letter) for letter in text[start : start + page_size]]))
    return keys[1:]


def fill(pool: PagePool, uid: str, text: str) -> int | None:
    """Admit a sequence and say that all of its pages hold what they should."""
    keys = keys_of(text, pool.page_size)
    found = pool.admit(uid, keys, len(text))
    if found is not None:
        pool.publish(uid, found // pool.page_size, keys[found // pool.page_size :])
    return found


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


def test_a_common_beginning_is_shared_page_by_page_without_a_copy():
    pool = PagePool(num_pages=8, page_size=2)
    assert fill(pool, "a", "abcdef") == 0
    assert fill(pool, "b", "abcdxy") == 4
    assert fill(pool, "c", "aXcdef") == 0
    assert pool.owned_by("b")[:2] == pool.owned_by("a")[:2]
    assert pool.num_free == 8 - 3 - 1 - 3
    pool.check()
    pool.release("a")
    pool.check()
    assert fill(pool, "d", "abcd") == 4


def test_what_comes_before_a_page_and_whose_it_is_are_part_of_its_key():
    assert keys_of("abcd")[1] != keys_of("xxcd")[1]
    assert keys_of("ab", adapter="x") != keys_of("ab")
    assert keys_of("ab", salt="x") != keys_of("ab")
    assert keys_of("ab", adapter="x") != keys_of("ab", salt="x")
    assert first_key(None, "") != first_key("None", "")


def test_released_pages_count_as_free_and_are_found_until_they_are_needed():
    pool = PagePool(num_pages=4, page_size=2)
    fill(pool, "a", "abcd")
    pool.release("a")
    assert (pool.num_free, pool.usage) == (4, 0)
    assert fill(pool, "b", "abcdef") == 4
    pool.release("b")
    assert fill(pool, "big", "12345678") == 0
    pool.check()
    pool.release("big")
    assert fill(pool, "a", "abcd") == 0


def test_the_page_left_longest_ago_goes_first_and_ends_go_before_beginnings():
    pool = PagePool(num_pages=4, page_size=2)
    for text in ("abcd", "1234"):
        fill(pool, text, text)
    for text in ("abcd", "1234"):
        pool.release(text)
    pool.grow("new", 2)
    assert fill(pool, "a", "abcd") == 2  # its second page was emptied
    pool.release("a")
    assert fill(pool, "1", "1234") == 2  # by then this one was the oldest
    pool.check()


def test_cached_pages_are_not_both_taken_up_and_emptied():
    pool = PagePool(num_pages=3, page_size=2)
    fill(pool, "a", "abcdef")
    pool.release("a")
    assert fill(pool, "b", "abcd1234") is None
    pool.check()
    assert (pool.owned_by("b"), pool.num_free) == ([], 3)
    assert fill(pool, "c", "abcd12") == 4


def test_withdrawn_pages_are_not_found():
    pool = PagePool(num_pages=8, page_size=2)
    fill(pool, "a", "abcdef")
    pool.withdraw("a", 1)
    assert fill(pool, "b", "abcdef") == 2
    pool.check()


def test_owned_pages_lie_close_together():
    pool = PagePool(num_pages=32, page_size=2)
    for num_tokens in range(1, 17):
        for uid in "abc":
            assert pool.grow(uid, num_tokens)
    assert sorted(page for uid in "abc" for page in pool.owned_by(uid)) == list(range(24))
    left = pool.owned_by("b").copy()
    pool.release("b")
    assert pool.grow("d", 10)
    assert pool.owned_by("d") == left[:5]


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


@pytest.mark.parametrize("seed", range(3))
def test_random_sharing_keeps_the_invariants_and_never_confuses_contents(seed):
    rng = random.Random(seed)
    pool = PagePool(num_pages=rng.randint(4, 20), page_size=2)
    texts: dict[str, str] = {}
    content: dict[int, str] = {}
    for _ in range(1500):
        uid = rng.choice("ABCDEF")
        if uid in texts:
            pool.release(uid)
            del texts[uid]
        else:
            text = "".join(rng.choice("ab") for _ in range(rng.randint(1, 8)))
            found = fill(pool, uid, text)
            if found is not None:
                texts[uid] = text
                for place, page in enumerate(pool.owned_by(uid)):
                    part = text[: 2 * place + 2]
                    assert 2 * place >= found or content[page] == part
                    content[page] = part
        pool.check()
    for uid in list(texts):
        pool.release(uid)
    assert pool.num_free == pool.num_pages
