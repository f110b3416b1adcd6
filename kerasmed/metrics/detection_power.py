"""How many planted copies, plain and altered, the copy search finds."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from typing_extensions import TypedDict

from kerasmed.metrics.copies import CopySearch
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.settings import Count, UnitInterval

PLANTED = 60  # copies of each alteration
FRACTIONS = (0.001, 0.01, 0.05)  # of a set that are copies, for the chance of detecting it


def _brightened(image: np.ndarray, _: np.ndarray, __: np.random.Generator) -> np.ndarray:
    return np.clip(image * 1.3 + 15, 0, 255).astype(np.uint8)


def _rotated(image: np.ndarray, _: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = rng.choice([-1, 1]) * rng.uniform(2, 8)
    return np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))


def _compressed(image: np.ndarray, _: np.ndarray, __: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


def _blended(image: np.ndarray, other: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return ((image.astype(np.uint16) + other) // 2).astype(np.uint8)


# alteration(image, another training image, rng) -> image, all uint8 (size, size, 3).
ALTERATIONS: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]] = {
    "exact": lambda image, *_: image,
    "mirrored": lambda image, *_: image[:, ::-1],
    "brightened by 30%": _brightened,
    "rotated by 2 to 8 degrees": _rotated,
    "JPEG of quality 40": _compressed,
    "blended half and half": _blended,
}


class DetectionPower(TypedDict):
    """How many planted copies of one alteration the search finds."""

    alteration: str
    """How the copies were altered."""
    planted: Count
    """How many there were."""
    found: UnitInterval
    """Fraction of them that the search finds."""
    set_found_out: dict[str, UnitInterval]
    """For each fraction of a set that could be copies: the chance that at least one is found."""


def detection_power(
    search: CopySearch, training: np.ndarray, threshold: float, size: int, seed: int = 0
) -> list[DetectionPower]:
    """Fraction of planted copies that the search finds, by alteration.

    Args:
        search: Search over the training images.
        training: These images, uint8 (m, size, size, 3).
        threshold: Similarity above which an image is called a copy.
        size: Number of images of the set that copies would be planted in.
        seed: Seed of the choice of images and of the alterations.
    """
    rng = random_stream(seed, Purpose.DETECTION_POWER)
    chosen = rng.choice(len(training), min(PLANTED, len(training)), replace=False)
    others = (chosen + rng.integers(1, len(training), len(chosen))) % len(training)
    rows: list[DetectionPower] = []
    for name, alter in ALTERATIONS.items():
        pairs = zip(training[chosen], training[others], strict=True)
        altered = np.stack([alter(image, other, rng) for image, other in pairs])
        similarities, _ = search.nearest(altered)
        sensitivity = float((similarities > threshold).mean())
        rows.append(
            {
                "alteration": name,
                "planted": len(chosen),
                "found": sensitivity,
                "set_found_out": {
                    f"{fraction:g}": 1 - (1 - sensitivity) ** max(1, round(fraction * size))
                    for fraction in FRACTIONS
                },
            }
        )
    return rows
