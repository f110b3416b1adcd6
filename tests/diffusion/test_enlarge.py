import numpy as np
import pytest
from PIL import Image

from kerasmed.diffusion.enlarge import enlarge, padded


def smooth(height=6, width=8):
    """Small images whose enlargement stays far from 0 and 255, where Pillow would clip."""
    return np.random.default_rng(0).integers(100, 150, (height, width, 3), np.uint8)


def test_enlargement_is_that_of_pillow():
    base = smooth()
    expected = np.asarray(Image.fromarray(base).resize((32, 24), Image.Resampling.BICUBIC))
    inner = slice(8, -8)  # at the border Pillow leaves the missing pixels out of its mean
    difference = np.abs(enlarge(padded(base)) - expected)
    assert difference[inner, inner].max() <= 1  # it rounds twice
    assert difference.max() < 25


def test_each_image_of_a_batch_is_enlarged_by_itself():
    batch = np.stack([smooth(), 255 - smooth()])
    enlarged = enlarge(padded(batch))
    assert enlarged.shape == (2, 24, 32, 3)
    assert enlarged.dtype == np.float32
    for one, image in zip(enlarged, batch, strict=True):
        np.testing.assert_array_equal(one, enlarge(padded(image)))


@pytest.mark.parametrize("value", [0, 77, 255])
def test_even_images_stay_even(value):
    even = np.full((3, 3, 3), value, np.uint8)
    np.testing.assert_allclose(enlarge(padded(even)), value, atol=1e-4)
