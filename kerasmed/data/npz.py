"""Images and labels in an .npz with MedMNIST's layout."""

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
from kerasmed.data.official import official_subset
from kerasmed.data.picture import Picture
from kerasmed.errors import DataError

_SUBSETS = ("train", "val", "test")
_LAYOUT = "an .npz with train_images and train_labels (and val_, test_), as MedMNIST has them"


@dataclass(frozen=True)
class NpzSource(Source):
    """An .npz with MedMNIST's layout: `train_images`, `train_labels`, and so on for val, test."""

    # First row of each subset, and the name of its array of images.
    subsets: tuple[tuple[int, str], ...] = ()

    @contextmanager
    def opened(self, scratch: Path) -> Iterator[Read]:
        with (
            # Windows deletes no file whose memory map is open.
            TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as folder,
            zipfile.ZipFile(self.path) as archive,
        ):
            # Memory maps of an unpacked copy keep memory bounded.
            try:
                subsets = [
                    (first, np.load(archive.extract(f"{name}.npy", folder), mmap_mode="r"))
                    for first, name in self.subsets
                ]
            except Exception as error:  # zipfile, zlib and NumPy raise many kinds on damaged files
                raise DataError(
                    f"Cannot read {self.path}: its content is broken ({type(error).__name__}); "
                    "download or save it again."
                ) from None

            def read(entry: Entry, draft_size: int | None) -> Iterator[tuple[str, Picture]]:
                row = entry.row or 0
                first, images = next(subset for subset in reversed(subsets) if subset[0] <= row)
                pixels = np.asarray(images[row - first])
                digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
                image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
                yield digest, Picture(image.convert("RGB"), f"npz {image.mode}", row)

            yield read


def open_npz(
    path: Path, class_names: list[str] | None, formats: Formats, least_classes: int = 2
) -> Source:
    """The rows of an .npz with their classes; its images are not read.

    Args:
        path: archive with `train_images` and `train_labels`, and perhaps the same for `val` and
            `test`.
        class_names: names of the labels 0, 1, ...; the numbers themselves if None.
        formats: the choices of format.
        least_classes: smallest number of classes that is accepted.

    Raises:
        DataError: the file is not such an archive, or its labels are not one whole number per
            image.
    """
    labels = _read_labels(path)
    all_labels = np.concatenate(list(labels.values()))
    names = _label_names(all_labels, class_names, path)
    # Archives of a single subset are not divided.
    official_subsets = [
        official_subset(subset) if len(labels) > 1 else None
        for subset, subset_labels in labels.items()
        for _ in subset_labels
    ]
    entries = [
        Entry(path, names[label], row, official=subset)
        for row, (label, subset) in enumerate(
            zip(all_labels.tolist(), official_subsets, strict=True)
        )
    ]
    sorted_names, sorted_entries = sorted_by_class(entries, path, least_classes)
    starts = np.cumsum([0, *map(len, labels.values())]).tolist()
    subsets = tuple((starts[i], f"{subset}_images") for i, subset in enumerate(labels))
    return NpzSource(path, sorted_names, sorted_entries, formats, subsets=subsets)


def _read_labels(path: Path) -> dict[str, np.ndarray]:
    """The labels of each subset, after a check of its images' shape and dtype."""
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(f"Cannot read {path}: expected {_LAYOUT}, received no zip archive.")
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            subsets = [subset for subset in _SUBSETS if f"{subset}_images" in archive.files]
            if not subsets:
                raise DataError(f"{path}: expected {_LAYOUT}, received {archive.files}.")
            labels = {subset: _subset_labels(archive, subset, path) for subset in subsets}
        shapes = {subset: _shape_and_dtype(path, f"{subset}_images") for subset in subsets}
    except DataError:
        raise
    except Exception as error:  # as in NpzSource.opened
        reason = " ".join(str(error).split())
        raise DataError(
            f"Cannot read {path}: expected {_LAYOUT}, of plain arrays, received {reason}."
        ) from None
    for subset, (shape, dtype) in shapes.items():
        is_grey_or_rgb = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
        if dtype != np.uint8 or not is_grey_or_rgb or 0 in shape:
            raise DataError(
                f"{path}: {subset}_images: expected uint8 (n, height, width) or (n, height, width, "
                f"1 or 3), 0 to 255, received {dtype} {shape}; convert them."
            )
        if len(labels[subset]) != shape[0]:
            raise DataError(
                f"{path}: expected one label per image, received {shape[0]} {subset}_images and "
                f"{len(labels[subset])} labels; correct the archive."
            )
    return labels


def _label_names(labels: np.ndarray, class_names: list[str] | None, path: Path) -> dict[int, str]:
    """The name of each label that occurs; its digits, padded to equal width, without names."""
    last = len(class_names) - 1 if class_names else labels.max()
    if labels.min() < 0 or labels.max() > last:
        raise DataError(
            f"{path}: expected labels 0 to {last} (as many as data.class_names), received "
            f"{labels.min()} to {labels.max()}; name every class."
        )
    width = len(str(labels.max()))
    return {
        label: checked_label(class_names[label], str(path)) if class_names else f"{label:0{width}d}"
        for label in set(labels.tolist())
    }


def _subset_labels(archive, subset: str, path: Path) -> np.ndarray:
    labels = np.asarray(archive[f"{subset}_labels"])
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    are_whole = flat.ndim == 1 and flat.dtype.kind in "iuf" and bool(np.all(np.abs(flat) < 2**53))
    are_whole = are_whole and bool(np.all(np.mod(flat, 1) == 0))
    if not are_whole or not len(flat):
        raise DataError(
            f"{path}: {subset}_labels: expected one whole number per image, received "
            f"{labels.dtype} {labels.shape}; sets with several labels per image are not supported."
        )
    return flat.astype(np.int64)


def _shape_and_dtype(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array in the archive, from its header only."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, is_fortran, dtype = readers[version[0]](stream)
    if is_fortran and len(shape) > 1:
        raise DataError(
            f"{path}: {name}: expected C order, received Fortran order; save it with "
            "numpy.ascontiguousarray."
        )
    return shape, dtype
