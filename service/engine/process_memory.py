"""How this process has its memory from Linux: what is freed is kept, and what is filled lies in large pages."""

import ctypes
import re
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of glibc's settings, from its malloc.h."""
_LARGEST_MMAP_THRESHOLD = 32 * 2**20

_HUGEPAGE, _COLLAPSE = 14, 25
"""What Linux can be advised, from its mman.h; the latter since 6.1."""
_HUGE_PAGE_BYTES = 2 * 2**20
_FILLED = 0.9
"""Share of a region that must be in use already: the rest of it will be taken."""
_PRIVATE_REGION = re.compile(
    r"^(?P<start>[0-9a-f]+)-(?P<stop>[0-9a-f]+) rw-p \S+ \S+ 0 +(?:\[heap\])?\n"
    r"Size: +(?P<size>\d+) kB\n(?:(?!Rss).*\n)*Rss: +(?P<used>\d+) kB",
    re.MULTILINE,
)


def keep_freed_memory() -> None:
    """Let tensors of a step take the memory that those of the step before have left.

    glibc gives large pieces back to the system, which clears each of their pages when they are wanted again
    (docs/benchmarks.md has what that takes). With another C library nothing changes.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)


def use_huge_pages() -> int:
    """Move what this process has filled, weights above all, into pages of 2 MiB; return how many bytes that is.

    A step reads every weight once, and the processor fetches ahead only within a page. Where the system does not know
    the advice, or forbids it, nothing changes.
    """
    smaps = Path("/proc/self/smaps")
    libc = ctypes.CDLL(None)
    if not smaps.exists() or not hasattr(libc, "madvise"):
        return 0
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    moved = 0
    for region in _PRIVATE_REGION.finditer(smaps.read_text()):
        start = -(-int(region["start"], 16) // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
        size = (int(region["stop"], 16) - start) // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
        if size <= 0 or int(region["used"]) < _FILLED * int(region["size"]):
            continue
        libc.madvise(start, size, _HUGEPAGE)
        moved += 0 if libc.madvise(start, size, _COLLAPSE) else size
    return moved
