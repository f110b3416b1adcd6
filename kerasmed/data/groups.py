"""Which images belong together: copies of one another, one patient, one run of neighbours."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kerasmed.data.config import SplitConfig
from kerasmed.data.duplicates import Pairs, equal_pairs, linked_groups
from kerasmed.data.entries import relative_path
from kerasmed.data.image_set import ImageFile
from kerasmed.data.readers import SUFFIXES
from kerasmed.errors import DataError


def group_images(
    files: tuple[ImageFile, ...], duplicates: Pairs, settings: SplitConfig, root: Path
) -> list[str]:
    """The group of each image, transitively: what belongs to one belongs to all.

    Byte-identical files and the parts of one file always belong together, and so do the images of a
    patient whom the source names, unless ``split.patient`` is "ignore".

    Args:
        files: the images.
        duplicates: pairs of positions that were found to be copies.
        settings: what else keeps images together.
        root: what the paths that ``settings.pattern`` sees are relative to.

    Returns:
        For each image the least SHA-256 of its group, so that a group's name does not depend on
        what else is in the set.

    Raises:
        DataError: a path in which the pattern finds nobody.
    """
    links = [duplicates, equal_pairs(np.array([file.sha256 for file in files], np.bytes_))]
    links.append(_equal(_parts_of_one_file(files)))
    if settings.patient == "together":
        links.append(_equal(file.patient for file in files))
    if settings.group_by == "pattern":
        links.append(_equal(_named_patients(files, str(settings.pattern), root)))
    if settings.group_by == "neighbours":
        links.append(_equal(neighbour_runs(files, settings.run_length)))
    groups = linked_groups(np.concatenate(links), len(files)).tolist()
    names: dict[int, str] = {}
    for group, file in zip(groups, files, strict=True):
        names[group] = min(file.sha256, names.get(group, file.sha256))
    return [names[group] for group in groups]


def shared_patient(patients: Sequence[str | None], class_names: Sequence[str]) -> str | None:
    """Words for one patient whom a header or table names for most images, or for most of a class.

    That is what anonymisers leave behind: one name, or one study, for everybody.

    Args:
        patients: of each image; None or "" where nobody is named.
        class_names: of each image.

    Returns:
        Such as "All 48 images name one patient"; None where several are named.
    """
    named = np.array([patient or "" for patient in patients])
    classes = np.array(class_names)
    for name in (None, *np.unique(classes).tolist()):
        some = named[classes == name] if name is not None else named
        patient, counts = np.unique(some[some != ""], return_counts=True)
        if len(patient) and len(some) > 1 and counts.max() > _MOST * len(some):
            of_class = "" if name is None else f" of class {name!r}"
            all_of = "All" if counts.max() == len(some) else f"{counts.max()} of"
            return f"{all_of} {len(some)} images{of_class} name one patient"
    return None


IGNORE_PATIENT = "if that is a placeholder, set split.patient: ignore (--set split.patient=ignore)"
_MOST = 0.5


def _equal(keys: Iterable[str | None]) -> Pairs:
    """Pairs of equal keys; None equals nothing."""
    return equal_pairs(np.array([f"\0{i}" if key is None else key for i, key in enumerate(keys)]))


def _parts_of_one_file(files: tuple[ImageFile, ...]) -> list[str | None]:
    """Frames and slices show one patient; the rows of an .npz do not."""
    return [
        None if file.part is None or file.path.suffix.lower() == ".npz" else str(file.path)
        for file in files
    ]


def _named_patients(files: tuple[ImageFile, ...], pattern: str, root: Path) -> list[str]:
    found = []
    for file in files:
        path = relative_path(file.path, root)
        match = re.search(pattern, path.as_posix())
        if match is None or not match.group(1):
            raise DataError(
                f"split.pattern {pattern!r} finds nobody in {path.as_posix()!r}: expected a "
                "pattern that names the patient in every path; mend it."
            )
        found.append(match.group(1))
    return found


def neighbour_runs(files: tuple[ImageFile, ...], run_length: int) -> list[str]:
    """The run of each image: the last number in its name, divided by the run's length.

    Slices of a patient mostly follow one another, so a run holds few patients. By number and not by
    rank: a file that is added moves no other one to another run.
    """
    runs = []
    for file in files:
        # A DICOM name such as 1.2.840.7 has no ending to leave out.
        known = file.path.suffix.lower() in SUFFIXES
        stem = file.path.stem if known else file.path.name
        numbers = list(re.finditer(r"\d+", stem))
        if file.part is not None:
            series, number = str(file.path), file.part
        elif numbers:
            last = numbers[-1]
            rest = stem[: last.start()] + "#" + stem[last.end() :]
            series, number = f"{file.path.parent / rest}", int(last.group())
        else:
            series, number = str(file.path), 0
        runs.append(f"{series} {number // run_length}")
    return runs
