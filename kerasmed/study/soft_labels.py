"""Soft labels of a synthetic set: ``probabilities.csv`` in its folder."""

import csv
import io
from pathlib import Path
from typing import Final

import numpy as np

from kerasmed.data.image_set import ImageSet
from kerasmed.errors import StageError
from kerasmed.files import write_text

SOFT_LABELS: Final = "probabilities.csv"


def write_soft_labels(images: ImageSet, probabilities: np.ndarray, folder: Path) -> None:
    """Write the probability of each class for each image of a set.

    Args:
        images: the set, read from the folder.
        probabilities: float (n, classes).
        folder: the set's folder.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *images.class_names])
    for file, row in zip(images.files, probabilities.astype(np.float32), strict=True):
        # Nine digits give a float32 back as it was.
        writer.writerow([file.path.relative_to(folder).as_posix(), *(f"{p:.9g}" for p in row)])
    write_text(folder / SOFT_LABELS, text.getvalue())


def read_soft_labels(images: ImageSet, folder: Path) -> np.ndarray | None:
    """What ``write_soft_labels`` wrote: float32 (n, classes); None if there is no such file.

    Raises:
        StageError: the file is not of these images and classes.
    """
    path = folder / SOFT_LABELS
    if not path.exists():
        return None
    names = [file.path.relative_to(folder).as_posix() for file in images.files]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        of_image = {name: list(map(float, values)) for name, *values in rows}
        if header[1:] != list(images.class_names):
            raise ValueError(f"received the classes {header[1:]}")
        return np.array([of_image[name] for name in names], np.float32).reshape(len(names), -1)
    except (ValueError, KeyError) as error:
        raise StageError(
            f"{path} does not fit the set: expected a row for each of {len(names)} images with the "
            f"probabilities of {list(images.class_names)} ({error}); delete {folder} and run "
            "`kerasmed sample CONFIG`."
        ) from None
