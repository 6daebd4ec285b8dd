"""A clock that a test winds by hand."""


class Clock:
    """Tells `now_s` until the test moves it."""

    def __init__(self, now_s: float = 100.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s
