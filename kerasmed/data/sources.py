"""What a user's archive holds, before any pixel is read: folder of class folders, CSV or .npz."""

import csv
import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from kerasmed.config import DataConfig
from kerasmed.data.readers import EXPECTED, SUFFIXES, Formats, Picture, read_pictures, suffix_of
from kerasmed.errors import DataError
from kerasmed.files import sha256_of

LAYOUT = "a folder with one folder of images for each class"
# Files that operating systems leave in folders of images.
_LITTER = frozenset({"thumbs.db", "desktop.ini"})
_COLUMNS = ("path", "label", "patient")
_NPZ_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Entry:
    """A file of a source, or a row of an .npz, with its class."""

    path: Path
    class_name: str
    row: int | None = None
    patient: str | None = None


# SHA-256 (of the pixels' bytes in an .npz, else of the file's) and image, for each of an entry; the
# number is a size below twice which a JPEG need not be decoded.
Read = Callable[[Entry, int | None], Iterator[tuple[str, Picture]]]


@dataclass(frozen=True)
class Source:
    """Files with their classes.

    Attributes:
        path: the folder, table or archive that the user named.
        class_names: sorted.
        entries: in the order in which their images will stand.
        formats: choices for DICOM and NIfTI.
    """

    path: Path
    class_names: tuple[str, ...]
    entries: tuple[Entry, ...]
    formats: Formats

    @property
    def root(self) -> Path:
        """What the entries' paths are relative to in manifests."""
        return root_of(self.path)

    def files(self) -> list[Path]:
        """Every file that decides what the images are."""
        own = [] if self.path.is_dir() else [self.path]
        return own + [entry.path for entry in self.entries if entry.row is None]

    @contextmanager
    def opened(self, scratch: Path) -> Iterator[Read]:
        """A function that yields SHA-256 and image, for each image of an entry.

        Args:
            scratch: a folder for what must be unpacked until the block ends.
        """
        yield self._read_file

    def _read_file(self, entry: Entry, draft_size: int | None) -> Iterator[tuple[str, Picture]]:
        try:
            digest = sha256_of(entry.path)
        except OSError as error:
            raise DataError(
                f"Cannot read {entry.path}: {error.strerror}; mend its permissions or remove it."
            ) from None
        for picture in read_pictures(entry.path, self.formats, draft_size):
            own = digest
            if picture.part is not None:
                own = hashlib.sha256(f"{digest} {picture.part}".encode()).hexdigest()
            yield own, picture


def root_of(source: Path) -> Path:
    """The folder that a source's files are named from: itself, or where the table lies."""
    return source if source.is_dir() else source.parent


def open_source(data: DataConfig) -> Source:
    """The files that ``data.source`` names, listed and checked, none of them decoded.

    Raises:
        DataError: it is not there, or not laid out as it must be.
    """
    path = data.source
    if path is None:
        raise AssertionError("phantoms are written before they are read")
    formats = Formats(dicom=data.dicom, nifti=data.nifti)
    suffix = path.suffix.lower()
    if path.is_dir():
        names, entries = _list_class_folders(path)
        return Source(path, names, entries, formats)
    if not path.exists():
        raise DataError(
            f"Nothing at {path}: expected {LAYOUT}, a .csv or an .npz; mend the path, or get a "
            "known set with `kerasmed data fetch`."
        )
    if suffix == ".csv":
        names, entries = _list_table(path)
        return Source(path, names, entries, formats)
    if suffix == ".npz":
        return _open_npz(path, data.class_names, formats)
    raise DataError(f"{path}: expected {LAYOUT}, a .csv or an .npz, received a {suffix} file.")


def count_class_folders(directory: Path) -> dict[str, int]:
    """Files of each class folder, as ``open_source`` would list them.

    Raises:
        DataError: the folder is not there, or not laid out as it must be.
    """
    source = open_source(DataConfig(source=directory))
    counts = Counter(entry.class_name for entry in source.entries)
    return {name: counts[name] for name in source.class_names}


def _list_class_folders(directory: Path) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    children = sorted(directory.iterdir())
    stray = [path for path in children if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    if stray:
        raise DataError(
            f"{stray[0]} lies outside the class folders ({len(stray)} such): expected {LAYOUT}; "
            "move them into a class folder or out."
        )
    classes = [path for path in children if path.is_dir() and not path.name.startswith(".")]
    if len(classes) < 2:
        raise DataError(
            f"{directory} has {len(classes)} class folder{'s' * (len(classes) != 1)}: expected "
            f"{LAYOUT}, at least two; received {[path.name for path in classes]}."
        )
    entries = []
    for folder in classes:
        files = sorted(_walk(folder))
        foreign = [path for path in files if suffix_of(path) not in SUFFIXES]
        if foreign:
            raise DataError(
                f"{foreign[0]} is no image by its name ({len(foreign)} such in {folder}): expected "
                f"{EXPECTED}; move them out of the class folder."
            )
        if not files:
            raise DataError(
                f"Class folder {folder} is empty: expected at least one image; "
                "add images or remove the folder."
            )
        entries += [Entry(path, folder.name) for path in files]
    return tuple(path.name for path in classes), tuple(entries)


def _walk(folder: Path) -> Iterator[Path]:
    """Files at any depth, through links to folders too, each folder once."""
    seen: set[str] = set()
    for directory, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        real = os.path.realpath(directory)
        if real in seen:  # a link to a folder above it, or a second link to the same one
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(directory, name)
            if name.startswith(".") or name.lower() in _LITTER:
                continue
            if not path.is_file():
                what = "a link to nothing" if path.is_symlink() else "no regular file"
                raise DataError(f"{path} is {what}: expected an image; remove it.")
            yield path


def _refuse_folder(error: OSError) -> None:
    raise DataError(f"Cannot open the folder {error.filename}: {error.strerror}; mend it.")


def _list_table(path: Path) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    wanted = "a header with the columns path, label and perhaps patient, in UTF-8"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
            header = list(rows[0]) if rows else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read {path}: expected {wanted}, received {error}.") from None
    if not rows:
        raise DataError(f"{path} lists no image: expected {wanted} and one line an image.")
    if not {"path", "label"} <= set(header):
        raise DataError(f"{path}: expected {wanted}, received the columns {header}; mend it.")
    entries: dict[Path, Entry] = {}
    for number, row in enumerate(rows, start=2):
        entry = _table_entry(path, row, f"{path}, image {number - 1}")
        if entry.path in entries:
            raise DataError(f"{path} lists {entry.path} twice: expected each once; remove one.")
        entries[entry.path] = entry
    return _sorted_by_class(entries.values(), path)


def _table_entry(table: Path, row: dict[str, str | None], where: str) -> Entry:
    values = {name: (row.get(name) or "").strip() for name in _COLUMNS if name in row}
    empty = [name for name, value in values.items() if not value]
    if empty:
        raise DataError(f"{where}: the column {empty[0]!r} is empty; fill it or remove the line.")
    path = table.parent / values["path"]
    if not path.is_file():
        raise DataError(
            f"{where}: expected an image at {path} (paths are relative to the table), "
            "received no file; mend the path or remove the line."
        )
    if suffix_of(path) not in SUFFIXES:
        raise DataError(f"{where}: {path} is no image by its name: expected {EXPECTED}.")
    return Entry(path, _class_name(values["label"], where), patient=values.get("patient"))


def _class_name(label: str, where: str) -> str:
    """A label that can be the name of a folder, since synthetic images will lie in one."""
    if label.startswith(".") or any(sign in label for sign in '/\\:*?"<>|\0\n\r'):
        raise DataError(
            f"{where}: expected a label that can name a folder, received {label!r}; rename it."
        )
    return label


def _sorted_by_class(
    entries: Iterable[Entry], path: Path
) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    names = tuple(sorted({entry.class_name for entry in entries}))
    if len(names) < 2:
        raise DataError(f"{path}: expected at least two classes, received {list(names)}.")
    return names, tuple(sorted(entries, key=lambda entry: entry.class_name))


@dataclass(frozen=True)
class _NpzSource(Source):
    """An .npz laid out as MedMNIST's: `train_images`, `train_labels`, and so on for val, test."""

    # First row of each part, and the name of its images.
    parts: tuple[tuple[int, str], ...] = ()

    @contextmanager
    def opened(self, scratch: Path) -> Iterator[Read]:
        with TemporaryDirectory(dir=scratch) as folder, zipfile.ZipFile(self.path) as archive:
            # Memory maps over an unpacked copy, so that memory stays bounded.
            parts = [
                (first, np.load(archive.extract(f"{name}.npy", folder), mmap_mode="r"))
                for first, name in self.parts
            ]

            def read(entry: Entry, draft_size: int | None) -> Iterator[tuple[str, Picture]]:
                row = entry.row or 0
                first, images = next(part for part in reversed(parts) if part[0] <= row)
                pixels = np.asarray(images[row - first])
                digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
                image = Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
                yield digest, Picture(image.convert("RGB"), f"npz {image.mode}", row)

            yield read


def _open_npz(path: Path, class_names: list[str] | None, formats: Formats) -> Source:
    wanted = "an .npz with train_images and train_labels (and val_, test_), as MedMNIST has them"
    try:
        with np.load(path, allow_pickle=False) as archive:
            parts = [part for part in _NPZ_PARTS if f"{part}_images" in archive.files]
            if not parts:
                raise DataError(f"{path}: expected {wanted}, received {archive.files}.")
            labels = [_npz_labels(archive, part, path) for part in parts]
        shapes = [_npz_shape(path, f"{part}_images") for part in parts]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
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
        label: _class_name(class_names[label], str(path)) if class_names else f"{label:0{width}d}"
        for label in set(every.tolist())
    }
    entries = [Entry(path, names[label], row) for row, label in enumerate(every.tolist())]
    sorted_names, sorted_entries = _sorted_by_class(entries, path)
    starts = np.cumsum([0] + [len(found) for found in labels]).tolist()
    named = tuple((starts[i], f"{part}_images") for i, part in enumerate(parts))
    return _NpzSource(path, sorted_names, sorted_entries, formats, named)


def _npz_labels(archive, part: str, path: Path) -> np.ndarray:
    labels = np.asarray(archive[f"{part}_labels"])
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    whole = flat.ndim == 1 and flat.dtype.kind in "iuf" and bool(np.all(np.mod(flat, 1) == 0))
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
