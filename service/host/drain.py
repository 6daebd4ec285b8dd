"""How the service ends: which phase it is in, and when the next one begins. It knows no signals and no processes."""

import time
from collections.abc import Callable
from typing import Literal

Phase = Literal["unready", "reject", "abort"]

ABORT_GRACE_S = 2.0
"""Time for aborted streams to send their last event."""


class Drain:
    """Not begun, then unready -> reject -> abort, then over.

    unready: load balancers learn to look elsewhere while requests are still served.
    reject: new requests are refused and running ones finish; over at once when none is left.
    abort: what still runs gets an error.
    """

    def __init__(
        self,
        announce: Callable[[Phase], None],
        *,
        delay_s: float,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`announce` is called once for each phase, as it begins."""
        self._announce = announce
        self._duration_s: dict[Phase, float] = {"unready": delay_s, "reject": timeout_s, "abort": ABORT_GRACE_S}
        self._clock = clock
        self._until_s = 0.0
        self.phase: Phase | None = None
        self.is_over = False

    def begin(self, phase: Phase = "unready") -> None:
        """Enter a phase; a service at rest enters the first one."""
        self.phase = phase
        self._until_s = self._clock() + self._duration_s[phase]
        self._announce(phase)

    def advance(self, num_in_flight: int) -> None:
        """Move on if it is time to, given how many requests are still being answered."""
        is_late = self._clock() >= self._until_s
        if self.phase == "unready" and is_late:
            self.begin("reject")
        elif self.phase in ("reject", "abort") and num_in_flight == 0:
            self.is_over = True
        elif self.phase == "reject" and is_late:
            self.begin("abort")
        elif self.phase == "abort" and is_late:
            self.is_over = True
