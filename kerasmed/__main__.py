"""The command line, as ``python -m kerasmed``."""

from kerasmed.cli.main import entry

entry()
