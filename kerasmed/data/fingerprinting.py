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
from kerasmed.data.picture import QUANTILE_LEVELS, Picture, distribution
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError
from kerasmed.files import make_folder, written_aside

# Edge of the square of DCT coefficients whose signs are the 256 bits.
_EDGE = 16
# Edge of the image that the DCT is taken of.
_REDUCED = 64
# Width of the border, as a fraction of the edge, that shows the colour around a scan.
_BORDER = 0.03
# Columns that hold one value for each quantile.
_WIDE = ("quantiles", "levels")
# Rows that are held as Python objects before they become arrays.
_ROWS = 8192

_DTYPES: dict[str, Any] = {
    "hashes": np.bytes_,
    "pixel_hashes": np.bytes_,
    "bits": np.uint8,
    "appearance": APPEARANCE,
    "frames": np.int32,
    "notes": np.int32,
    "quantiles": np.float32,
    "levels": np.float32,
}


def perceptual_bits(grey: np.ndarray) -> np.ndarray:
    """Signs of the 16 x 16 lowest coefficients of the cosine transform.

    Recompression, noise, contrast and brightness change few of them. Mirroring an image changes the
    sign of every coefficient of odd frequency in that direction. A quarter turn also exchanges rows
    and columns. So the bits of all eight flips and turns follow from those of one.

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
        data: source and choices of format; its image size has no effect.
        cache: path without suffix of the ``.npz`` that is written.

    Raises:
        DataError: the source has another layout. An unreadable image is listed instead.
    """
    source = open_source(data)
    # Fingerprints do not depend on the image size, so one key serves every size.
    key = cache_key(source, data.model_copy(update={"image_size": 0, "on_bad_image": "skip"}))
    path = cache.with_suffix(".npz")
    cached = _read_cached(path, key)
    if cached is not None:
        return cached
    salt = secrets.token_bytes(16)
    chunks: list[dict[str, np.ndarray]] = []
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
                chunks.append(_as_columns(rows))
                rows = []
    if rows or not chunks:
        chunks.append(_as_columns(rows))
    _fill_quantiles(chunks)
    arrays = {name: np.concatenate([chunk.pop(name) for chunk in chunks]) for name in COLUMNS}
    lists = {"unreadable": unreadable, "masks": masks, "note_texts": list(note_texts)}
    arrays |= {name: np.array(values, dtype=np.str_) for name, values in lists.items()}
    with written_aside(path) as temporary:
        np.savez(temporary, allow_pickle=False, key=np.array(key), **arrays)
    return Fingerprints(**arrays)


def _row(digest: str, picture: Picture, entry: Entry, source: Source, salt: bytes) -> tuple:
    """The row of an image, in the order of COLUMNS."""
    pixel_hash, bits, appearance, quantiles, levels = _examine(picture, entry)
    return (
        name_in_set(entry.path, picture.frame, source.root),
        entry.class_name,
        digest,
        pixel_hash,
        bits,
        appearance,
        pseudonym(entry.patient or picture.patient, salt) or "",
        -1 if picture.frame is None else picture.frame,
        entry.official or "",
        quantiles,
        levels,
        "\n".join(picture.notes),
    )


def _as_columns(rows: list[tuple]) -> dict[str, np.ndarray]:
    """The rows as arrays, which take a tenth of the memory."""
    transposed = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    columns = dict(zip(COLUMNS, transposed, strict=True))
    arrays = {
        name: np.array(list(column), dtype=_DTYPES.get(name, np.str_))
        for name, column in columns.items()
    }
    for name in _WIDE:
        values = arrays[name].reshape(len(rows), len(QUANTILE_LEVELS))
        arrays[name] = values[:, :0] if np.isnan(values).all() else values
    return arrays


def _fill_quantiles(chunks: list[dict[str, np.ndarray]]) -> None:
    """Give chunks without quantiles rows of NaN, if another chunk has quantiles."""
    width = max(chunk["quantiles"].shape[1] for chunk in chunks)
    for chunk in chunks:
        for name in _WIDE:
            if chunk[name].shape[1] < width:
                chunk[name] = np.full((len(chunk["names"]), width), np.nan, np.float32)


def _examine(picture: Picture, entry: Entry) -> tuple:
    """Hash of the pixels, perceptual bits, a row of APPEARANCE, quantiles and levels."""
    image = picture.image
    shown = np.asarray(image)
    pixels = shown
    if picture.needs_range and picture.values is not None:
        pixels = picture.values if picture.values.ndim == 3 else picture.values[..., None]
        finite = pixels[np.isfinite(pixels)]
        # Pixels without a value are shown black.
        black = (finite.max() if picture.inverted else finite.min()) if finite.size else 0
        pixels = np.where(np.isfinite(pixels), pixels, black)
    digest = hashlib.sha256(f"{image.size}".encode() + pixels.tobytes()).hexdigest()
    reduced = np.asarray(image.convert("L").resize((_REDUCED, _REDUCED), Image.Resampling.BICUBIC))
    size = 0 if entry.row is not None else entry.path.stat().st_size
    quantiles = levels = np.full(len(QUANTILE_LEVELS), np.nan, np.float32)
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
    """The mean of each channel along the edge of (height, width, channels)."""
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
