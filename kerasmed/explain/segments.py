"""Superpixels of an image."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import binary_opening, label
from skimage.segmentation import felzenszwalb, quickshift, slic

from kerasmed.data.readers import check_images
from kerasmed.errors import InputError

# Up to this grey level a pixel of a scan's empty border counts as black.
_BLACK = 24


def segment_image(image: np.ndarray, method: str, superpixels: int) -> np.ndarray:
    """Superpixels of an image, numbered from 0 without a gap.

    Args:
        image: uint8 (height, width, 3).
        method: a key of SEGMENTATIONS.
        superpixels: the wanted number; "quickshift" and "felzenszwalb" choose their own.

    Returns:
        int64 (height, width).

    Raises:
        InputError: there is no segmentation of that name.
    """
    if method not in SEGMENTATIONS:
        raise InputError(
            f"Segmentation: expected one of {', '.join(SEGMENTATIONS)}; received {method!r}."
        )
    return _renumber(SEGMENTATIONS[method](image, superpixels))


def superpixels_of(
    image: np.ndarray, segments: np.ndarray | None, method: str, superpixels: int
) -> np.ndarray:
    """Given superpixels of any ids, renumbered; or for None those of ``segment_image``.

    Raises:
        InputError: an image of another dtype or shape, or segments of another size.
    """
    check_images(image[None] if isinstance(image, np.ndarray) else image)
    if segments is None:
        return segment_image(image, method, superpixels)
    segments = np.asarray(segments)
    if segments.shape != image.shape[:2] or segments.dtype.kind not in "iu":
        raise InputError(
            f"Segments: expected integers {image.shape[:2]}, one for each pixel, received "
            f"{segments.dtype} {segments.shape}."
        )
    return _renumber(segments)


def _renumber(segments: np.ndarray) -> np.ndarray:
    """The same superpixels, int64, numbered from 0 without a gap in the order of their old ids."""
    return np.unique(segments, return_inverse=True)[1].reshape(segments.shape)


def _quickshift(image: np.ndarray, _: int) -> np.ndarray:
    """With the parameters of `lime` 0.2.0.1."""
    return quickshift(image, kernel_size=4, max_dist=200, ratio=0.2, rng=0)


def _felzenszwalb(image: np.ndarray, superpixels: int) -> np.ndarray:
    """None is smaller than a quarter of the mean size that the wanted number would give."""
    smallest = image.shape[0] * image.shape[1] // (4 * superpixels)
    return felzenszwalb(image, scale=100, sigma=0.5, min_size=smallest)


def _slic(image: np.ndarray, superpixels: int) -> np.ndarray:
    return slic(image, n_segments=superpixels, compactness=10, start_label=0)


def _grid(image: np.ndarray, superpixels: int) -> np.ndarray:
    """Rectangles, nearly square and nearly equal."""
    height, width = image.shape[:2]
    down = min(height, max(1, round((superpixels * height / width) ** 0.5)))
    across = min(width, max(1, round(superpixels / down)))
    rows, columns = np.arange(height) * down // height, np.arange(width) * across // width
    return rows[:, None] * across + columns


def _foreground(image: np.ndarray, superpixels: int) -> np.ndarray:
    """As "slic", but the black border of a scan, where there is one, is a single superpixel.

    The border is black, connected with a corner, and nowhere thinner than three pixels.
    """
    black = binary_opening(image.max(axis=2) <= _BLACK, np.ones((3, 3)))
    regions, _ = label(black)
    corners = regions[[0, 0, -1, -1], [0, -1, 0, -1]]
    border = np.isin(regions, corners[corners > 0])
    if not border.any() or border.all():
        return _slic(image, superpixels)
    segments = slic(image, n_segments=superpixels, compactness=10, start_label=1, mask=~border)
    # Slic gives no superpixel to regions too small for the wanted number, so together they get one.
    return np.where(~border & (segments == 0), segments.max() + 1, segments)


SEGMENTATIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "quickshift": _quickshift,
    "slic": _slic,
    "felzenszwalb": _felzenszwalb,
    "grid": _grid,
    "foreground": _foreground,
}
