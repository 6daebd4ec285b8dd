"""What one key may ask for each minute: buckets that fill steadily, and what clients are told about them.

Nothing here knows keys or HTTP requests; the clock comes from outside.
"""

import time
from collections.abc import Callable

from service.web.errors import RateLimited

Clock = Callable[[], float]


class Bucket:
    """A minute's worth of something, refilled steadily. Debts are possible: a price may be known only afterwards."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._filled_s = clock()

    @property
    def level(self) -> float:
        """What is left."""
        now_s = self._clock()
        self._level = min(self.per_minute, self._level + (now_s - self._filled_s) * self.per_minute / 60)
        self._filled_s = now_s
        return self._level

    def wait_s(self, amount: float) -> float:
        """Return how long until so much is there."""
        return max(0.0, (amount - self.level) * 60 / self.per_minute)

    def take(self, amount: float) -> None:
        """Remove so much, whether it is there or not; a negative amount is given back."""
        self._level = min(self.per_minute, self.level - amount)


class Quota:
    """The limits of one key on requests and tokens per minute; None is no limit."""

    def __init__(
        self,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._requests = None if requests_per_minute is None else Bucket(requests_per_minute, clock)
        self._tokens = None if tokens_per_minute is None else Bucket(tokens_per_minute, clock)

    def begin_request(self) -> None:
        """Count one request.

        Raises:
            RateLimited: there were too many in the last minute.
        """
        if self._requests is not None:
            _take(self._requests, 1, "requests")

    def reserve_tokens(self, amount: int) -> None:
        """Set tokens aside that a request may use.

        Raises:
            RateLimited: too many were used in the last minute, or it asks for more than a minute's worth.
        """
        if self._tokens is not None:
            _take(self._tokens, amount, "tokens")

    def settle_tokens(self, reserved: int, used: int) -> None:
        """Correct a reservation when the request is over."""
        if self._tokens is not None:
            self._tokens.take(used - reserved)

    def headers(self) -> dict[str, str]:
        """Return the `x-ratelimit-*` headers, of the limits there are."""
        buckets = {"requests": self._requests, "tokens": self._tokens}
        headers: dict[str, str] = {}
        for kind, bucket in buckets.items():
            if bucket is not None:
                headers[f"x-ratelimit-limit-{kind}"] = str(bucket.per_minute)
                headers[f"x-ratelimit-remaining-{kind}"] = str(max(0, int(bucket.level)))
                headers[f"x-ratelimit-reset-{kind}"] = duration(bucket.wait_s(bucket.per_minute))
        return headers


def _take(bucket: Bucket, amount: int, kind: str) -> None:
    wait_s = bucket.wait_s(amount)
    if wait_s > 0:
        retry_s = wait_s if amount <= bucket.per_minute else None
        raise RateLimited(kind, limit=bucket.per_minute, left=max(0, int(bucket.level)), asked=amount, retry_s=retry_s)
    bucket.take(amount)


def duration(seconds: float) -> str:
    """Write a time as OpenAI does: `20ms`, `1.5s`, `6m0s`."""
    milliseconds = round(1000 * seconds)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes}m{milliseconds // 1000}s" if minutes else f"{milliseconds / 1000:g}s"
