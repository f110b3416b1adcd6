"""Non-leaking augmentation: the network receives what was done, and zeros when sampling.

Karras et al., arXiv:2206.00364, section 5 and appendix F.2, after arXiv:2006.06676.
"""

import math

import numpy as np
from PIL import Image

PARAMETERS = 5
_SCALE_DEVIATION = 0.2  # of the binary logarithm of the scale
_SHIFT_DEVIATION = 0.125  # as a fraction of the image's edge


def draw_augmentation(rng: np.random.Generator, probability: float) -> np.ndarray:
    """Random parameters of one image's augmentation: scaling, rotation and shift.

    Args:
        rng: source of the draws.
        probability: of each of the three changes.

    Returns:
        float32 (5,): binary logarithm of the scale, cosine minus 1 and sine of the angle, shift to
        the right and downwards; zeros where nothing is done. Scale and shift are in units of their
        deviation, so that their magnitude matches the angle's.
    """
    scaled, turned, shifted = rng.random(3) < probability
    scale, shift_x, shift_y = rng.standard_normal(3) * (scaled, shifted, shifted)
    angle = rng.uniform(-math.pi, math.pi) if turned else 0.0
    return np.array(
        [scale, math.cos(angle) - 1.0, math.sin(angle), shift_x, shift_y], dtype=np.float32
    )


def apply_augmentation(image: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """The image scaled, rotated about its centre and shifted; its mirror image fills the gaps.

    Args:
        image: uint8 (size, size, 3).
        parameters: see ``draw_augmentation``.
    """
    if not parameters.any():
        return image
    size = len(image)
    scale, cosine, sine, shift_x, shift_y = parameters.tolist()
    margin = size
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    # Pillow needs the source of each pixel of the result, so the matrix is the inverse change.
    factor = 2 ** (scale * _SCALE_DEVIATION)
    a, b = (cosine + 1.0) / factor, sine / factor
    centre = size / 2
    x = centre + shift_x * _SHIFT_DEVIATION * size
    y = centre + shift_y * _SHIFT_DEVIATION * size
    matrix = (a, b, margin + centre - a * x - b * y, -b, a, margin + centre + b * x - a * y)
    moved = Image.fromarray(padded).transform(
        (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(moved)
