"""Decoding against Keras's own loader, and the search for near-duplicates.

The images are those of $KERASMED_DATA (a folder of class folders), or JPEGs made of phantoms.
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from kerasmed.data.config import DataConfig
from kerasmed.data.decoding import read_images
from kerasmed.data.phantoms import draw_phantom

SIZE, PER_CLASS, HASHES = 64, 500, 100_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    if "KERASMED_DATA" in os.environ:
        return Path(os.environ["KERASMED_DATA"])
    directory = tmp_path_factory.mktemp("jpegs")
    for name in ("benign", "early", "pre", "pro"):
        (directory / name).mkdir()
        drawn = [draw_phantom("smear", name, i, 224, 0)[0] for i in range(20)]
        for i in range(PER_CLASS):
            image = np.roll(drawn[i % 20], i, axis=1)
            Image.fromarray(image).save(directory / name / f"{i}.jpg", quality=90)
    return directory


def test_first_read_kerasmed(benchmark, folder, tmp_path):
    """Decoding, reduction and SHA-256, from cold."""
    benchmark.group = f"first read at {SIZE}"
    data = DataConfig(source=folder, image_size=SIZE)
    caches = iter(range(100))

    def read():
        return read_images(data, tmp_path / f"cache-{next(caches)}")

    images = benchmark.pedantic(read, rounds=5, warmup_rounds=1)
    benchmark.extra_info["images"] = len(images)


def test_second_read_kerasmed(benchmark, folder, tmp_path):
    """Every pixel from the memory map."""
    benchmark.group = f"second read at {SIZE}"
    data = DataConfig(source=folder, image_size=SIZE)
    read_images(data, tmp_path / "cache")

    def read() -> int:
        return int(read_images(data, tmp_path / "cache").images.sum())

    benchmark.pedantic(read, rounds=5, warmup_rounds=1)


def _read_by_keras(folder: Path) -> int:
    batches = keras.utils.image_dataset_from_directory(
        folder, image_size=(SIZE, SIZE), shuffle=False, verbose=False
    )
    return sum(len(images) for images, _ in batches)


@pytest.mark.parametrize("read", ["first", "second"])
def test_keras(benchmark, folder, read):
    """Keras decodes again each time."""
    benchmark.group = f"{read} read at {SIZE}"
    benchmark.pedantic(_read_by_keras, (folder,), rounds=5, warmup_rounds=1)


# The peak of a process counts from its start in /proc; getrusage tells that of its parent too.
SEARCH = f"""
import re, numpy
from pathlib import Path
from kerasmed.data.duplicates import near_pairs
def peak():
    return re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
bits = numpy.random.default_rng(0).integers(0, 256, ({HASHES}, 32), dtype=numpy.uint8)
before = peak()
assert len(near_pairs(bits, 32)[0]) == 0
print(before, peak())
"""


def test_near_duplicates_of_random_hashes(benchmark, note):
    """All pairs, in all eight flips and turns, in a process of its own."""

    def search() -> str:
        command = [sys.executable, "-c", SEARCH]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    benchmark.group = f"near-duplicates among {HASHES} hashes"
    before, after = (int(kib) / 1024 for kib in benchmark.pedantic(search, rounds=1).split())
    note(f"near-duplicates: peak memory {after:.0f} MiB, {before:.0f} of them before the search")
