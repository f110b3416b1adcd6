"""Pictures of the report that consist of images: grids, means and pairs."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasmed.data.image_set import ImageSet
from kerasmed.data.thumbnails import png_uri
from kerasmed.files import written_aside

_COLUMNS = 8
_LEAST_EDGE = 96


def draw_means(train: ImageSet, synthetic: ImageSet, path: Path) -> None:
    """Mean image of each class: real above, synthetic below."""
    tiles = [
        [
            _enlarge(
                np.asarray(images.images[images.labels == label]).mean(axis=0).astype(np.uint8)
            )
            for label in range(len(images.class_names))
        ]
        for images in (train, synthetic)
    ]
    _save_tiles(np.array(tiles), path)


def _enlarge(image: np.ndarray) -> np.ndarray:
    factor = max(1, -(-_LEAST_EDGE // image.shape[0]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def draw_grid(images: ImageSet, path: Path) -> None:
    """One row per class with images evenly spaced from its first to its last, padded with white.

    The first images of a class may all be of one patient.
    """
    size = _enlarge(np.asarray(images.images[0])).shape[0]
    grid = np.full((len(images.class_names), _COLUMNS, size, size, 3), 255, np.uint8)
    for label in range(len(images.class_names)):
        rows = np.flatnonzero(images.labels == label)
        chosen = np.linspace(0, len(rows) - 1, min(_COLUMNS, len(rows))).round().astype(np.int64)
        for column, row in enumerate(rows[chosen]):
            grid[label, column] = _enlarge(np.asarray(images.images[row]))
    _save_tiles(grid, path)


def six_of(images: ImageSet) -> list[tuple[str, str]]:
    """Six images of all classes in turn, as class and data URI; not selected."""
    labels = np.unique(images.labels)
    chosen = []
    for number in range(6):
        label, turn = labels[number % len(labels)], number // len(labels)
        rows = np.flatnonzero(images.labels == label)
        row = rows[(2 * turn + 1) * len(rows) // (2 * -(-6 // len(labels)))]
        chosen.append((images.class_names[label], png_uri(np.asarray(images.images[row]))))
    return chosen


def draw_pairs(privacy: dict[str, Any], synthetic: ImageSet, train: ImageSet, path: Path) -> None:
    """The most similar pairs: synthetic image above, its nearest training image below."""
    pairs = privacy["copies"].get("nearest_pairs", [])
    if not pairs:
        path.unlink(missing_ok=True)
        return
    above = [_enlarge(np.asarray(synthetic.images[pair["synthetic"]])) for pair in pairs]
    below = [_enlarge(np.asarray(train.images[pair["train"]])) for pair in pairs]
    _save_tiles(np.array([above, below]), path)


def _save_tiles(tiles: np.ndarray, path: Path) -> None:
    """Tiles (rows, columns, size, size, 3) as one picture."""
    rows, columns, size = tiles.shape[:3]
    picture = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)
    with written_aside(path) as temporary:
        Image.fromarray(picture).save(temporary)
