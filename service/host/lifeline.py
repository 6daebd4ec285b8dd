"""What binds a child process to the main one: it dies when that dies, and takes signals from nobody else.

Ctrl-C reaches every process of a terminal, and some init systems send SIGTERM to a whole group. Only the main process
answers, by draining; a child that ended at once would cut its requests off.
"""

import ctypes
import multiprocessing
import os
import signal
import sys

END_HTTP = signal.SIGUSR1
"""What the main process sends in place of SIGTERM."""

_PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the main one ends, however it ends, so that nothing is orphaned."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        os._exit(1)  # it ended before we asked


def obey_only_main() -> None:
    """Ignore SIGINT and SIGTERM; what SIGTERM did so far, `END_HTTP` does from now on."""
    signal.signal(END_HTTP, signal.getsignal(signal.SIGTERM))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
