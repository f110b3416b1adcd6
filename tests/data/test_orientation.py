"""Flips and turns that a small classifier distinguishes from the images."""

import numpy as np
import pytest
from conftest import textures

from kerasmed.data.image_set import ImageSet
from kerasmed.data.orientation import measure_orientation

COUNT = 300


def image_set(pixels: np.ndarray) -> ImageSet:
    return ImageSet.from_arrays(pixels, ["a", "b"] * (len(pixels) // 2))


def with_bright(pixels: np.ndarray, *place: slice) -> np.ndarray:
    """The images, somewhat brighter in one place."""
    brighter = pixels.copy()
    brighter[:, *place] = np.minimum(brighter[:, *place], 205) + 50
    return brighter


TOP, LEFT, ALL = slice(6, 16), slice(6, 16), slice(None)


@pytest.mark.parametrize(
    ("place", "symmetry"),
    [
        ((slice(0, 0),), "dihedral"),
        ((TOP, ALL), "mirror"),
        ((ALL, LEFT), "none"),
        ((slice(0, 3), slice(0, 3)), "dihedral"),  # a marker at the edge
    ],
)
def test_largest_symmetry_that_is_near_chance(place, symmetry):
    pixels = with_bright(textures(COUNT, seed=0), *place)

    orientation = measure_orientation(image_set(pixels), np.arange(COUNT))

    assert orientation.symmetry == symmetry
    assert list(orientation.accuracy) == ["mirrored", "upside down", "turned by a quarter"]
    assert orientation.accuracy["mirrored"] == pytest.approx(
        1.0 if symmetry == "none" else 0.5, abs=0.1
    )


def test_few_groups_say_nothing():
    images = image_set(textures(COUNT, seed=0))

    orientation = measure_orientation(images, np.arange(COUNT) // 4)

    assert (orientation.symmetry, orientation.accuracy) == ("none", {})


def test_copies_of_one_image_do_not_decide():
    """Memorised, an image and its mirror image would be distinguished in another fold."""
    pixels = np.repeat(textures(120, seed=0), 5, axis=0)

    orientation = measure_orientation(image_set(pixels), np.repeat(np.arange(120), 5))

    assert orientation.accuracy["mirrored"] < 0.6


def test_the_same_answer_every_time():
    images = image_set(textures(COUNT, seed=1))

    first, second = (measure_orientation(images, np.arange(COUNT)) for _ in range(2))

    assert first == second
