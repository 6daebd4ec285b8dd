"""The front door: one command, one verb per job."""


def main() -> None:
    """Run the verb named on the command line."""
