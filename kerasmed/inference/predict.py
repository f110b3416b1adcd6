"""Predictions for image files, by one ONNX file alone."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed.data.readers import split_name
from kerasmed.errors import DataError, MachineError
from kerasmed.inference.classifier import OnnxClassifier


def predict_files(model: OnnxClassifier, images: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Path, predicted class and probabilities of each image file, as they come.

    Of a volume, or a file of several frames, each slice is an image, such as "scan.nii.gz#12". Of a
    file that cannot be read there are the path and the ``error``, and the others go on.
    """
    # Filled as images are read ahead, emptied as results come.
    waiting: deque[tuple[str, str | None]] = deque()

    def readable() -> Iterator[np.ndarray]:
        for path in images:
            try:
                for part, pixels in model.read_all(path):
                    waiting.append((slice_name(path, part), None))
                    yield pixels
            except (DataError, MachineError) as error:
                waiting.append((str(path), str(error)))

    def failures() -> Iterator[dict[str, Any]]:
        while waiting and waiting[0][1] is not None:
            name, error = waiting.popleft()
            yield {"image": name, "error": error}

    pixels = readable()
    first = next(pixels, None)
    found = model.stream(chain([first], pixels), ("probabilities",)) if first is not None else ()
    for row in (row for part in found for row in part["probabilities"]):
        yield from failures()
        name, _ = waiting.popleft()
        yield {
            "image": name,
            "predicted": model.class_names[int(row.argmax())],
            "probabilities": dict(zip(model.class_names, row.astype(float).tolist(), strict=True)),
        }
    yield from failures()


def slice_name(path: Path, part: int | None) -> str:
    """The path, with the number of the slice or frame where the file holds several."""
    return str(path) if part is None or split_name(path)[1] is not None else f"{path}#{part}"
