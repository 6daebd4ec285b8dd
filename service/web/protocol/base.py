"""What every request body shares."""

from typing import ClassVar

from service.web.fields import Body


class RequestBody(Body):
    """A request for one of the served models."""

    without_effect: ClassVar[frozenset[str]] = frozenset({"user"})

    @property
    def ignored(self) -> tuple[str, ...]:
        """Fields of this request that change nothing, though they might elsewhere."""
        return ()

    model: str | None = None
    """Id of a served model, or an alias of one."""
