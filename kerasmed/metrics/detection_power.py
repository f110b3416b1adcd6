"""How many planted copies, plain and altered, the copy detector finds."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from typing_extensions import TypedDict

from kerasmed.metrics.copy_detector import CopyDetector
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.settings import Count, UnitInterval

PLANTED = 60  # copies of each alteration


def _brightened(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return _as_bytes(image * 1.3 + 15)


def _rotated(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle = rng.choice([-1, 1]) * rng.uniform(2, 8)
    return np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))


def _shifted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """By up to 5% of the width, in either direction; the edge is repeated."""
    by = rng.uniform(-0.05, 0.05, 2) * len(image)
    affine = (1, 0, by[0], 0, 1, by[1])
    size, reach = len(image), -(-len(image) // 20)
    wide = Image.fromarray(np.pad(image, [(reach, reach)] * 2 + [(0, 0)], mode="edge"))
    moved = wide.transform(wide.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(moved)[reach : reach + size, reach : reach + size]


def _zoomed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    cut = len(image) * (1 - 1 / rng.uniform(1.02, 1.1)) / 2
    box = (cut, cut, len(image) - cut, len(image) - cut)
    return np.asarray(Image.fromarray(image).resize(image.shape[:2], box=box))


def _blurred(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return _as_bytes(gaussian_filter(image.astype(float), (1, 1, 0)))


def _compressed(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


def _noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _as_bytes(image + rng.normal(0, 8, image.shape))


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels.round(), 0, 255).astype(np.uint8)


# alteration(image, rng) -> image, both uint8 (size, size, 3).
ALTERATIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "exact": lambda image, _: image,
    "mirrored": lambda image, _: image[:, ::-1],
    "brightened by 30%": _brightened,
    "rotated by 2 to 8 degrees": _rotated,
    "shifted by up to 5%": _shifted,
    "enlarged by 2 to 10%": _zoomed,
    "blurred by a pixel": _blurred,
    "JPEG of quality 40": _compressed,
    "grain of deviation 8": _noisy,
}


class DetectionPower(TypedDict):
    """How many planted copies of one alteration the detector finds."""

    alteration: str
    """How the copies were altered."""
    planted: Count
    """How many there were."""
    found: UnitInterval
    """Fraction of them that the detector finds."""


def detection_power(
    detector: CopyDetector, train: np.ndarray, seed: int = 0
) -> list[DetectionPower]:
    """Fraction of planted copies that a detector finds, by alteration.

    Args:
        detector: that of these training images.
        train: uint8 (m, size, size, 3).
        seed: Seed of the choice of images and of the alterations.
    """
    rng = random_stream(seed, Purpose.DETECTION_POWER)
    chosen = train[rng.choice(len(train), min(PLANTED, len(train)), replace=False)]
    rows: list[DetectionPower] = []
    for name, alter in ALTERATIONS.items():
        altered = np.stack([alter(image, rng) for image in chosen])
        is_found = detector.score(altered).ratios < detector.threshold
        rows.append({"alteration": name, "planted": len(chosen), "found": float(is_found.mean())})
    return rows
