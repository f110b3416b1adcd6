"""What a receiver can check without the study: marks, checksums, cards, leftovers."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasmed.data.marks import SOURCE_TYPE, Mark, fields_of, mark_of
from kerasmed.errors import MachineError, StageError
from kerasmed.files import sha256_of
from kerasmed.study.release.cards import CROISSANT, MARKDOWN

_LISTED = ("labels.csv", "provenance.json", CROISSANT, *MARKDOWN)
# Absolute paths of the usual systems, and addresses of files.
_PATH = re.compile(
    r"(?<![\w./:])(?:/(?:home|root|Users|tmp|var|mnt|media|data|opt|srv|scratch|work)/[\w.-]+"
    r"|[A-Za-z]:\\[\w.-]+|file://|\\\\[\w.-]+\\)"
)


def check_release(folder: Path) -> list[str]:
    """Problems of a folder that ``release`` wrote, one line each; none if all is well.

    It looks for missing and changed files, unmarked images, images of another set, metadata that a
    release does not write, cards that cannot be read, and paths of somebody's machine.

    Args:
        folder: the release.

    Raises:
        StageError: it is no release.
    """
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        raise StageError(
            f"{folder}: expected a folder that `kerasmed release` wrote, with SHA256SUMS; name one."
        )
    return [*_sums(folder, sums), *_cards(folder), *_images(folder), *_paths(folder)]


def _sums(folder: Path, sums: Path) -> Iterator[str]:
    listed: dict[str, str] = {}
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    there = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path != sums
    }
    for name in sorted(listed.keys() - there):
        yield f"{name}: listed in SHA256SUMS and missing"
    for name in sorted(there - listed.keys()):
        yield f"{name}: not listed in SHA256SUMS"
    for name in sorted(there & listed.keys()):
        if sha256_of(folder / name) != listed[name]:
            yield f"{name}: changed since the release"


def _cards(folder: Path) -> Iterator[str]:
    for name in _LISTED:
        if not (folder / name).is_file():
            yield f"{name}: missing"
    for name in (CROISSANT, "provenance.json"):
        if (folder / name).is_file() and not isinstance(_json(folder / name), dict):
            yield f"{name}: not readable as JSON"
    for path in sorted(folder.glob("models/*.onnx")):
        if not path.with_suffix(".md").is_file():
            yield f"models/{path.name}: without a model card"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _images(folder: Path) -> Iterator[str]:
    card = _json(folder / CROISSANT) if (folder / CROISSANT).is_file() else None
    set_id = card.get("identifier") if isinstance(card, dict) else None
    there = sorted(path for path in (folder / "images").rglob("*") if path.is_file())
    labels: list[str] = []
    if (folder / "labels.csv").is_file():
        with (folder / "labels.csv").open(newline="", encoding="utf-8", errors="replace") as file:
            labels = [row[0] for row in list(csv.reader(file))[1:] if row]
    names = {path.relative_to(folder).as_posix() for path in there}
    for name in sorted(names ^ set(labels)):
        what = "without a label" if name in names else "in labels.csv, and missing"
        yield f"{name}: {what}"
    numbers: dict[str, str] = {}
    for path in there:
        name = path.relative_to(folder).as_posix()
        read = {".png": _of_png, ".dcm": _of_dicom}.get(path.suffix)
        found = "not an image that a release writes" if read is None else read(path)
        if isinstance(found, str):
            yield f"{name}: {found}"
            continue
        of_set, number = found
        if of_set != set_id:
            yield f"{name}: marked as of the set {of_set}, expected {set_id}"
        if number in numbers:
            yield f"{name}: has the number of {numbers[number]}"
        numbers[number] = name


def _of_png(path: Path) -> tuple[str, str] | str:
    """Set and number of an image, or what is wrong with it."""
    try:
        mark = mark_of(path)
        with Image.open(path) as image:
            image.load()  # fields may follow the pixels
            fields = {str(key): value for key, value in image.info.items()}
            if image.getexif():
                fields["EXIF"] = ""
    except Exception as error:  # decoders raise any kind of exception on broken files
        return f"not readable ({type(error).__name__})"
    if mark is None:
        return "not marked as synthetic"
    expected = fields_of(mark)
    fields.pop("xmp", None)  # Pillow's second name of the XMP packet
    other = sorted(
        name for name in fields.keys() | expected if fields.get(name) != expected.get(name)
    )
    if other:
        return f"holds metadata that a release does not write: {', '.join(other)}"
    return mark.set_id, mark.number


def _of_dicom(path: Path) -> tuple[str, str] | str:
    """Set and number of an image, or what is wrong with it."""
    try:
        import pydicom
    except ImportError:
        raise MachineError(
            f"Cannot read {path}: DICOM files need the package pydicom; "
            "run pip install 'kerasmed[medical]'."
        ) from None
    from pydicom.datadict import keyword_for_tag

    from kerasmed.study.release.dicom import dicom_of

    try:
        dataset = pydicom.dcmread(path)
        if dataset.get("SyntheticData") != "YES":
            return "not marked as synthetic"
        of_set, _, number = str(dataset.get("PatientID", "")).rpartition("-")
        pixels = dataset.pixel_array
        pixels = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
        expected = dicom_of(pixels, Mark(str(dataset.get("Manufacturer", "")), of_set, number))
        pairs = ((dataset, expected), (dataset.file_meta, expected.file_meta))
        other = sorted(
            keyword_for_tag(tag) or str(tag)
            for own, written in pairs
            for tag in own.keys() | written.keys()
            if tag.element and own.get(tag) != written.get(tag)
        )
    except Exception as error:
        return f"not readable ({type(error).__name__})"
    if other:
        return f"holds elements that a release does not write: {', '.join(other)}"
    return of_set, number


def _paths(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".md", ".json", ".csv") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace").replace(SOURCE_TYPE, "")
        if found := _PATH.search(text):
            yield f"{path.relative_to(folder).as_posix()}: names a path, {found[0]!r}"
