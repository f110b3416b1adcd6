"""The mean appearance of a set: spatial frequencies and intensities."""

from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from kerasmed.data.grey import grey_levels
from kerasmed.data.image_set import ImageSet
from kerasmed.metrics.strength import Strength, relative_strength
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import NotNegative
from kerasmed.settings import UnitInterval

_BINS = 64
_MAX_IMAGES = 2000


_Histogram = Annotated[list[UnitInterval], Field(min_length=_BINS, max_length=_BINS)]


class Appearance(TypedDict):
    """Spatial frequencies and intensities of one set."""

    spectrum: list[NotNegative]
    """Mean power of the grey images at 1, 2, ... cycles per image."""
    histogram: Annotated[list[_Histogram], Field(min_length=3, max_length=3)]
    """Fraction of the pixels in 64 equal ranges of red, of green and of blue."""


class StrengthOfSets(TypedDict):
    """Power by band, brightness and contrast of sets, over those of the role ``reserve``."""

    train: Strength
    """Of the training images of the diffusion model, a measure of what real images reach."""
    synthetic: Strength
    """Of the synthetic set."""


class AppearanceOfSets(TypedDict):
    """The mean appearance of each set (``evaluation/appearance.json``)."""

    reserve: Appearance
    """Of real images of the role ``reserve``."""
    train: Appearance
    """Of the training images of the diffusion model."""
    synthetic: Appearance
    """Of the synthetic set."""
    strength: StrengthOfSets
    """How strongly sets show structure of each scale, over the role ``reserve``."""


def power_spectrum(images: np.ndarray) -> np.ndarray:
    """Mean power by spatial frequency of grey images, each less its own mean.

    Args:
        images: uint8 (n, size, size, 3).

    Returns:
        float64 (size // 2,), for the frequencies 1, 2, ... ``size // 2`` in cycles per image, over
        all directions.
    """
    size = images.shape[1]
    frequencies = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(frequencies[:, None], frequencies[None]).round().astype(int)
    counts = np.bincount(radius.ravel())
    total = np.zeros(len(counts))
    for image in images:
        grey = grey_levels(image) / 255
        power = np.square(np.abs(np.fft.fft2(grey - grey.mean()))) / size**2
        total += np.bincount(radius.ravel(), power.ravel())
    return (total / counts / len(images))[1 : size // 2 + 1]


def intensity_histogram(images: np.ndarray) -> np.ndarray:
    """Fraction of the pixels in each of 64 equal ranges of red, green and blue: float64 (3, 64).

    Args:
        images: uint8 (n, size, size, 3).
    """
    counts = np.zeros((3, _BINS))
    for image in images:
        for channel in range(3):
            values = image[..., channel].ravel() // (256 // _BINS)
            counts[channel] += np.bincount(values, minlength=_BINS)
    return counts / counts.sum(axis=1, keepdims=True)


def appearance(images: np.ndarray, seed: int = 0) -> Appearance:
    """Spectrum and histogram of a set as plain lists, of a random choice of at most 2,000 images.

    Args:
        images: uint8 (n, size, size, 3).
        seed: Seed of the choice.
    """
    count = min(len(images), _MAX_IMAGES)
    rng = random_stream(seed, Purpose.APPEARANCE_CHOICE)
    chosen = np.sort(rng.choice(len(images), count, replace=False))
    return {
        "spectrum": power_spectrum(images[chosen]).tolist(),
        "histogram": intensity_histogram(images[chosen]).tolist(),
    }


def appearance_of_sets(
    sets: dict[str, ImageSet], groups: dict[str, np.ndarray], seed: int = 0
) -> AppearanceOfSets:
    """The appearance of ``reserve``, ``train`` and ``synthetic``, and how strong each scale is.

    Args:
        sets: these three sets.
        groups: groups of the images of ``reserve`` and ``train``, each (n,).
        seed: Seed of random choices.
    """
    reserve, train, synthetic = (sets[name] for name in ("reserve", "train", "synthetic"))

    def strength(of_set: ImageSet, groups_of_set: np.ndarray | None) -> Strength:
        return relative_strength(
            of_set.images, of_set.labels, reserve.images, reserve.labels,
            groups_of_set, groups["reserve"], seed,
        )  # fmt: skip

    return {
        "reserve": appearance(reserve.images, seed),
        "train": appearance(train.images, seed),
        "synthetic": appearance(synthetic.images, seed),
        "strength": {
            "train": strength(train, groups["train"]),
            "synthetic": strength(synthetic, None),
        },
    }
