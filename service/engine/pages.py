"""Who owns which page of the key/value cache.

Pure bookkeeping: it knows no tensors and no policy. Whoever asks for pages decides what to do when there are none.
"""


class PagePool:
    """Pages `0 .. num_pages - 1`, each free or owned by exactly one sequence."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._free = list(range(num_pages - 1, -1, -1))  # a stack: the page freed last is warm, so it is reused first
        self._owned: dict[str, list[int]] = {}

    @property
    def num_tokens(self) -> int:
        return self.num_pages * self.page_size

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def usage(self) -> float:
        """Share of pages in use, 0 to 1."""
        return 1 - self.num_free / self.num_pages

    def owned_by(self, uid: str) -> list[int]:
        """The pages of one sequence in token order; the list stays the pool's own."""
        return self._owned.get(uid, [])

    def num_missing(self, uid: str, num_tokens: int) -> int:
        """How many pages the sequence lacks to hold this many tokens."""
        return max(0, -(-num_tokens // self.page_size) - len(self.owned_by(uid)))

    def grow(self, uid: str, num_tokens: int) -> bool:
        """Give the sequence pages for this many tokens in all; with too few free, change nothing and return False."""
        missing = self.num_missing(uid, num_tokens)
        if missing > self.num_free:
            return False
        self._owned.setdefault(uid, []).extend(self._free.pop() for _ in range(missing))
        return True

    def release(self, uid: str) -> None:
        """Take back every page of the sequence; one that owns none is fine."""
        self._free.extend(reversed(self._owned.pop(uid, [])))

    def check(self) -> None:
        """Assert the invariants: free plus used equals total, and no page has two owners."""
        used = [page for pages in self._owned.values() for page in pages]
        assert len(self._free) + len(used) == self.num_pages, "pages were lost or invented"
        assert set(self._free).union(used) == set(range(self.num_pages)), "a page has two owners"
