"""MixUp and CutMix of a batch: every image is mixed with another, and so is its label."""

from collections.abc import Callable

import numpy as np

from kerasmed.classify.config import Mixing

Pair = tuple[np.ndarray, np.ndarray]


def mix(images: np.ndarray, labels: np.ndarray, mixing: Mixing, rng: np.random.Generator) -> Pair:
    """Images and labels, mixed with those of the same batch in another order.

    KerasCV 0.9 has both, but its CutMix also counts the area beyond the border into the label.

    Args:
        images: uint8 (batch, height, width, 3).
        labels: float32 (batch, classes), rows summing to 1.
        mixing: "none", "mixup" (arXiv:1710.09412, alpha 0.2) or "cutmix" (arXiv:1905.04899,
            alpha 1).
        rng: draws the partners and the fractions.

    Returns:
        Images and labels of the same dtypes and shapes.
    """
    return _MIXINGS[mixing](images, labels, rng)


def _unchanged(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    return images, labels


def _mixup(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    order = rng.permutation(len(images))
    fractions = rng.beta(0.2, 0.2, len(images)).astype(np.float32)
    of_image = fractions[:, None, None, None]
    mixed = of_image * images + (1 - of_image) * images[order]
    of_label = fractions[:, None]
    return np.rint(mixed).astype(np.uint8), of_label * labels + (1 - of_label) * labels[order]


def _cutmix(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    order = rng.permutation(len(images))
    mixed, fractions = images.copy(), np.empty((len(images), 1), np.float32)
    height, width = images.shape[1:3]
    for i, partner in enumerate(order):
        edge = np.sqrt(1 - rng.beta(1, 1))
        box_height, box_width = round(edge * height), round(edge * width)
        top = rng.integers(height) - box_height // 2
        left = rng.integers(width) - box_width // 2
        box = (
            slice(max(0, top), max(0, top + box_height)),
            slice(max(0, left), max(0, left + box_width)),
        )
        mixed[i][box] = images[partner][box]
        fractions[i] = 1 - mixed[i][box][..., 0].size / (height * width)
    return mixed, fractions * labels + (1 - fractions) * labels[order]


_MIXINGS: dict[Mixing, Callable[[np.ndarray, np.ndarray, np.random.Generator], Pair]] = {
    "none": _unchanged,
    "mixup": _mixup,
    "cutmix": _cutmix,
}
