"""Pictures of the report that are made of images: grids, means and pairs."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasmed.data.image_set import ImageSet
from kerasmed.files import written_aside

_COLUMNS = 8

_LEAST_EDGE = 96


def draw_means(seen: ImageSet, synthetic: ImageSet, path: Path) -> None:
    """Mean image of each class: real above, synthetic below."""
    tiles = [
        [
            _enlarge(
                np.asarray(images.images[images.labels == label]).mean(axis=0).astype(np.uint8)
            )
            for label in range(len(images.class_names))
        ]
        for images in (seen, synthetic)
    ]
    _save_tiles(np.array(tiles), path)


def _enlarge(image: np.ndarray) -> np.ndarray:
    factor = max(1, -(-_LEAST_EDGE // image.shape[0]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def draw_grid(images: ImageSet, path: Path) -> None:
    """One row a class, of each so many from its first to its last image; white where it has fewer.

    The first ones of a class may all be of one patient.
    """
    size = _enlarge(np.asarray(images.images[0])).shape[0]
    grid = np.full((len(images.class_names), _COLUMNS, size, size, 3), 255, np.uint8)
    for label in range(len(images.class_names)):
        rows = np.flatnonzero(images.labels == label)
        chosen = np.linspace(0, len(rows) - 1, min(_COLUMNS, len(rows))).round().astype(np.int64)
        for column, at in enumerate(rows[chosen]):
            grid[label, column] = _enlarge(np.asarray(images.images[at]))
    _save_tiles(grid, path)


def draw_pairs(privacy: dict[str, Any], synthetic: ImageSet, seen: ImageSet, path: Path) -> None:
    """The most similar pairs: generated above, the training image that it is most like below."""
    pairs = privacy["copies"].get("nearest_pairs", [])
    if not pairs:
        path.unlink(missing_ok=True)
        return
    above = [_enlarge(np.asarray(synthetic.images[pair["generated"]])) for pair in pairs]
    below = [_enlarge(np.asarray(seen.images[pair["seen"]])) for pair in pairs]
    _save_tiles(np.array([above, below]), path)


def _save_tiles(tiles: np.ndarray, path: Path) -> None:
    """Tiles (rows, columns, size, size, 3) as one picture."""
    rows, columns, size = tiles.shape[:3]
    picture = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)
    with written_aside(path) as temporary:
        Image.fromarray(picture).save(temporary)
