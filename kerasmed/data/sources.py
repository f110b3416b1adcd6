"""What a user's archive holds, before any pixel is read: folder of class folders, CSV or .npz."""

import csv
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kerasmed.config import DataConfig, Formats
from kerasmed.data.entries import Entry, Source, checked_label, sorted_by_class
from kerasmed.data.npz import open_npz
from kerasmed.data.readers import EXPECTED, SUFFIXES, suffix_of
from kerasmed.errors import DataError

LAYOUT = "a folder with one folder of images for each class"
# Files that operating systems leave in folders of images.
_LITTER = frozenset({"thumbs.db", "desktop.ini"})
# Folders of archives that come divided.
_PARTS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
_COLUMNS = ("path", "label", "patient")


class OutsideSet(DataConfig):
    """Images on which a finished model is tested; they may lack some of its classes."""


def open_source(data: DataConfig) -> Source:
    """The files that ``data.source`` names, listed and checked, none of them decoded.

    At least two classes are needed; of an ``OutsideSet``, one.

    Raises:
        DataError: it is not there, or not laid out as it must be.
    """
    if data.source is None:
        raise AssertionError("phantoms are written before they are read")
    formats = Formats(dicom=data.dicom, nifti=data.nifti)
    least_classes = 1 if isinstance(data, OutsideSet) else 2
    try:
        return _open(data.source, data.class_names, formats, least_classes)
    except OSError as error:
        raise DataError(
            f"Cannot read {error.filename or data.source}: {error.strerror}; mend it."
        ) from None


def _open(
    path: Path, class_names: list[str] | None, formats: Formats, least_classes: int
) -> Source:
    suffix = path.suffix.lower()
    if path.is_dir():
        names, entries = _list_class_folders(path, least_classes)
        return Source(path, names, entries, formats)
    if not path.exists():
        raise DataError(
            f"Nothing at {path}: expected {LAYOUT}, a .csv or an .npz; mend the path, or get a "
            "known set with `kerasmed data fetch`."
        )
    if suffix == ".csv" and path.is_file():
        names, entries = _list_table(path, least_classes)
        return Source(path, names, entries, formats)
    if suffix == ".npz" and path.is_file():
        return open_npz(path, class_names, formats, least_classes)
    raise DataError(f"{path}: expected {LAYOUT}, a .csv or an .npz, received {path.name!r}.")


def count_class_folders(directory: Path) -> dict[str, int]:
    """Files of each class folder, as ``open_source`` would list them.

    Raises:
        DataError: the folder is not there, or not laid out as it must be.
    """
    source = open_source(DataConfig(source=directory))
    counts = Counter(entry.class_name for entry in source.entries)
    return {name: counts[name] for name in source.class_names}


def _list_class_folders(
    directory: Path, least_classes: int
) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    children = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    for path in children:
        if path.is_symlink() and not path.exists():
            raise DataError(f"{path} is a link to nothing: expected a class folder; remove it.")
    stray = [path for path in children if path.is_file() and suffix_of(path) in SUFFIXES]
    if stray:
        raise DataError(
            f"{stray[0]} lies outside the class folders ({len(stray)} such): expected {LAYOUT}; "
            "move them into a class folder or out."
        )
    classes = [path for path in children if path.is_dir()]
    if len(classes) < least_classes:
        raise DataError(
            f"{directory} has {len(classes)} class folder{'s' * (len(classes) != 1)}: expected "
            f"{LAYOUT}, at least {('one', 'two')[least_classes - 1]}; received "
            f"{[path.name for path in classes]}."
        )
    names = [path.name for path in classes]
    if all(name.lower() in _PARTS for name in names):
        raise DataError(
            f"{directory} holds {', '.join(names)}, which are parts of a set and no classes: "
            f"expected {LAYOUT}; give one of them, or a .csv that lists the images of all."
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
    return tuple(names), tuple(entries)


def _walk(folder: Path) -> Iterator[Path]:
    """Files at any depth, through links to folders too, each folder once."""
    # A link that leads above the class would bring in the other classes.
    seen = {str(above) for above in Path(os.path.realpath(folder)).parents}
    for directory, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        real = os.path.realpath(directory)
        if real in seen:  # a link to a folder above it, or a second link to the same one
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if name.startswith(".") or name.lower() in _LITTER:
                continue
            path = Path(directory, name)
            if not path.is_file():
                what = "a link to nothing" if path.is_symlink() else "no regular file"
                raise DataError(f"{path} is {what}: expected an image; remove it.")
            yield path


def _refuse_folder(error: OSError) -> None:
    raise DataError(f"Cannot open the folder {error.filename}: {error.strerror}; mend it.")


def _list_table(path: Path, least_classes: int) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    wanted = "a header with the columns path, label and perhaps patient, in UTF-8"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows = list(reader)
            header = list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read {path}: expected {wanted}, received {error}.") from None
    if not rows:
        raise DataError(f"{path} lists no image: expected {wanted} and one line an image.")
    if not {"path", "label"} <= set(header) or len(set(header)) < len(header):
        raise DataError(f"{path}: expected {wanted}, received the columns {header}; mend it.")
    entries: dict[Path, Entry] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{path}, image {number}"
        entry = _table_entry(path, row, where)
        if row.get(None):
            raise DataError(
                f"{where}: expected {len(header)} values, received more; "
                "put a value that has a comma into quotation marks."
            )
        if entry.path.resolve() in entries:
            raise DataError(f"{path} lists {entry.path} twice: expected each once; remove one.")
        entries[entry.path.resolve()] = entry
    return sorted_by_class(entries.values(), path, least_classes)


def _table_entry(table: Path, row: dict[str, str | None], where: str) -> Entry:
    values = {name: (row.get(name) or "").strip() for name in _COLUMNS if name in row}
    empty = [name for name, value in values.items() if not value]
    if empty:
        raise DataError(f"{where}: the column {empty[0]!r} is empty; fill it or remove the line.")
    path = table.parent / values["path"]
    if not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises on names too long)
        raise DataError(
            f"{where}: expected an image at {path} (paths are relative to the table), "
            "received no file; mend the path or remove the line."
        )
    if suffix_of(path) not in SUFFIXES:
        raise DataError(f"{where}: {path} is no image by its name: expected {EXPECTED}.")
    return Entry(path, checked_label(values["label"], where), patient=values.get("patient"))
