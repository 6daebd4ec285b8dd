"""The one error of everything that reads data."""


class DataError(ValueError):
    """Data that cannot be trained on; the message names the file, the place in it, and what to do."""
