"""Fixtures that several test files of the command line load as a pytest plugin."""

# Not a conftest.py: every `from conftest import ...` under tests/ would then import from it.

from pathlib import Path

import pytest
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.data.phantoms import draw_phantom


@pytest.fixture
def model(tiny_run):
    """A model that the tiny study exported."""
    return tiny_run / "exported" / "MobileNet-real-s0.onnx"


@pytest.fixture
def save_slice():
    """A function that saves one CT phantom as a PNG file, and returns its path."""

    def save(folder: Path, name: str = "slice.png") -> Path:
        image, _ = draw_phantom("ct", "clear", 500, 40, 0)
        Image.fromarray(image).save(folder / name)
        return folder / name

    return save


@pytest.fixture
def refused(capsys):
    """Runs a command that must be refused, and returns its one line."""

    def run(*arguments) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        own = [line for line in lines if line.startswith("kerasmed: ")]
        assert lines[-1:] == own
        return own[0]

    return run
