"""What every script beside this file does: one call after another, and a JSON object of what came of each.

The scripts run in an environment of their own (`make clients`), where these clients have the versions they ask for.
"""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

QUESTION = 'Spell "groundup".'
STORY = "Once upon a time"

Check = Callable[[str], Any]
"""Given the URL of the server, does something and returns what came of it."""


def main(checks: Mapping[str, Check]) -> None:
    """Run every check against the server named on the command line."""
    url = sys.argv[1]
    print(json.dumps({name: _outcome(check, url) for name, check in checks.items()}))


def _outcome(check: Check, url: str) -> Any:
    try:
        return check(url)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
