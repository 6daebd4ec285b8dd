"""The errors of everything that reads data."""


class DataError(ValueError):
    """Data that cannot be trained on; the message names the file, the place in it, and what to do."""


class UnfinishedError(DataError):
    """Preparation ended for a reason outside the texts; what is finished is kept, and `--resume` goes on from there."""
