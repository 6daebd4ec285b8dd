"""Who owns which page of the key/value cache, and which full page holds which tokens.

Pure bookkeeping: it knows no tensors and no policy. Whoever asks for pages decides what to do when there are none.
"""

from array import array
from collections.abc import Sequence
from hashlib import sha256
from heapq import heappop, heappush
from itertools import islice, takewhile

EVICTED_AT_ONCE = 16
"""Most cached pages of one sequence that are emptied together, so that room comes in runs of neighbouring pages."""
EVICTED_SHARE = 1 / 64
"""They are never more than this share of all pages, but at least one."""


class PagePool:
    """Pages `0 .. num_pages - 1`, each empty, owned by one sequence or several, or cached.

    A full page may have a key, which stands for its tokens and all before them. By its key a page is found and shared:
    a sequence that begins alike becomes one more owner, and no owner writes to it again. A page whose last owner has
    left stays cached under its key until its memory is needed; those left longest ago go first.

    The lowest empty page is given first, so that owned pages lie close together: on a CPU, neighbours are read at once,
    whoever owns them.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._evicted_at_once = max(1, min(EVICTED_AT_ONCE, int(EVICTED_SHARE * num_pages)))
        self._empty = list(range(num_pages))  # a heap
        self._cached: dict[int, str] = {}  # page to its last owner, in the order in which they were left
        self._owned: dict[str, list[int]] = {}
        self._num_owners = [0] * num_pages
        self._page_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}

    @property
    def num_tokens(self) -> int:
        return self.num_pages * self.page_size

    @property
    def num_free(self) -> int:
        """Pages without an owner: empty ones, and cached ones, which may be emptied at any time."""
        return len(self._empty) + len(self._cached)

    @property
    def usage(self) -> float:
        """Share of pages that have an owner, 0 to 1."""
        return 1 - self.num_free / self.num_pages

    def owned_by(self, uid: str) -> list[int]:
        """The pages of one sequence in token order; the list stays the pool's own."""
        return self._owned.get(uid, [])

    def num_missing(self, uid: str, num_tokens: int) -> int:
        """How many pages the sequence lacks to hold this many tokens."""
        return max(0, -(-num_tokens // self.page_size) - len(self.owned_by(uid)))

    def admit(self, uid: str, keys: Sequence[bytes], num_tokens: int) -> int | None:
        """Give a sequence that owns nothing yet the pages of its first tokens.

        Args:
            uid: the sequence.
            keys: of the full pages it begins with and may share. Those found are, up to the first that is not.
            num_tokens: tokens to hold in all.

        Returns:
            How many tokens lie in shared pages; None, and nothing has changed, if too few pages are free.
        """
        found = self._find(keys)
        num_new = self.num_missing(uid, num_tokens) - len(found)
        num_revived = sum(1 for page in found if not self._num_owners[page])
        if num_new > self.num_free - num_revived:
            return None
        for page in found:
            self._cached.pop(page, None)
            self._num_owners[page] += 1
        self._owned[uid] = list(found)
        self._extend(uid, num_new)
        return len(found) * self.page_size

    def grow(self, uid: str, num_tokens: int) -> bool:
        """Give the sequence pages for this many tokens in all; with too few free, change nothing and return False."""
        missing = self.num_missing(uid, num_tokens)
        if missing > self.num_free:
            return False
        self._extend(uid, missing)
        return True

    def publish(self, uid: str, first: int, keys: Sequence[bytes]) -> None:
        """Let pages of a sequence be found, from its page number `first` on. A key stays with the page that has it."""
        for page, key in zip(self.owned_by(uid)[first : first + len(keys)], keys, strict=True):
            if key not in self._page_of:
                self._page_of[key] = page
                self._key_of[page] = key

    def withdraw(self, uid: str, first: int) -> None:
        """Let the pages of a sequence from its page number `first` on be found no longer."""
        for page in self.owned_by(uid)[first:]:
            self._forget_key(page)

    def release(self, uid: str) -> None:
        """Take every page of the sequence from it; one that owns none is fine."""
        for page in reversed(self._owned.pop(uid, [])):  # the end of a sequence is less likely to be wanted again
            self._num_owners[page] -= 1
            if self._num_owners[page]:
                continue
            if page in self._key_of:
                self._cached[page] = uid
            else:
                heappush(self._empty, page)

    def check(self) -> None:
        """Assert the invariants."""
        empty, owned = set(self._empty), {page for pages in self._owned.values() for page in pages}
        places: dict[int, set[int]] = {}
        counts = [0] * self.num_pages
        for pages in self._owned.values():
            for place, page in enumerate(pages):
                counts[page] += 1
                places.setdefault(page, set()).add(place)
        assert all(counts[page] == 1 or page in self._key_of for page in owned), "two owners, but not by sharing"
        assert counts == self._num_owners, "owners were miscounted"
        assert all(len(found) == 1 for found in places.values()), "a page stands for two places"
        assert len(self._empty) + len(self._cached) + len(owned) == self.num_pages, "pages were lost or invented"
        assert empty | set(self._cached) | owned == set(range(self.num_pages)), "an owned page is free"
        assert {key: page for page, key in self._key_of.items()} == self._page_of, "a key leads to another page"
        assert set(self._cached) <= set(self._key_of), "a cached page cannot be found"
        assert empty.isdisjoint(self._key_of), "an empty page can be found"

    def _find(self, keys: Sequence[bytes]) -> list[int]:
        found: list[int] = []
        for key in keys:
            if (page := self._page_of.get(key)) is None:
                break
            found.append(page)
        return found

    def _extend(self, uid: str, count: int) -> None:
        """Give the sequence so many more pages, which are free."""
        while len(self._empty) < count:
            self._evict()
        pages = self._owned.setdefault(uid, [])
        for _ in range(count):
            page = heappop(self._empty)
            self._num_owners[page] = 1
            pages.append(page)

    def _evict(self) -> None:
        """Empty the page left longest ago and some that were left with it; there is a cached page."""
        oldest = next(iter(self._cached.values()))
        together = takewhile(lambda page: self._cached[page] == oldest, self._cached)
        for page in list(islice(together, self._evicted_at_once)):
            del self._cached[page]
            self._forget_key(page)
            heappush(self._empty, page)

    def _forget_key(self, page: int) -> None:
        if (key := self._key_of.pop(page, None)) is not None:
            del self._page_of[key]


def first_key(adapter: str | None, cache_salt: str) -> bytes:
    """Stand for a sequence's empty beginning; sequences that must share nothing differ from here on."""
    return sha256(repr((adapter, cache_salt)).encode()).digest()


def next_key(key: bytes, token_ids: Sequence[int]) -> bytes:
    """Stand for what `key` stands for and one more page of tokens. SHA-256: two contents never have one key."""
    return sha256(key + array("q", token_ids).tobytes()).digest()
