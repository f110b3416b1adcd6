"""Images for the tests of copies."""

import numpy as np
from scipy import ndimage


def pictures(count: int, seed: int, size: int = 32) -> np.ndarray:
    """Smooth random textures, no two alike."""
    noise = np.random.default_rng(seed).normal(size=(count, size, size))
    smooth = ndimage.gaussian_filter(noise, (0, 1.2, 1.2))
    grey = np.clip(128 + 50 * smooth / smooth.std(), 0, 255)
    return np.repeat(grey[..., None], 3, axis=3).astype(np.uint8)
