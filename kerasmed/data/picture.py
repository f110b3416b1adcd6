"""One image of a file, and the grey levels 0 to 255 of values of more than 8 bits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # for the types only: the engine reads pictures without pydantic
    from kerasmed.data.config import Formats

Choices: TypeAlias = "Formats | Mapping[str, Any] | None"

# Black and white, as percentiles of the pixels, where neither a file nor a setting names them.
PERCENTILES = (0.1, 99.9)
# Quantiles kept of an image's values, denser towards both ends.
_TAIL = np.array([0.0005, 0.001, 0.002, 0.004, 0.005, 0.01, 0.02, 0.04])
QUANTILE_LEVELS: np.ndarray = np.unique(
    np.concatenate([np.linspace(0, 1, 41), _TAIL, 1 - _TAIL]).round(6)
)
# Most images from which a range is computed; of more, as many evenly spread ones are used.
_POOLED = 20_000
# An image of at least this many values that shows fewer grey levels has lost some.
FEW_LEVELS = 64


@dataclass(frozen=True)
class Picture:
    """One image of a file.

    Attributes:
        image: mode RGB, or L where all channels are equal, at the size that it was decoded at.
            Where ``needs_range``, black and white are percentiles of its own file.
        kind: format and pixel layout of the file, such as "JPEG L".
        frame: number of the frame or slice, counted from 0; None if the file has only one.
        patient: patient ID in the file, in clear text; never to be written anywhere.
        values: the file's values after its rescaling, if they have more than 8 bits per channel:
            (height, width) or (height, width, 3), NaN where the file states padding.
        needs_range: whether black and white are unknown.
        inverted: whether low values are shown white.
        is_mask: whether the file says that it marks regions of another image.
        notes: metadata faults that were ignored; they quote nothing of the file's content.
        own_size: width and height in the file, which is decoded at a smaller scale by a draft.
    """

    image: Image.Image
    kind: str
    frame: int | None = None
    patient: str | None = None
    values: np.ndarray | None = None
    needs_range: bool = False
    inverted: bool = False
    is_mask: bool = False
    notes: tuple[str, ...] = ()
    own_size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image in the file."""
        return self.own_size or self.image.size

    @property
    def pixels(self) -> np.ndarray:
        """The pixels of ``image``: uint8 (height, width, 3), or of one channel if it is grey."""
        pixels = np.asarray(self.image)
        return pixels if pixels.ndim == 3 else pixels[..., None]


def choice(formats: Choices, name: str) -> Any:
    """One choice of format, from settings or from plain values; None if unset."""
    if isinstance(formats, Mapping):
        return formats.get(name)
    return getattr(formats, name, None)


def to_grey(values: np.ndarray, black: float, white: float, inverted: bool = False) -> np.ndarray:
    """Values scaled linearly from black to white: uint8, of the same shape; NaN is black.

    Args:
        values: numbers of any dtype.
        black: this value and lower ones become 0.
        white: this value and higher ones become 255.
        inverted: exchanges black and white.
    """
    span = float(white) - float(black) if white > black else 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        brightness = np.clip((values.astype(np.float64) - black) / span, 0, 1)
    if inverted:
        brightness = 1 - brightness
    return np.rint(np.nan_to_num(brightness, nan=0.0) * 255).astype(np.uint8)


def without_missing(values: np.ndarray, formats: Choices, notes: list[str]) -> np.ndarray:
    """Values with ``nan_value`` of the formats in place of NaN, which is otherwise shown black.

    Args:
        values: values of one image or several.
        formats: the choices of format.
        notes: receives a note if NaN is left.
    """
    if values.dtype.kind != "f" or not np.isnan(values).any():
        return values
    replacement = choice(formats, "nan_value")
    if replacement is None:
        notes.append("NaN pixels are shown black; set data.nan_value to give them a value")
        return values
    return np.where(np.isnan(values), values.dtype.type(replacement), values)


def own_range(values: np.ndarray) -> tuple[float, float]:
    """Black and white as percentiles of these values; 0 and 1 if none is finite."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, PERCENTILES)
    return float(low), float(high)


def to_rgb(grey: np.ndarray) -> Image.Image:
    """Grey (height, width) or RGB (height, width, 3), uint8, as an image of mode RGB."""
    return Image.fromarray(grey).convert("RGB")


def distribution(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Quantiles of an image's values.

    Returns:
        Quantiles of the pixels and of the distinct values at QUANTILE_LEVELS, float32, and the
        number of distinct values.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        undefined = np.full(len(QUANTILE_LEVELS), np.nan, np.float32)
        return undefined, undefined, 0
    pixels = np.sort(finite, axis=None)
    distinct = pixels[np.append(True, pixels[1:] != pixels[:-1])]
    of_pixels, of_values = (
        ordered[np.rint(QUANTILE_LEVELS * (len(ordered) - 1)).astype(np.int64)].astype(np.float32)
        for ordered in (pixels, distinct)
    )
    return of_pixels, of_values, len(distinct)


def pooled_range(
    quantiles: np.ndarray, percentiles: tuple[float, float] = PERCENTILES
) -> tuple[float, float] | None:
    """Black and white of many images: percentiles of their values, each image weighted equally.

    Args:
        quantiles: float32 (images, len(QUANTILE_LEVELS)), rows of ``distribution``; rows of NaN are
            left out.
        percentiles: of black and of white.

    Returns:
        Two values, the first below the second; None if no image has a finite value.
    """
    if not quantiles.shape[1]:
        return None
    rows = quantiles[np.isfinite(quantiles).all(axis=1)]
    if not len(rows):
        return None
    if len(rows) > _POOLED:
        rows = rows[np.linspace(0, len(rows) - 1, _POOLED).astype(np.int64)]
    rows = rows.astype(np.float64)
    # Each quantile represents the pixels half way to its neighbours.
    weights = np.gradient(QUANTILE_LEVELS)
    weights[[0, -1]] /= 2
    order = np.argsort(rows, axis=None, kind="stable")
    values = rows.ravel()[order]
    below = np.cumsum(np.broadcast_to(weights, rows.shape).ravel()[order])
    wanted = np.asarray(percentiles) / 100 * below[-1]
    low, high = values[np.minimum(np.searchsorted(below, wanted), len(values) - 1)].tolist()
    return (low, high) if high > low else (low, low + 1)


def levels_kept(levels: np.ndarray, held: np.ndarray, low: float, high: float) -> np.ndarray:
    """Estimated number of grey levels that each image keeps in a range: int (images,).

    Args:
        levels: float32 (images, len(QUANTILE_LEVELS)), quantiles of their distinct values.
        held: int (images,), number of distinct values of each.
        low: value shown black.
        high: value shown white.
    """
    if not levels.shape[1]:  # no image has a value
        return np.zeros(len(levels), np.int64)
    # Between two quantiles there are no more levels than grey levels of the range, or values.
    inside = np.clip(np.nan_to_num(levels), low, high)
    spanned = 255 * np.diff(inside, axis=1) / (high - low)
    spanned = np.minimum(spanned, held[:, None] * np.diff(QUANTILE_LEVELS)).sum(axis=1)
    return np.minimum(held, 1 + np.rint(spanned).astype(np.int64))
