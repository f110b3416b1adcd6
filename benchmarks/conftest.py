"""Says what the figures were measured on."""

import pytest

from kerasmed.runtime.backend import load_keras
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions

# Before any benchmark imports Keras, so that TensorFlow's notices stay off the table.
load_keras()


def pytest_report_header() -> list[str]:
    return [
        ", ".join(f"{key} {value}" for key, value in machine().items()),
        ", ".join(f"{key} {value}" for key, value in versions().items()),
    ]


_NOTES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def note(pytestconfig):
    """Says a figure that is no duration, below the tables."""
    return pytestconfig.stash.setdefault(_NOTES, []).append


def pytest_terminal_summary(terminalreporter, config) -> None:
    for line in config.stash.get(_NOTES, []):
        terminalreporter.write_line(line)
