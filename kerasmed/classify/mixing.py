"""MixUp and CutMix of a batch: every image takes in a part of another, and of its label."""

from collections.abc import Callable

import numpy as np

from kerasmed.classify.config import Mixing

Pair = tuple[np.ndarray, np.ndarray]


def mix(images: np.ndarray, labels: np.ndarray, mixing: Mixing, rng: np.random.Generator) -> Pair:
    """Images and labels, mixed with those of the same batch in another order.

    KerasCV 0.9 has both, but its CutMix counts what it cuts beyond the border into the label.

    Args:
        images: uint8 (batch, height, width, 3).
        labels: float32 (batch, classes), rows summing to 1.
        mixing: "none", "mixup" (arXiv:1710.09412, alpha 0.2) or "cutmix" (arXiv:1905.04899,
            alpha 1).
        rng: of the partners and the shares.

    Returns:
        The same dtypes and shapes.
    """
    return _MIXINGS[mixing](images, labels, rng)


def _as_they_are(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    return images, labels


def _mixup(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    order = rng.permutation(len(images))
    share = rng.beta(0.2, 0.2, len(images)).astype(np.float32)
    of_image = share[:, None, None, None]
    mixed = of_image * images + (1 - of_image) * images[order]
    of_label = share[:, None]
    return np.rint(mixed).astype(np.uint8), of_label * labels + (1 - of_label) * labels[order]


def _cutmix(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    order = rng.permutation(len(images))
    mixed, shares = images.copy(), np.empty((len(images), 1), np.float32)
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
        shares[i] = 1 - mixed[i][box][..., 0].size / (height * width)
    return mixed, shares * labels + (1 - shares) * labels[order]


_MIXINGS: dict[Mixing, Callable[[np.ndarray, np.ndarray, np.random.Generator], Pair]] = {
    "none": _as_they_are,
    "mixup": _mixup,
    "cutmix": _cutmix,
}
