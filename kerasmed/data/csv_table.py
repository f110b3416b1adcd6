"""Tables of images: a .csv with the columns path and label, and optionally patient and split."""

import csv
import os
from pathlib import Path

from kerasmed.data.entries import Entry, checked_label, sorted_by_class
from kerasmed.data.official import official_subset
from kerasmed.data.readers import EXPECTED, SUFFIXES, suffix_of
from kerasmed.errors import DataError

_COLUMNS = ("path", "label", "patient", "split")

# Columns by which test images are divided, in upper or lower case.
SUBGROUPS = ("sex", "age", "site", "device")


def list_table(path: Path, least_classes: int) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    """The class names and the entries of a table.

    Args:
        path: the .csv; its paths are relative to its folder.
        least_classes: smallest number of classes that is accepted.

    Raises:
        DataError: the table cannot be read, or names a missing file or one twice.
    """
    wanted = "a header with the columns path, label and perhaps patient and split, in UTF-8"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows = list(reader)
            header = list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read {path}: expected {wanted}, received {error}.") from None
    if not rows:
        raise DataError(f"{path} lists no image: expected {wanted} and one line per image.")
    if not {"path", "label"} <= set(header) or len(set(header)) < len(header):
        raise DataError(f"{path}: expected {wanted}, received the columns {header}; correct it.")
    entries: dict[Path, Entry] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{path}, image {number}"
        entry = _table_entry(path, row, where)
        if row.get(None):
            raise DataError(
                f"{where}: expected {len(header)} values, received more; "
                "put values that contain a comma in quotation marks."
            )
        if entry.path.resolve() in entries:
            raise DataError(f"{path} lists {entry.path} twice: expected each once; remove one.")
        entries[entry.path.resolve()] = entry
    return sorted_by_class(entries.values(), path, least_classes)


def subgroup_columns(path: Path) -> dict[str, dict[Path, str]]:
    """Values of the columns sex, age, site and device of a table, by the path of the image.

    Args:
        path: a .csv that ``list_table`` has read.
    """
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        named = {name.strip().lower(): name for name in reader.fieldnames or []}
        rows = list(reader)
    return {
        name: {path.parent / row["path"].strip(): (row[named[name]] or "").strip() for row in rows}
        for name in SUBGROUPS
        if name in named
    }


def _table_entry(table: Path, row: dict[str, str | None], where: str) -> Entry:
    values = {name: (row.get(name) or "").strip() for name in _COLUMNS if name in row}
    split = values.pop("split", "")  # optional; values that name no subset are ignored
    empty = [name for name, value in values.items() if not value]
    if empty:
        raise DataError(f"{where}: the column {empty[0]!r} is empty; fill it or remove the line.")
    path = table.parent / values["path"]
    if not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises on names too long)
        raise DataError(
            f"{where}: expected an image at {path} (paths are relative to the table), "
            "received no file; correct the path or remove the line."
        )
    if suffix_of(path) not in SUFFIXES:
        raise DataError(
            f"{where}: {path} has an unsupported file extension (supported: {EXPECTED}); convert "
            "it or remove the line."
        )
    label = checked_label(values["label"], where)
    return Entry(path, label, patient=values.get("patient"), official=official_subset(split))
