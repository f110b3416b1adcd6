"""How strongly a set shows structure of each scale, over another set: power by band, contrast."""

from collections.abc import Iterator

import numpy as np
from typing_extensions import TypedDict

from kerasmed.data.grey import grey_levels
from kerasmed.metrics.statistics import expanded_interval
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import NotNegative, Whole

_RESAMPLES = 400


class Ratio(TypedDict):
    """A figure of one set over that of another."""

    ratio: NotNegative
    """1 if both are alike."""
    interval: tuple[NotNegative, NotNegative] | None
    """Its 95% interval, over resamples of the groups of either set; null where one has a single
    group."""


class Band(Ratio):
    """Power within an octave of spatial frequencies, over that of another set."""

    first: Whole
    """Lowest frequency, in cycles per image."""
    last: Whole
    """Highest frequency, in cycles per image."""


class Strength(TypedDict):
    """Figures of a set over those of another; each is averaged over the classes."""

    bands: list[Band]
    """Power by band, from the coarsest to the finest structure."""
    brightness: Ratio
    """Standard deviation of the images' mean brightness within a class."""
    contrast: Ratio
    """Mean standard deviation of the grey levels within an image."""


def octaves(size: int) -> list[tuple[int, int]]:
    """First and last frequency of each band, in cycles per image of so many pixels."""
    starts = [2**k for k in range(int(np.log2(size // 2)))]
    # The last octave ends at the highest frequency, half the number of pixels.
    ends = [*(start - 1 for start in starts[1:]), size // 2]
    return list(zip(starts, ends, strict=True))


def band_power(images: np.ndarray) -> np.ndarray:
    """Mean power of each grey image by octave of spatial frequency.

    Args:
        images: uint8 (n, size, size, 3), at least 16 pixels wide.

    Returns:
        float64 (n, bands); see ``octaves``.
    """
    size = images.shape[1]
    frequencies = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(frequencies[:, None], frequencies[None]).round()
    masks = [(radius >= first) & (radius <= last) for first, last in octaves(size)]
    powers = np.empty((len(images), len(masks)))
    for row, image in enumerate(images):
        # The mean is at 0.
        power = np.square(np.abs(np.fft.fft2(grey_levels(image) / 255))) / size**2
        powers[row] = [power[mask].mean() for mask in masks]
    return powers


def relative_strength(
    images: np.ndarray,
    labels: np.ndarray,
    reference: np.ndarray,
    reference_labels: np.ndarray,
    groups: np.ndarray | None = None,
    reference_groups: np.ndarray | None = None,
    seed: int = 0,
) -> Strength:
    """Power by band, brightness and contrast of a set, over those of a reference set.

    Each figure is the mean over the classes of its mean over their images, so the frequency of a
    class does not matter.

    Args:
        images: uint8 (n, size, size, 3).
        labels: int (n,).
        reference: uint8 (m, size, size, 3).
        reference_labels: int (m,), of the same classes.
        groups: (n,), equal for images of one group. If None, each image is a group.
        reference_groups: (m,).
        seed: seed of the resampling.

    Example:
        >>> import numpy as np
        >>> from kerasmed.metrics.strength import relative_strength
        >>> images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
        >>> labels = np.arange(40) % 2
        >>> same = relative_strength(images, labels, images, labels)
        >>> [band["ratio"] for band in same["bands"]], same["contrast"]["ratio"]
        ([1.0, 1.0, 1.0], 1.0)
    """
    given = (images, labels, groups), (reference, reference_labels, reference_groups)
    sides = [
        _Side(*arrays, random_stream(seed, Purpose.STRENGTH_INTERVAL, number))
        for number, arrays in enumerate(given)
    ]
    figures, of_reference = ([side.figures(w) for w in side.weights()] for side in sides)
    ratios = np.array(figures) / np.maximum(of_reference, 1e-12)  # one image has no deviation
    results: list[Ratio] = [{"ratio": float(ratio), "interval": None} for ratio in ratios[0]]
    fewest = min(side.num_groups for side in sides)
    if fewest > 1:
        low, high = expanded_interval(ratios[1:], fewest)
        for result, start, end in zip(results, low, high, strict=True):
            result["interval"] = float(start), float(end)
    *bands, brightness, contrast = results
    return {
        "bands": [
            {"first": first, "last": last, **band}
            for (first, last), band in zip(octaves(images.shape[1]), bands, strict=True)
        ],
        "brightness": brightness,
        "contrast": contrast,
    }


class _Side:
    """Measurements of a set's images, and its figures under weights of the images."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray | None,
        rng: np.random.Generator,
    ):
        greys = (grey_levels(image) / 255 for image in images)
        brightness, contrast = np.array([(grey.mean(), grey.std()) for grey in greys]).T
        self._measured = np.column_stack(
            [band_power(images), contrast, brightness, np.square(brightness)]
        )
        self._labels, self._rng = labels, rng
        _, self._group_of = np.unique(
            np.arange(len(images)) if groups is None else groups, return_inverse=True
        )
        self.num_groups = int(self._group_of.max()) + 1

    def weights(self) -> Iterator[np.ndarray]:
        """Weights of the images: 1, then the counts of their groups in each resample."""
        yield np.ones(len(self._labels))
        for _ in range(_RESAMPLES):
            drawn = self._rng.integers(self.num_groups, size=self.num_groups)
            yield np.bincount(drawn, minlength=self.num_groups)[self._group_of].astype(float)

    def figures(self, weights: np.ndarray) -> np.ndarray:
        """Power by band, brightness and contrast, each averaged over the classes."""
        of_classes = []
        for label in np.unique(self._labels):
            chosen = self._labels == label
            if not weights[chosen].any():  # all its groups are missing in this resample
                continue
            means = np.average(self._measured[chosen], axis=0, weights=weights[chosen])
            *powers, contrast, brightness, squared_brightness = means
            spread = np.sqrt(max(squared_brightness - brightness**2, 0.0))
            of_classes.append([*powers, spread, contrast])
        return np.mean(of_classes, axis=0)
