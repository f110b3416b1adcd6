"""The range that the denoiser works in."""

import numpy as np
import pytest

from kerasmed.inference.pixels import PixelRange

LEVELS = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)


@pytest.mark.parametrize("scale", [2.0, 61.3, 255.0])
def test_every_grey_level_survives_both_ways(scale):
    pixels = PixelRange((10.0, 127.3, 250.0), scale)
    np.testing.assert_array_equal(pixels.to_uint8(pixels.to_model(LEVELS)), LEVELS)


def test_training_images_get_mean_0_and_deviation_one_half_by_hand():
    images = np.array([[[[100, 0, 50]]], [[[120, 40, 50]]]], dtype=np.uint8)
    pixels = PixelRange.of(images)
    assert pixels.mean == (110.0, 20.0, 50.0)
    # Variances 100, 400 and 0.
    assert pixels.scale == pytest.approx(2 * np.sqrt(500 / 3))
    scaled = pixels.to_model(images)
    assert scaled.dtype == np.float32
    assert scaled.mean() == pytest.approx(0, abs=1e-6)
    assert scaled.std() == pytest.approx(0.5)


def test_images_of_one_colour_have_a_range_too():
    images = np.full((3, 2, 2, 3), 7, dtype=np.uint8)
    pixels = PixelRange.of(images)
    np.testing.assert_array_equal(pixels.to_uint8(pixels.to_model(images)), images)


def test_clip_ends_at_black_and_white():
    pixels = PixelRange((50.0, 100.0, 200.0), 100.0)
    clipped = pixels.clip(np.array([[-9.0, -9.0, -9.0], [9.0, 9.0, 9.0], [0.1, 0.1, 0.1]]))
    np.testing.assert_allclose(clipped, [[-0.5, -1, -2], [2.05, 1.55, 0.55], [0.1, 0.1, 0.1]])
