"""The first reading against Keras's own loader, and the search for near-duplicates.

The images are those of $KERASMED_DATA (a folder of class folders). Without it they are phantoms of
512 x 512 pixels, as JPEG and as PNG. Decoders that are not installed are skipped.
"""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from kerasmed.data.config import DataConfig
from kerasmed.data.image_set import read_images
from kerasmed.data.measuring import read_measurements
from kerasmed.data.phantoms import draw_phantom
from kerasmed.runtime.hardware import cpu_cores

SIZE, PER_CLASS, EDGE, HASHES = 64, 100, 512, 100_000
CLASSES = ("benign", "early", "pre", "pro")
ROUNDS = {"rounds": 3, "warmup_rounds": 1}


@pytest.fixture(
    scope="module", params=["given"] if "KERASMED_DATA" in os.environ else ["jpg", "png"]
)
def folder(request, tmp_path_factory) -> Path:
    if "KERASMED_DATA" in os.environ:
        return Path(os.environ["KERASMED_DATA"])
    directory = tmp_path_factory.mktemp(request.param)
    for name in CLASSES:
        (directory / name).mkdir()
        drawn = [draw_phantom("smear", name, i, EDGE, 0)[0] for i in range(2)]
        for i in range(PER_CLASS):
            image = Image.fromarray(np.roll(drawn[i % 2], i, axis=1))
            image.save(directory / name / f"{i}.{request.param}", quality=90)
    return directory


@pytest.fixture
def group(benchmark, request, folder) -> Callable[[str], None]:
    """Names the table of a benchmark, and notes how many files it reads."""

    def group(title: str) -> None:
        files = sum(path.is_file() for path in folder.glob("*/*"))
        kind = request.node.callspec.params["folder"]
        benchmark.group = f"{title} at {SIZE}, {files} files ({kind})"

    return group


@pytest.fixture
def new_cache(tmp_path) -> Callable[[], Path]:
    numbers = count()
    return lambda: tmp_path / str(next(numbers))


def test_first_read_kerasmed(benchmark, folder, group, new_cache):
    """One pass: pixels, SHA-256 and measurements."""
    group("first read")
    data = DataConfig(source=folder, image_size=SIZE)

    def read() -> int:
        cache = new_cache()
        read_measurements(data, cache / "measurements", cache / "images")
        return len(read_images(data, cache / "images"))

    benchmark.pedantic(read, **ROUNDS)


def test_first_read_kerasmed_pixels_alone(benchmark, folder, group, new_cache):
    """Pixels and SHA-256, without measurements."""
    group("first read")
    data = DataConfig(source=folder, image_size=SIZE)
    benchmark.pedantic(lambda: len(read_images(data, new_cache() / "images")), **ROUNDS)


def _read_by_keras(folder: Path) -> int:
    batches = keras.utils.image_dataset_from_directory(
        folder, image_size=(SIZE, SIZE), shuffle=False, verbose=False
    )
    return sum(len(images) for images, _ in batches)


def test_first_read_keras(benchmark, folder, group):
    group("first read")
    benchmark.pedantic(_read_by_keras, (folder,), **ROUNDS)


def test_second_read_kerasmed(benchmark, folder, group, new_cache):
    """Every pixel from the memory map."""
    group("second read")
    data, cache = DataConfig(source=folder, image_size=SIZE), new_cache()
    read_images(data, cache)
    benchmark.pedantic(lambda: int(read_images(data, cache).images.sum()), **ROUNDS)


def test_second_read_keras(benchmark, folder, group):
    """Keras decodes again each time."""
    group("second read")
    benchmark.pedantic(_read_by_keras, (folder,), **ROUNDS)


def _pillow(content: bytes) -> None:
    with Image.open(io.BytesIO(content)) as image:
        image.load()


def _pillow_draft(content: bytes) -> None:
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (SIZE, SIZE))
        image.load()


def _simplejpeg(content: bytes) -> None:
    import simplejpeg

    simplejpeg.decode_jpeg(content)


def _simplejpeg_scaled(content: bytes) -> None:
    import simplejpeg

    simplejpeg.decode_jpeg(content, min_width=SIZE, min_height=SIZE)


def _imagecodecs(content: bytes) -> None:
    import imagecodecs

    (imagecodecs.png_decode if content.startswith(b"\x89PNG") else imagecodecs.jpeg8_decode)(
        content
    )


def _opencv(content: bytes) -> None:
    import cv2

    cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def _tensorflow(content: bytes) -> None:
    import tensorflow as tf

    tf.io.decode_image(content)


# Decoder, the package that it needs, and whether it reads only JPEGs.
DECODERS = {
    "Pillow": (_pillow, "PIL", False),
    "Pillow, draft (used)": (_pillow_draft, "PIL", True),
    "simplejpeg": (_simplejpeg, "simplejpeg", True),
    "simplejpeg, scaled": (_simplejpeg_scaled, "simplejpeg", True),
    "imagecodecs": (_imagecodecs, "imagecodecs", False),
    "OpenCV": (_opencv, "cv2", False),
    "TensorFlow": (_tensorflow, "tensorflow", False),
}


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoders(benchmark, folder, group, decoder):
    """Decoding alone, of files that are in memory, on all cores."""
    decode, package, is_for_jpeg = DECODERS[decoder]
    pytest.importorskip(package)
    contents = [path.read_bytes() for path in sorted(folder.glob("*/*"))]
    if is_for_jpeg and not all(content.startswith(b"\xff\xd8") for content in contents):
        pytest.skip("decodes JPEGs only")
    group("decoding")

    def read() -> None:
        with ThreadPoolExecutor(cpu_cores()) as pool:
            list(pool.map(decode, contents, chunksize=8))

    benchmark.pedantic(read, **ROUNDS)


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
