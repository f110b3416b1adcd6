"""Pictures of the report."""

from dataclasses import replace

import numpy as np
from conftest import phantom_set
from PIL import Image

from kerasmed.report import _draw_grid


def test_grid_shows_each_class_from_its_first_to_its_last_image(tmp_path):
    images = phantom_set(per_class=100)
    shades = np.arange(100, dtype=np.uint8).repeat(16 * 16 * 3).reshape(100, 16, 16, 3)
    few = replace(images, images=np.concatenate([shades, shades])).subset([*range(100), 100, 101])

    _draw_grid(few, tmp_path / "grid.png")

    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    size = grid.shape[0] // 2
    above, below = (row[size // 2, size // 2 :: size, 0].tolist() for row in np.split(grid, 2))
    assert above == np.linspace(0, 99, 8).round().tolist()
    assert below == [0, 1] + [255] * 6
