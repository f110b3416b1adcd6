"""Measurements of every image of a source, computed in the same pass as the pixels."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image
from scipy.fft import dct

from kerasmed.data.config import DataConfig
from kerasmed.data.decoding import has_images, images_written
from kerasmed.data.entries import Entry, Source
from kerasmed.data.image_file import ImageFile
from kerasmed.data.measurements import APPEARANCE, COLUMNS, LISTS, Measurements, name_in_set
from kerasmed.data.picture import QUANTILE_LEVELS, Picture, distribution
from kerasmed.data.raster import LEAST_DRAFT
from kerasmed.data.reading import (
    Collector,
    Decoded,
    made_from,
    new_salt,
    pseudonym,
    read_source,
)
from kerasmed.data.sources import open_source
from kerasmed.files import make_folder, written_aside
from kerasmed.fingerprint import Fingerprint

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
# Images whose cosine transforms are computed together.
_AT_ONCE = 64

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

_NO_QUANTILES = np.full(len(QUANTILE_LEVELS), np.nan, np.float32)


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
    rows = dct(grey.astype(np.float32), axis=-2)[..., :_EDGE, :]
    return dct(rows, axis=-1)[..., :_EDGE] > 0


def read_measurements(
    data: DataConfig, cache: Path, images: Path | None = None, source: Source | None = None
) -> Measurements:
    """Measurements of every image of ``data.source``, computed once.

    Args:
        data: source and choices of format. JPEGs are decoded at the scale for its image size.
        cache: path without suffix of the ``.npz`` that is written.
        images: cache of ``read_images``, which the same pass writes. It is left out if a grey range
            has to be found first, or if an image is unreadable and the settings do not skip it.
        source: what ``open_source`` gave for these settings, if it is at hand.

    Raises:
        DataError: the source has another layout. An unreadable image is listed instead.
    """
    source = source or open_source(data)
    pixels_from = made_from(source, data)
    # Smaller images are decoded alike, so their measurements are the same.
    scale = {"image_size": max(data.image_size, LEAST_DRAFT), "on_bad_image": None}
    fingerprint = replace(pixels_from, settings=pixels_from.settings | scale)
    path = cache.with_suffix(".npz")
    cached = _read_cached(path, fingerprint)
    if cached is not None:
        return cached
    make_folder(cache.parent)
    table = MeasurementTable(source.root)
    collectors: list[Collector] = [table]
    with ExitStack() as stack:
        if images is not None and not has_images(images, pixels_from):
            writer = images_written(source, data, images, pixels_from, stops_without_range=True)
            collectors.append(stack.enter_context(writer))
        read_source(source, cache.parent, data.image_size, collectors)
    arrays = table.arrays()
    with written_aside(path) as temporary:
        record = np.array(json.dumps(fingerprint.as_record()))
        np.savez(temporary, allow_pickle=False, fingerprint=record, **arrays)
    return Measurements(**arrays)


def measure_pixels(images: np.ndarray, files: Sequence[ImageFile]) -> Measurements:
    """Measurements of images that are in memory.

    Args:
        images: uint8 (n, height, width, 3).
        files: what stands for the file of each.
    """
    table = MeasurementTable(Path())
    for row, (pixels, file) in enumerate(zip(images, files, strict=True)):
        entry = Entry(file.path, file.class_name, row, file.patient)
        picture = Picture(Image.fromarray(pixels), "array RGB", file.frame)
        table.add(entry, [table.measure(Decoded(entry, file.sha256, picture))])
    return Measurements(**table.arrays())


class MeasurementTable:
    """Measures the images of a source while it is read; a ``Collector``."""

    def __init__(self, root: Path):
        self._root = root
        self._salt = new_salt()
        self._chunks: list[dict[str, np.ndarray]] = []
        self._rows: list[tuple] = []
        self._bits: list[np.ndarray] = []
        self._reduced: list[np.ndarray] = []
        self._lists: dict[str, list[str]] = {"unreadable": [], "masks": []}
        self._note_texts = {"": 0}

    def measure(self, image: Decoded) -> tuple[tuple, np.ndarray]:
        """The image's row without its bits, in the order of COLUMNS, and its reduced grey image."""
        entry, picture = image.entry, image.picture
        pixel_hash, reduced, appearance, quantiles, levels = _examine(image)
        row = (
            name_in_set(entry.path, picture.frame, self._root),
            entry.class_name,
            image.sha256,
            pixel_hash,
            appearance,
            pseudonym(entry.patient or picture.patient, self._salt) or "",
            -1 if picture.frame is None else picture.frame,
            entry.official or "",
            quantiles,
            levels,
            "\n".join(picture.notes),
        )
        return row, reduced

    def add(self, entry: Entry, rows: list[Any] | str) -> None:
        """Add the rows of an entry."""
        if isinstance(rows, str):
            self._lists["unreadable"].append(rows)
            return
        if not rows:
            self._lists["masks"].append(name_in_set(entry.path, None, self._root))
        for (*row, text), reduced in rows:
            self._rows.append((*row, self._note_texts.setdefault(text, len(self._note_texts))))
            self._reduced.append(reduced)
            if len(self._reduced) == _AT_ONCE:
                self._transform()
        if len(self._rows) >= _ROWS:
            self._end_chunk()

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields of ``Measurements``."""
        if self._rows or not self._chunks:
            self._end_chunk()
        _fill_quantiles(self._chunks)
        arrays = {
            name: np.concatenate([chunk.pop(name) for chunk in self._chunks]) for name in COLUMNS
        }
        lists = self._lists | {"note_texts": list(self._note_texts)}
        return arrays | {name: np.array(lists[name], dtype=np.str_) for name in LISTS}

    def _transform(self) -> None:
        bits = perceptual_bits(np.stack(self._reduced))
        self._bits.append(np.packbits(bits.reshape(len(bits), -1), axis=1))
        self._reduced = []

    def _end_chunk(self) -> None:
        if self._reduced:
            self._transform()
        self._chunks.append(_as_columns(self._rows, self._bits))
        self._rows, self._bits = [], []


def _as_columns(rows: list[tuple], bits: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The rows as arrays, which take a tenth of the memory."""
    names = [name for name in COLUMNS if name != "bits"]
    transposed = zip(*rows, strict=True) if rows else [()] * len(names)
    columns = dict(zip(names, transposed, strict=True))
    arrays = {
        name: np.array(list(column), dtype=_DTYPES.get(name, np.str_))
        for name, column in columns.items()
    }
    for name in _WIDE:
        values = arrays[name].reshape(len(rows), len(QUANTILE_LEVELS))
        arrays[name] = values[:, :0] if np.isnan(values).all() else values
    arrays["bits"] = np.concatenate([np.empty((0, _EDGE**2 // 8), np.uint8), *bits])
    return arrays


def _fill_quantiles(chunks: list[dict[str, np.ndarray]]) -> None:
    """Give chunks without quantiles rows of NaN, if another chunk has quantiles."""
    width = max(chunk["quantiles"].shape[1] for chunk in chunks)
    for chunk in chunks:
        for name in _WIDE:
            if chunk[name].shape[1] < width:
                chunk[name] = np.full((len(chunk["names"]), width), np.nan, np.float32)


def _examine(image: Decoded) -> tuple:
    """Hash of the pixels, grey reduced image, a row of APPEARANCE, quantiles and levels."""
    entry, picture = image.entry, image.picture
    pixels = shown = picture.pixels
    if picture.needs_range and picture.values is not None:
        pixels = picture.values if picture.values.ndim == 3 else picture.values[..., None]
        finite = pixels[np.isfinite(pixels)]
        # Pixels without a value are shown black.
        black = (finite.max() if picture.inverted else finite.min()) if finite.size else 0
        pixels = np.where(np.isfinite(pixels), pixels, black)
    reduced = np.asarray(Image.fromarray(image.reduced(_REDUCED)).convert("L"))
    quantiles = levels = _NO_QUANTILES
    held, kept = 0, 0
    if picture.values is not None:
        quantiles, levels, held = distribution(picture.values)
        kept = -1 if picture.needs_range else len(np.unique(shown))
    appearance = (
        *picture.size,
        picture.kind,
        entry.path.stat().st_size if entry.row is None else 0,
        float(pixels.mean()) if picture.needs_range else _mean(reduced),
        tuple(_border_of(pixels)),
        held,
        kept,
        picture.inverted,
    )
    return _pixel_hash(picture.size, pixels), reduced, appearance, quantiles, levels


def _pixel_hash(size: tuple[int, int], pixels: np.ndarray) -> str:
    """SHA-256 of an image's size and pixels; grey counts as RGB of equal channels."""
    if pixels.dtype == np.uint8 and pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    digest = hashlib.sha256(f"{size}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _mean(values: np.ndarray) -> float:
    return int(np.add.reduce(values, axis=None, dtype=np.int64)) / values.size


def _border_of(pixels: np.ndarray) -> list[float]:
    """The mean of each RGB channel along the edge of (height, width, channels)."""
    height, width, channels = pixels.shape
    rows, columns = (max(1, round(_BORDER * n)) for n in (height, width))
    inner = pixels[rows:-rows]
    strips = [pixels[:rows], pixels[-rows:], inner[:, :columns], inner[:, -columns:]]
    if height <= 2 * rows or width <= 2 * columns:
        strips = [pixels]
    border = np.concatenate([strip.ravel() for strip in strips])
    # One channel after the other, since NumPy adds rows of three in three times the time.
    means = [float(border[channel::channels].mean()) for channel in range(channels)]
    return means if channels == 3 else means * 3


def _read_cached(path: Path, fingerprint: Fingerprint) -> Measurements | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not fingerprint.matches(json.loads(str(stored["fingerprint"]))):
                return None
            return Measurements(**{name: stored[name] for name in (*COLUMNS, *LISTS)})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
