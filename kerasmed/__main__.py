"""The command line, as ``kerasmed`` and as ``python -m kerasmed``."""

import sys

from kerasmed.errors import missing_package


def entry() -> None:
    """The installed command."""
    try:
        from kerasmed.cli import main
    except ModuleNotFoundError as error:  # only the inference engine is installed
        print(f"kerasmed: {missing_package(error, 'The command line')}", file=sys.stderr)
        sys.exit(2)
    main.entry()


if __name__ == "__main__":
    entry()
