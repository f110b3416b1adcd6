"""One image of a file, and how values of more than 8 bits become the grey levels 0 to 255."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # for the types only: the engine reads pictures without pydantic
    from kerasmed.data.config import Formats

Choices: TypeAlias = "Formats | Mapping[str, Any] | None"

# Shares of the pixels below black and below white where neither a file nor a setting names them.
PERCENTILES = (0.1, 99.9)
# Where the distribution of one image's values is kept, denser towards its ends.
_TAIL = np.array([0.0005, 0.001, 0.002, 0.004, 0.005, 0.01, 0.02, 0.04])
SHARES: np.ndarray = np.unique(np.concatenate([np.linspace(0, 1, 41), _TAIL, 1 - _TAIL]).round(6))
# Images, evenly spread, from which a range of more of them is taken.
_POOLED = 20_000
# An image that shows fewer grey levels than this, and holds this many or more, has lost some.
FEW_LEVELS = 64


@dataclass(frozen=True)
class Picture:
    """One image of a file.

    Attributes:
        image: mode RGB, at its own size. Where ``needs_range``, from black to white by the
            percentiles of its own file.
        kind: format and pixel layout of the file, such as "JPEG L".
        part: the frame or slice, counted from 0, where the file holds several; else None.
        patient: whom the file names, in clear; never to be written anywhere.
        values: what the file holds where that is more than 8 bits a channel, after its rescaling:
            (height, width) or (height, width, 3), NaN where it says that there is nothing.
        needs_range: whether nothing says which values are black and white.
        inverted: whether low values are shown white.
        is_mask: whether the file says that it marks regions of another image.
        notes: faults of its metadata that were ignored, without a word of its content.
    """

    image: Image.Image
    kind: str
    part: int | None = None
    patient: str | None = None
    values: np.ndarray | None = None
    needs_range: bool = False
    inverted: bool = False
    is_mask: bool = False
    notes: tuple[str, ...] = ()


def choice(formats: Choices, name: str) -> Any:
    """One of the choices of format, whether these are settings or plain values; None if unset."""
    if isinstance(formats, Mapping):
        return formats.get(name)
    return getattr(formats, name, None)


def to_grey(values: np.ndarray, black: float, white: float, inverted: bool = False) -> np.ndarray:
    """Values on a line from black to white: uint8, of the same shape; NaN is black.

    Args:
        values: numbers of any kind.
        black: shown as 0, like everything below.
        white: shown as 255, like everything above.
        inverted: exchanges the two.
    """
    span = float(white) - float(black) if white > black else 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        share = np.clip((values.astype(np.float64) - black) / span, 0, 1)
    if inverted:
        share = 1 - share
    return np.rint(np.nan_to_num(share, nan=0.0) * 255).astype(np.uint8)


def without_missing(values: np.ndarray, formats: Choices, notes: list[str]) -> np.ndarray:
    """Values with ``nan_value`` of the formats in the place of NaN, which else is shown black.

    Args:
        values: of one image or several.
        formats: the choices of format.
        notes: takes a note where NaN is left.
    """
    if values.dtype.kind != "f" or not np.isnan(values).any():
        return values
    replacement = choice(formats, "nan_value")
    if replacement is None:
        notes.append("NaN pixels are shown black; set data.nan_value to give them a value")
        return values
    return np.where(np.isnan(values), values.dtype.type(replacement), values)


def own_range(values: np.ndarray) -> tuple[float, float]:
    """Black and white by the percentiles of these values; 0 and 1 where none is a number."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, PERCENTILES)
    return float(low), float(high)


def to_rgb(grey: np.ndarray) -> Image.Image:
    """Grey (height, width) or RGB (height, width, 3), uint8, as an image of mode RGB."""
    return Image.fromarray(grey).convert("RGB")


def distribution(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """How an image's values are spread.

    Returns:
        Quantiles of the pixels and of the different values at SHARES, float32, and how many
        different values there are.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        nothing = np.full(len(SHARES), np.nan, np.float32)
        return nothing, nothing, 0
    ordered = np.sort(finite, axis=None)
    different = ordered[np.append(True, ordered[1:] != ordered[:-1])]
    of_pixels, of_values = (
        each[np.rint(SHARES * (len(each) - 1)).astype(np.int64)].astype(np.float32)
        for each in (ordered, different)
    )
    return of_pixels, of_values, len(different)


def pooled_range(
    quantiles: np.ndarray, percentiles: tuple[float, float] = PERCENTILES
) -> tuple[float, float] | None:
    """Black and white of many images: percentiles of their values, each image counting alike.

    Args:
        quantiles: float32 (images, len(SHARES)), rows of ``distribution``; rows of NaN are left
            out.
        percentiles: below black and white.

    Returns:
        Two values, the first below the second; None where no image has any.
    """
    if not quantiles.shape[1]:
        return None
    rows = quantiles[np.isfinite(quantiles).all(axis=1)]
    if not len(rows):
        return None
    if len(rows) > _POOLED:
        rows = rows[np.linspace(0, len(rows) - 1, _POOLED).astype(np.int64)]
    rows = rows.astype(np.float64)
    # Each of a row's values stands for the pixels half way to its neighbours.
    weights = np.gradient(SHARES)
    weights[[0, -1]] /= 2
    order = np.argsort(rows, axis=None, kind="stable")
    values = rows.ravel()[order]
    below = np.cumsum(np.broadcast_to(weights, rows.shape).ravel()[order])
    shares = np.asarray(percentiles) / 100 * below[-1]
    low, high = values[np.minimum(np.searchsorted(below, shares), len(values) - 1)].tolist()
    return (low, high) if high > low else (low, low + 1)


def levels_kept(levels: np.ndarray, held: np.ndarray, low: float, high: float) -> np.ndarray:
    """How many grey levels images keep in a range: int (images,), by estimate.

    Args:
        levels: float32 (images, len(SHARES)), quantiles of their different values.
        held: int (images,), how many different values each holds.
        low: shown black.
        high: shown white.
    """
    if not levels.shape[1]:  # no image has a value
        return np.zeros(len(levels), np.int64)
    # Between two quantiles are no more levels than the range has there, nor than values.
    inside = np.clip(np.nan_to_num(levels), low, high)
    spanned = 255 * np.diff(inside, axis=1) / (high - low)
    shown = np.minimum(spanned, held[:, None] * np.diff(SHARES)).sum(axis=1)
    return np.minimum(held, 1 + np.rint(shown).astype(np.int64))
