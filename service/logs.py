"""How processes log: one line per record on standard error, the same in every process. Prompts are never logged."""

import logging


def configure_logging() -> None:
    """Set up the root logger of this process."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s[%(process)d] %(message)s",
        force=True,
    )
