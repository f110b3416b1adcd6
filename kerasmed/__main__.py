"""``python -m kerasmed``: the command line."""

from kerasmed.cli.main import entry

entry()
