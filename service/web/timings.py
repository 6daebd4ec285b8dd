"""When what happened to a request, for headers, metrics and the log."""

import time
from dataclasses import dataclass, field

from service import metrics


@dataclass(slots=True)
class Timings:
    """When what happened, on the monotonic clock."""

    started_s: float = field(default_factory=time.monotonic)
    queue_s: float = 0.0
    admitted_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    arrived_s: float = 0.0
    """When the oldest of the events that are being answered came from the worker."""

    def admit(self, queue_s: float) -> None:
        """Note that a sequence left the queue."""
        self.queue_s = max(self.queue_s, queue_s)
        if self.admitted_s is None:
            self.admitted_s = self.started_s + queue_s

    def token(self, model_id: str, now_s: float, previous_s: float | None) -> None:
        """Note a token; `previous_s` is when its sequence had the one before."""
        if self.first_token_s is None:
            self.first_token_s = now_s
            metrics.TTFT.observe(model_id, now_s - self.started_s)
        if previous_s is not None:
            metrics.ITL.observe(model_id, now_s - previous_s)
        self.last_token_s = now_s

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_token_s is None else self.first_token_s - self.started_s

    @property
    def decode_s(self) -> float | None:
        """From the first token to the last."""
        if self.first_token_s is None or self.last_token_s is None:
            return None
        return self.last_token_s - self.first_token_s

    def server_timing(self) -> str:
        """Return the value of the `server-timing` header: phases in milliseconds."""
        admitted_s = self.started_s if self.admitted_s is None else self.admitted_s
        first_s = admitted_s if self.first_token_s is None else self.first_token_s
        phases = {"queue": self.queue_s, "prefill": first_s - admitted_s, "decode": self.decode_s or 0.0}
        return ", ".join(f"{name};dur={1000 * duration_s:.1f}" for name, duration_s in phases.items())
