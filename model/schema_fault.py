"""Where in a schema the fault lies for which it does not compile: the innermost part of which the same is said alone.

Compilers tell what they cannot follow, but not where they found it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from model.json_schema import parts, target_of

MAX_TRIES = 200
"""Parts that are looked at before the place is given as exactly as it is known."""

_DEFINITIONS = ("$defs", "definitions")

Complain = Callable[[Mapping[str, Any]], str | None]


def find_fault(schema: Mapping[str, Any], reason: str, complain: Complain) -> str:
    """Return a JSON pointer to what `reason` is said of.

    Args:
        schema: what does not compile.
        reason: why not.
        complain: says why a schema does not compile, or None.
    """
    definitions = {key: schema[key] for key in _DEFINITIONS if key in schema}
    place, part, seen = "#", schema, {"#"}
    tries = iter(range(MAX_TRIES))

    def is_faulty(candidate: Mapping[str, Any]) -> bool:
        return next(tries, None) is not None and complain({**definitions, **candidate}) == reason

    while True:
        for at, candidate in _inside(place, part, schema):
            leads_back = {at, candidate.get("$ref")} & seen
            if not leads_back and is_faulty(candidate):
                place, part = at, candidate
                seen.add(at)
                break
        else:
            return place


def _inside(place: str, part: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the parts of a part, first what it refers to."""
    reference = part.get("$ref")
    candidates = [
        *([(reference, target_of(reference, root))] if isinstance(reference, str) else []),
        *parts(part, place),
    ]
    yield from ((at, candidate) for at, candidate in candidates if isinstance(candidate, Mapping))
