"""Small images from large ones, and their bicubic enlargement, from which the upscaler starts."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from kerasmed.data.readers import reduce_image
from kerasmed.diffusion.config import FACTOR

# Pixels of a small image on each side of one that its enlargement depends on.
MARGIN = 2


def _weights() -> np.ndarray:
    """Weights of the 5 pixels around one, for each of the FACTOR pixels that it becomes.

    Cubic convolution with a = -1/2 (Keys, 1981), as in Pillow.
    """
    centres = (np.arange(FACTOR) + 0.5) / FACTOR - 0.5
    x = np.abs(centres[:, None] - np.arange(-MARGIN, MARGIN + 1))
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.select([x <= 1, x < 2], [near, far]).astype(np.float32)


_WEIGHTS = _weights()


def reduce_images(images: np.ndarray) -> np.ndarray:
    """Images uint8 (n, size, size, 3) as a study would read them at a quarter of their size."""
    size = images.shape[1] // FACTOR
    return np.stack([reduce_image(Image.fromarray(image), size) for image in images])


def padded(base: np.ndarray) -> np.ndarray:
    """Small images (..., height, width, 3) with MARGIN more pixels on each side, like the border's.

    An enlarged crop then equals the crop of the enlarged image.
    """
    sides = [(0, 0)] * (base.ndim - 3) + [(MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)]
    return np.pad(base, sides, mode="edge")


def enlarge(base: np.ndarray) -> np.ndarray:
    """Small images FACTOR times as wide, without their margin.

    Args:
        base: (..., height + 4, width + 4, 3), 0 to 255; see ``padded``.

    Returns:
        float32 (..., 4 * height, 4 * width, 3), about 0 to 255.
    """
    images = np.asarray(base, np.float32)
    for axis in (-3, -2):
        windows = sliding_window_view(images, 2 * MARGIN + 1, axis=axis) @ _WEIGHTS.T
        shape = list(windows.shape[:-1])
        shape[axis] *= FACTOR
        images = np.moveaxis(windows, -1, windows.ndim + axis).reshape(shape)
    return images
