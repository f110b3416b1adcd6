"""Images and labels in an .npz, laid out as MedMNIST does."""

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from kerasmed.data.config import Formats
from kerasmed.data.entries import Entry, Read, Source, checked_label, sorted_by_class
from kerasmed.data.official import part_named
from kerasmed.data.picture import Picture
from kerasmed.errors import DataError

_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class NpzSource(Source):
    """An .npz laid out as MedMNIST's: `train_images`, `train_labels`, and so on for val, test."""

    # First row of each part, and the name of its images.
    parts: tuple[tuple[int, str], ...] = ()

    @contextmanager
    def opened(self, scratch: Path) -> Iterator[Read]:
        with TemporaryDirectory(dir=scratch) as folder, zipfile.ZipFile(self.path) as archive:
            # Memory maps over an unpacked copy, so that memory stays bounded.
            try:
                parts = [
                    (first, np.load(archive.extract(f"{name}.npy", folder), mmap_mode="r"))
                    for first, name in self.parts
                ]
            except Exception as error:  # zipfile, zlib and NumPy have one for each kind of damage
                raise DataError(
                    f"Cannot read {self.path}: its content is broken ({type(error).__name__}); "
                    "get it anew."
                ) from None

            def read(entry: Entry, draft_size: int | None) -> Iterator[tuple[str, Picture]]:
                row = entry.row or 0
                first, images = next(part for part in reversed(parts) if part[0] <= row)
                pixels = np.asarray(images[row - first])
                digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
                image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
                yield digest, Picture(image.convert("RGB"), f"npz {image.mode}", row)

            yield read


def open_npz(
    path: Path, class_names: list[str] | None, formats: Formats, least_classes: int = 2
) -> Source:
    """The rows of an .npz with their classes; its images stay unread.

    Args:
        path: holds `train_images` and `train_labels`, and perhaps the same of `val` and `test`.
        class_names: of the labels 0, 1, ...; the numbers themselves if None.
        formats: passed on.
        least_classes: how many classes it must have.

    Raises:
        DataError: not such an archive, or labels that are not one whole number an image.
    """
    wanted = "an .npz with train_images and train_labels (and val_, test_), as MedMNIST has them"
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"Cannot read {path}: expected {wanted}, received no zip archive.")
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            parts = [part for part in _PARTS if f"{part}_images" in archive.files]
            if not parts:
                raise DataError(f"{path}: expected {wanted}, received {archive.files}.")
            labels = [_npz_labels(archive, part, path) for part in parts]
        shapes = [_npz_shape(path, f"{part}_images") for part in parts]
    except DataError:
        raise
    except Exception as error:  # as above
        reason = " ".join(str(error).split())
        raise DataError(
            f"Cannot read {path}: expected {wanted}, of plain arrays, received {reason}."
        ) from None
    for part, found, (shape, dtype) in zip(parts, labels, shapes, strict=True):
        grey_or_rgb = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
        if dtype != np.uint8 or not grey_or_rgb or 0 in shape:
            raise DataError(
                f"{path}: {part}_images: expected uint8 (n, height, width) or (n, height, width, "
                f"1 or 3), 0 to 255, received {dtype} {shape}; convert them."
            )
        if len(found) != shape[0]:
            raise DataError(
                f"{path}: {shape[0]} {part}_images but {len(found)} labels: expected as many."
            )
    every = np.concatenate(labels)
    last = len(class_names) - 1 if class_names else every.max()
    if every.min() < 0 or every.max() > last:
        raise DataError(
            f"{path}: expected labels 0 to {last} (as many as data.class_names), received "
            f"{every.min()} to {every.max()}; name every class."
        )
    width = len(str(every.max()))
    names = {
        label: checked_label(class_names[label], str(path)) if class_names else f"{label:0{width}d}"
        for label in set(every.tolist())
    }
    # Archives of a single part are not divided.
    official = [part_named(part) for part in parts] if len(parts) > 1 else [None]
    of_row = [part for part, found in zip(official, labels, strict=True) for _ in found]
    entries = [
        Entry(path, names[label], row, part=part)
        for row, (label, part) in enumerate(zip(every.tolist(), of_row, strict=True))
    ]
    sorted_names, sorted_entries = sorted_by_class(entries, path, least_classes)
    starts = np.cumsum([0] + [len(found) for found in labels]).tolist()
    named = tuple((starts[i], f"{part}_images") for i, part in enumerate(parts))
    return NpzSource(path, sorted_names, sorted_entries, formats, parts=named)


def _npz_labels(archive, part: str, path: Path) -> np.ndarray:
    labels = np.asarray(archive[f"{part}_labels"])
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    whole = flat.ndim == 1 and flat.dtype.kind in "iuf" and bool(np.all(np.abs(flat) < 2**53))
    whole = whole and bool(np.all(np.mod(flat, 1) == 0))
    if not whole or not len(flat):
        raise DataError(
            f"{path}: {part}_labels: expected one whole number an image, received {labels.dtype} "
            f"{labels.shape}; sets with several labels an image are not supported."
        )
    return flat.astype(np.int64)


def _npz_shape(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a member, without reading it."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read[version[0]](stream)
    if fortran and len(shape) > 1:
        raise DataError(f"{path}: {name}: expected C order, received Fortran order; save it anew.")
    return shape, dtype
