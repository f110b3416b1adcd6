"""Which images belong together: copies of one another, one patient, one run of neighbours."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kerasmed.data.config import SplitConfig
from kerasmed.data.duplicates import Pairs, equal_pairs, linked_groups
from kerasmed.data.entries import relative_path
from kerasmed.data.image_file import ImageFile
from kerasmed.data.readers import SUFFIXES
from kerasmed.errors import DataError

IGNORE_PATIENT = "if that is a placeholder, set split.patient: ignore (--set split.patient=ignore)"
# Fraction of the images above which one patient looks like a placeholder.
_MOST = 0.5


def group_images(
    files: tuple[ImageFile, ...], duplicates: Pairs, settings: SplitConfig, root: Path
) -> list[str]:
    """The group of each image, linked transitively.

    Byte-identical files and the frames of one file always belong together. So do the images of a
    patient whom the source names, unless ``split.patient`` is "ignore".

    Args:
        files: the images.
        duplicates: pairs of positions of copies.
        settings: what else keeps images together.
        root: folder that the paths matched by ``settings.pattern`` are relative to.

    Returns:
        For each image the smallest SHA-256 of its group. So a group's name does not depend on the
        other images of the set.

    Raises:
        DataError: the pattern finds no patient in a path.
    """
    links = [duplicates, equal_pairs(np.array([file.sha256 for file in files], np.bytes_))]
    links.append(_pairs_of_equal(_frames_of_one_file(files)))
    if settings.patient == "together":
        links.append(_pairs_of_equal(file.patient for file in files))
    if settings.group_by == "pattern":
        links.append(_pairs_of_equal(named_patients(files, str(settings.pattern), root)))
    if settings.group_by == "neighbours":
        links.append(_pairs_of_equal(neighbour_runs(files, settings.run_length)))
    groups = linked_groups(np.concatenate(links), len(files)).tolist()
    names: dict[int, str] = {}
    for group, file in zip(groups, files, strict=True):
        names[group] = min(file.sha256, names.get(group, file.sha256))
    return [names[group] for group in groups]


def shared_patient(patients: Sequence[str | None], class_names: Sequence[str]) -> str | None:
    """A sentence about one patient named for most images of the set or of a class.

    Anonymisers leave this behind: one name, or one study, for every patient.

    Args:
        patients: patient of each image; None or "" if none is named.
        class_names: class of each image.

    Returns:
        Such as "All 48 images name one patient"; None if no patient has most images.
    """
    all_patients = np.array([patient or "" for patient in patients])
    classes = np.array(class_names)
    for name in (None, *np.unique(classes).tolist()):
        class_patients = all_patients[classes == name] if name is not None else all_patients
        named, counts = np.unique(class_patients[class_patients != ""], return_counts=True)
        if len(named) and len(class_patients) > 1 and counts.max() > _MOST * len(class_patients):
            of_class = "" if name is None else f" of class {name!r}"
            all_of = "All" if counts.max() == len(class_patients) else f"{counts.max()} of"
            return f"{all_of} {len(class_patients)} images{of_class} name one patient"
    return None


def _pairs_of_equal(keys: Iterable[str | None]) -> Pairs:
    """Pairs of positions with equal keys; None equals nothing."""
    return equal_pairs(np.array([f"\0{i}" if key is None else key for i, key in enumerate(keys)]))


def _frames_of_one_file(files: tuple[ImageFile, ...]) -> list[str | None]:
    """The path of each image from a file of several; None for the rows of an .npz.

    Frames and slices of a file show one patient, unlike the rows of an .npz.
    """
    return [
        None if file.frame is None or file.path.suffix.lower() == ".npz" else str(file.path)
        for file in files
    ]


def named_patients(files: tuple[ImageFile, ...], pattern: str, root: Path) -> list[str]:
    """The patient of each image, whom ``split.pattern`` finds in its path.

    Raises:
        DataError: the pattern finds no patient in a path.
    """
    patients = []
    for file in files:
        path = relative_path(file.path, root)
        match = re.search(pattern, path.as_posix())
        if match is None or not match.group(1):
            raise DataError(
                f"split.pattern {pattern!r} finds no patient in {path.as_posix()!r}: expected a "
                "pattern that names the patient in every path; correct it."
            )
        patients.append(match.group(1))
    return patients


def neighbour_runs(files: tuple[ImageFile, ...], run_length: int) -> list[str]:
    """The run of each image: the last number in its name, divided by the run's length.

    Slices of a patient mostly follow one another, so a run holds few patients. Runs go by number
    and not by rank, so an added file moves no other file to another run.
    """
    runs = []
    for file in files:
        # A DICOM name such as 1.2.840.7 has no suffix to remove.
        has_suffix = file.path.suffix.lower() in SUFFIXES
        stem = file.path.stem if has_suffix else file.path.name
        numbers = list(re.finditer(r"\d+", stem))
        if file.frame is not None:
            series, number = str(file.path), file.frame
        elif numbers:
            last = numbers[-1]
            rest = stem[: last.start()] + "#" + stem[last.end() :]
            series, number = f"{file.path.parent / rest}", int(last.group())
        else:
            series, number = str(file.path), 0
        runs.append(f"{series} {number // run_length}")
    return runs
