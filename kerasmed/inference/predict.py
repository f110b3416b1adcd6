"""Predictions for image files by a single ONNX file."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from typing_extensions import TypedDict

from kerasmed.data.image_file import numbered_name
from kerasmed.data.readers import split_name
from kerasmed.errors import DataError, MachineError
from kerasmed.inference.classifier import OnnxClassifier


class Prediction(TypedDict):
    """What a CNN predicts for one image."""

    image: str
    """Path of the file, with the number of the slice or frame if it has several."""
    predicted: str
    """The most probable class."""
    probabilities: dict[str, float]
    """Probability of each class, 0 to 1."""


class Unreadable(TypedDict):
    """A file that cannot be read."""

    image: str
    """Path of the file."""
    error: str
    """The reason, and what to do about it."""


def predict_files(
    model: OnnxClassifier, images: Iterable[Path]
) -> Iterator[Prediction | Unreadable]:
    """Path, predicted class and probabilities of each image file, one after the other.

    Each slice of a volume, and each frame of a file with several, is an image of its own, such as
    "scan.nii.gz#12". A file that cannot be read gives its path and the ``error``.
    """
    # Filled as images are read ahead, emptied as results arrive.
    waiting: deque[tuple[str, str | None]] = deque()

    def readable() -> Iterator[np.ndarray]:
        for path in images:
            try:
                for frame, pixels in model.read_all(path):
                    waiting.append((slice_name(path, frame), None))
                    yield pixels
            except (DataError, MachineError) as error:
                waiting.append((str(path), str(error)))

    def failures() -> Iterator[Unreadable]:
        while waiting and (error := waiting[0][1]) is not None:
            name, _ = waiting.popleft()
            yield {"image": name, "error": error}

    pixels = readable()
    first = next(pixels, None)
    batches = model.stream(chain([first], pixels), ("probabilities",)) if first is not None else ()
    for row in (row for batch in batches for row in batch["probabilities"]):
        yield from failures()
        name, _ = waiting.popleft()
        yield {
            "image": name,
            "predicted": model.class_names[int(row.argmax())],
            "probabilities": dict(zip(model.class_names, row.astype(float).tolist(), strict=True)),
        }
    yield from failures()


def slice_name(path: Path, frame: int | None) -> str:
    """The path, with the number of the slice or frame if the file holds several."""
    has_number = split_name(path)[1] is not None
    return numbered_name(path, None if has_number else frame)
