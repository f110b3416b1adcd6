"""An explanation as a picture: the image, and its strongest superpixels in colour."""

import numpy as np
from skimage.segmentation import mark_boundaries

_EDGE = 256
# Green and purple, which colour-blind readers tell apart.
_FOR, _AGAINST = np.array([0.1, 0.65, 0.25]), np.array([0.6, 0.15, 0.65])


def draw_overlay(
    image: np.ndarray, segments: np.ndarray, weights: np.ndarray, top: int
) -> np.ndarray:
    """The image, and next to it the image with its strongest superpixels.

    Green speaks for the class and purple against it, the stronger the more opaque. Their outlines
    are yellow.

    Args:
        image: uint8 (height, width, 3).
        segments: int (height, width), 0 to n - 1.
        weights: float (n,), of one class.
        top: how many superpixels to show, by absolute weight.

    Returns:
        uint8 (height, width, 3), about 256 by 512 pixels.
    """
    height, width = image.shape[:2]
    scale = max(1, round(_EDGE / max(height, width)))
    pixels = image.repeat(scale, axis=0).repeat(scale, axis=1) / 255
    segments = segments.repeat(scale, axis=0).repeat(scale, axis=1)
    weights = weights.copy()
    weights[np.argsort(-np.abs(weights))[top:]] = 0.0
    strength = np.abs(weights) / max(np.abs(weights).max(), 1e-12)
    opacity = 0.6 * strength[segments][..., None]
    colour = np.where(weights[segments][..., None] >= 0, _FOR, _AGAINST)
    overlay = (1 - opacity) * pixels + opacity * colour
    shown = np.where(weights[segments] != 0, segments + 1, 0)
    overlay = mark_boundaries(overlay, shown, mode="inner")
    return np.rint(np.concatenate([pixels, overlay], axis=1) * 255).astype(np.uint8)
