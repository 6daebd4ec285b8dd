"""What the process asks of the system is what it gets."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PAGE_FAULTS = """
import resource, torch
from service.engine.process_memory import keep_freed_memory
def step():
    tensors = [torch.ones(2 * 2**20) for _ in range(12)]
def count():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
keep_freed_memory()
for _ in range(20):
    step()
before = count()
for _ in range(10):
    step()
print(count() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is a setting of glibc")
def test_freed_memory_is_used_again_without_asking_the_system():
    for _ in range(4):  # without the setting every second process has 200,000 faults: it depends on what lies on top
        result = subprocess.run([sys.executable, "-c", PAGE_FAULTS], check=True, capture_output=True)
        assert int(result.stdout) < 100


HUGE_PAGES = """
import mmap, re, torch
from pathlib import Path
from service.engine.process_memory import use_huge_pages
def kilobytes(name):
    return sum(map(int, re.findall(rf"{name}: +([0-9]+) kB", Path("/proc/self/smaps").read_text())))
filled = torch.ones(24 * 2**20)
empty = mmap.mmap(-1, 256 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
empty[0] = 1
torch.randn(64, 64) @ torch.randn(64, 64)
before = kilobytes("Rss")
moved = use_huge_pages()
print(moved >> 10, kilobytes("AnonHugePages"), kilobytes("Rss") - before, bool((filled == 1).all()))
"""
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not SETTING.exists()
    or "[never]" in SETTING.read_text()
    or tuple(map(int, platform.release().split(".")[:2])) < (6, 1),
    reason="this Linux has no huge pages on advice",
)
def test_what_is_filled_lies_in_huge_pages_and_what_is_empty_stays_empty():
    result = subprocess.run([sys.executable, "-c", HUGE_PAGES], check=True, capture_output=True, text=True)
    moved, huge, grown, is_unchanged = result.stdout.split()
    assert int(moved) >= 92 * 1024
    assert int(huge) >= 92 * 1024
    assert int(grown) < 16 * 1024
    assert is_unchanged == "True"
