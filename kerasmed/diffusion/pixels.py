"""The pixel range of the diffusion model, which nothing outside it uses."""

import numpy as np


def to_unit_range(images: np.ndarray) -> np.ndarray:
    """uint8 0 to 255 as float32 -1 to 1."""
    return images.astype(np.float32) / 127.5 - 1.0


def to_uint8(images: np.ndarray) -> np.ndarray:
    """float -1 to 1, clipped, as uint8 0 to 255."""
    return np.rint((np.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
