"""Non-leaking augmentation: the network is told what was done, and at sampling that nothing was.

Karras et al., arXiv:2206.00364, section 5 and appendix F.2, after arXiv:2006.06676.
"""

import math

import numpy as np
from PIL import Image

PARAMETERS = 5
_SCALE_DEVIATION = 0.2  # of the binary logarithm
_SHIFT_DEVIATION = 0.125  # of the edge


def draw_augmentation(rng: np.random.Generator, probability: float) -> np.ndarray:
    """What is done to one image: scaling, rotation and shift, each with the given probability.

    Returns:
        float32 (5,): binary logarithm of the scale, cosine minus 1 and sine of the angle, shift to
        the right and downwards; zeros where nothing is done. Scale and shift are in units of their
        deviation, so that the network hears of them as loudly as of the angle.
    """
    scaled, turned, shifted = rng.random(3) < probability
    scale, shift_x, shift_y = rng.standard_normal(3) * (scaled, shifted, shifted)
    angle = rng.uniform(-math.pi, math.pi) if turned else 0.0
    return np.array(
        [scale, math.cos(angle) - 1.0, math.sin(angle), shift_x, shift_y], dtype=np.float32
    )


def apply_augmentation(image: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """The image scaled, turned and shifted about its centre; what comes in is its mirror image.

    Args:
        image: uint8 (size, size, 3).
        parameters: of ``draw_augmentation``.
    """
    if not parameters.any():
        return image
    size = len(image)
    scale, cosine, sine, *shift = parameters.tolist()
    margin = size
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    # Pillow asks where a pixel of the result comes from, so this is the inverse of the change.
    factor = 2 ** (scale * _SCALE_DEVIATION)
    a, b = (cosine + 1.0) / factor, sine / factor
    centre = size / 2
    x, y = (centre + each * _SHIFT_DEVIATION * size for each in shift)
    matrix = (a, b, margin + centre - a * x - b * y, -b, a, margin + centre + b * x - a * y)
    moved = Image.fromarray(padded).transform(
        (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(moved)
