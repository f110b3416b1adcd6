"""Fingerprints of every image of a source, computed once."""

import hashlib
import secrets
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image
from scipy.fft import dctn

from kerasmed.data.config import DataConfig
from kerasmed.data.decoding import cache_key, in_parallel, pseudonym
from kerasmed.data.entries import Entry, Source
from kerasmed.data.fingerprints import APPEARANCE, COLUMNS, LISTS, Fingerprints, name_in_set
from kerasmed.data.picture import SHARES, Picture, distribution
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError
from kerasmed.files import make_folder, written_aside

_EDGE = 16  # of the square of DCT coefficients; its area is BITS

_REDUCED = 64

_BORDER = 0.03  # of the edge, where the colour around a scan is looked at

_WIDE = ("quantiles", "levels")


_ROWS = 8192  # that are kept as Python objects

_DTYPES: dict[str, Any] = {
    "hashes": np.bytes_,
    "pixel_hashes": np.bytes_,
    "bits": np.uint8,
    "appearance": APPEARANCE,
    "parts": np.int32,
    "notes": np.int32,
    "quantiles": np.float32,
    "levels": np.float32,
}


def perceptual_bits(grey: np.ndarray) -> np.ndarray:
    """Signs of the 16 x 16 lowest coefficients of the cosine transform.

    Recompression, noise, contrast and brightness change few of them. Mirroring an image changes the
    sign of every coefficient of odd frequency in that direction, and a quarter turn exchanges rows
    and columns beside, so the bits of all eight flips and turns follow from those of one.

    Args:
        grey: (..., 64, 64), any range.

    Returns:
        bool (..., 16, 16).

    Source: the DCT hash of Zauner, "Implementation and benchmarking of perceptual image hash
    functions" (2010), with signs in place of a comparison with the median.
    """
    return dctn(grey.astype(np.float32), axes=(-2, -1))[..., :_EDGE, :_EDGE] > 0


def read_fingerprints(data: DataConfig, cache: Path) -> Fingerprints:
    """Fingerprints of every image of ``data.source``, computed once.

    Args:
        data: source and choices of format; its image size plays no part.
        cache: path without suffix; ``.npz`` is written there.

    Raises:
        DataError: the source's layout. An unreadable image is listed instead.
    """
    source = open_source(data)
    # Whatever the size, the fingerprints are the same: one key serves all.
    key = cache_key(source, data.model_copy(update={"image_size": 0, "on_bad_image": "skip"}))
    path = cache.with_suffix(".npz")
    found = _read_cached(path, key)
    if found is not None:
        return found
    salt = secrets.token_bytes(16)
    parts: list[dict[str, np.ndarray]] = []
    rows: list[tuple] = []
    unreadable: list[str] = []
    masks: list[str] = []
    note_texts = {"": 0}
    make_folder(cache.parent)
    with source.opened(cache.parent) as read:

        def examine(entry: Entry) -> list[tuple] | str:
            try:
                return [
                    _row(digest, picture, entry, source, salt)
                    for digest, picture in source.images_of(entry, read, None)
                ]
            except DataError as error:
                return str(error)

        for entry, examined in in_parallel(examine, source.entries):
            if isinstance(examined, str):
                unreadable.append(examined)
            elif examined:
                rows += [
                    (*row, note_texts.setdefault(text, len(note_texts))) for *row, text in examined
                ]
            else:
                masks.append(name_in_set(entry.path, None, source.root))
            if len(rows) >= _ROWS:
                parts.append(_as_columns(rows))
                rows = []
    if rows or not parts:
        parts.append(_as_columns(rows))
    _fill_quantiles(parts)
    arrays = {name: np.concatenate([part.pop(name) for part in parts]) for name in COLUMNS}
    lists = {"unreadable": unreadable, "masks": masks, "note_texts": list(note_texts)}
    arrays |= {name: np.array(values, dtype=np.str_) for name, values in lists.items()}
    with written_aside(path) as temporary:
        np.savez(temporary, allow_pickle=False, key=np.array(key), **arrays)
    return Fingerprints(**arrays)


def _row(digest: str, picture: Picture, entry: Entry, source: Source, salt: bytes) -> tuple:
    """What is kept of an image, in the order of COLUMNS."""
    pixel_hash, bits, seen, quantiles, levels = _examine(picture, entry)
    return (
        name_in_set(entry.path, picture.part, source.root),
        entry.class_name,
        digest,
        pixel_hash,
        bits,
        seen,
        pseudonym(entry.patient or picture.patient, salt) or "",
        -1 if picture.part is None else picture.part,
        entry.part or "",
        quantiles,
        levels,
        "\n".join(picture.notes),
    )


def _as_columns(rows: list[tuple]) -> dict[str, np.ndarray]:
    """Rows as arrays, which take a tenth of their memory."""
    transposed = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    columns = dict(zip(COLUMNS, transposed, strict=True))
    arrays = {
        name: np.array(list(column), dtype=_DTYPES.get(name, np.str_))
        for name, column in columns.items()
    }
    for name in _WIDE:
        values = arrays[name].reshape(len(rows), len(SHARES))
        arrays[name] = values[:, :0] if np.isnan(values).all() else values
    return arrays


def _fill_quantiles(parts: list[dict[str, np.ndarray]]) -> None:
    """Rows of NaN where some images of the set have quantiles and those of a part have none."""
    width = max(part["quantiles"].shape[1] for part in parts)
    for part in parts:
        for name in _WIDE:
            if part[name].shape[1] < width:
                part[name] = np.full((len(part["names"]), width), np.nan, np.float32)


def _examine(picture: Picture, entry: Entry) -> tuple:
    """Hash of the pixels, perceptual bits, a row of APPEARANCE, and quantiles as kept."""
    image = picture.image
    shown = np.asarray(image)
    pixels = shown
    if picture.needs_range and picture.values is not None:
        pixels = picture.values if picture.values.ndim == 3 else picture.values[..., None]
        finite = pixels[np.isfinite(pixels)]
        # What the file has no values for is shown black.
        black = (finite.max() if picture.inverted else finite.min()) if finite.size else 0
        pixels = np.where(np.isfinite(pixels), pixels, black)
    digest = hashlib.sha256(f"{image.size}".encode() + pixels.tobytes()).hexdigest()
    reduced = np.asarray(image.convert("L").resize((_REDUCED, _REDUCED), Image.Resampling.BICUBIC))
    size = 0 if entry.row is not None else entry.path.stat().st_size
    quantiles = levels = np.full(len(SHARES), np.nan, np.float32)
    held, kept = 0, 0
    brightness = float(reduced.mean())
    if picture.values is not None:
        quantiles, levels, held = distribution(picture.values)
        kept = -1 if picture.needs_range else len(np.unique(shown))
    if picture.needs_range:
        brightness = float(pixels.mean())
    border = np.broadcast_to(_border_of(pixels), 3).tolist()
    row = (*image.size, picture.kind, size, brightness, tuple(border), held, kept, picture.inverted)
    return digest, np.packbits(perceptual_bits(reduced)), row, quantiles, levels


def _border_of(pixels: np.ndarray) -> np.ndarray:
    """Mean of each channel of (height, width, channels) along the edge."""
    rows, columns = (max(1, round(_BORDER * n)) for n in pixels.shape[:2])
    border = np.ones(pixels.shape[:2], dtype=bool)
    border[rows:-rows, columns:-columns] = False
    return pixels[border].mean(axis=0)


def _read_cached(path: Path, key: str) -> Fingerprints | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return Fingerprints(**{name: stored[name] for name in (*COLUMNS, *LISTS)})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
