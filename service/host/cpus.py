"""Which CPUs a worker computes on, and how its threads wait for each other. To be decided before torch is imported.

A decode step is some hundred products, each divided among threads that wait for each other at its end. A thread that
sleeps there takes longer to wake than many a product takes; one that waits awake must not do so on the CPU that the
other needs. So threads as many as CPUs get one each and wait awake for a moment. OpenMP reads all this from the
environment; what the operator has set there is left alone.
"""

import os
from contextlib import suppress
from pathlib import Path

_KNOWS_AFFINITY = hasattr(os, "sched_getaffinity")  # Linux does
_ALL_CPUS = os.sched_getaffinity(0) if _KNOWS_AFFINITY else set(range(os.cpu_count() or 1))
"""Of this process, before any thread of it was bound to one."""
_TURNS_AWAKE = "10000"
"""Of a waiting thread, before it sleeps: some 0.1 ms, longer than what stands between two products."""


def usable_cpus(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Count the CPUs this process may use: its affinity, or less where its control group has a quota (cgroup v2)."""
    num_cpus = len(_ALL_CPUS)
    quota, period = cpu_max.read_text().split() if cpu_max.exists() else ("max", "1")
    return num_cpus if quota == "max" else max(1, min(num_cpus, int(quota) // int(period)))


def arrange_threads(num_threads: int, *, may_bind: bool) -> None:
    """Say how the threads of the products of this process are to wait.

    Fewer threads than CPUs are bound to none: which are free is for the kernel to see. They sleep, as two could come to
    share one. So do those of a process that may not bind, lest two have their main threads on the same CPU.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    may_bind = may_bind and num_threads == len(_ALL_CPUS) and _KNOWS_AFFINITY
    if may_bind and os.environ.setdefault("OMP_PROC_BIND", "true").lower() != "false":
        os.environ.setdefault("GOMP_SPINCOUNT", _TURNS_AWAKE)
    else:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def use_all_cpus() -> None:
    """Let the thread that calls this run anywhere: it may have been made by one that is bound."""
    if _KNOWS_AFFINITY:
        with suppress(OSError):  # the CPUs may be others by now; the kernel has seen to that
            os.sched_setaffinity(0, _ALL_CPUS)
