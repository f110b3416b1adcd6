"""The stage that reads the images and splits them."""

from collections import Counter
from pathlib import Path

import numpy as np
from typing_extensions import TypedDict

from kerasmed.data.config import DataConfig
from kerasmed.data.decoding import refuse_unreadable
from kerasmed.data.duplicates import find_duplicates
from kerasmed.data.entries import root_of
from kerasmed.data.examine import DuplicatesFound, describe_duplicates
from kerasmed.data.groups import IGNORE_PATIENT, group_images, shared_patient
from kerasmed.data.measurements import Measurements
from kerasmed.data.measuring import read_measurements
from kerasmed.data.phantoms import write_phantoms
from kerasmed.data.remarks import remarks
from kerasmed.data.sources import open_source
from kerasmed.data.splits import (
    ROLES,
    Role,
    Split,
    check_official_test,
    make_split,
    write_split,
)
from kerasmed.errors import DataError
from kerasmed.files import folder_written_aside
from kerasmed.result_types import Pair, Sha256
from kerasmed.settings import Count
from kerasmed.study.config import Config
from kerasmed.study.inputs import image_cache, load_images, real_source
from kerasmed.study.run_folder import RunFolder
from kerasmed.text import counted


class DataResult(TypedDict):
    """What ``run.json`` records of the images and their split."""

    data_hash: Sha256
    """Hash of all images and classes."""
    classes: list[str]
    """Names of the classes; a label is a position in this list."""
    images: dict[str, Count]
    """Number of images of each class."""
    roles: dict[Role, dict[str, Count]]
    """Number of images of each class in each role."""
    groups: Count
    """Number of groups of images that stay together."""
    largest_group: Count
    """Number of images of the largest one."""
    patients: Count | None
    """Number of patients; null where an image names none."""
    duplicates: DuplicatesFound
    """Copies and near-duplicates."""
    skipped: list[str]
    """Files that could not be read and were left out."""
    grey_range: Pair | None
    """Values shown black and white in files of more than 8 bits; null where none was needed."""
    remarks: list[str]
    """What a user should know, as sentences."""


def split_data(config: Config, run: RunFolder) -> DataResult:
    """Decode the images, or draw the phantoms, and write the split."""
    phantoms = config.data.phantoms
    if phantoms is not None:
        size = config.data.image_size
        with folder_written_aside(run.images) as folder:
            write_phantoms(folder, phantoms.family, phantoms.per_class, size, config.seed)
    source = real_source(config, run)
    listed = open_source(source)
    measurements = read_measurements(
        source, run.cache / "measurements", image_cache(config, run), listed
    )
    refuse_unreadable(measurements.unreadable.tolist(), source)
    measurements.refuse_empty(source)
    root = root_of(Path(str(source.source)))
    files = measurements.files(root)
    duplicates = find_duplicates(measurements, config.split.near_duplicate_bits)
    groups = group_images(files, duplicates.pairs, config.split, root)
    split = _split(measurements, groups, config)
    grey_range = measurements.common_range(split["train"])
    # Only a grey range that had to be found needs a second reading, of files listed anew.
    image_set = load_images(config, run, grey_range, listed if grey_range is None else None)
    if [file.name for file in image_set.files] != [file.name for file in files]:
        raise DataError(
            f"{source.source} changed while it was read: expected the same files on the second "
            "reading; run the command again."
        )
    write_split(run.split_path, image_set.files, groups, split)
    sizes = Counter(groups)
    patients = {file.patient for file in files}
    return {
        "data_hash": image_set.data_hash,
        "classes": list(image_set.class_names),
        "images": image_set.counts(),
        "roles": {role: image_set.counts(split[role]) for role in ROLES},
        "groups": len(sizes),
        "largest_group": max(sizes.values()),
        "patients": None if None in patients else len(patients),
        "duplicates": describe_duplicates(measurements, duplicates),
        "skipped": list(image_set.skipped),
        "grey_range": grey_range and list(grey_range),
        "remarks": [
            *remarks(measurements, grey_range, source, config.split),
            *_moved_to_test(measurements, split, source),
        ],
    }


def _split(measurements: Measurements, groups: list[str], config: Config) -> Split:
    """The roles; an error explains if the patients named in the files prevent a split.

    Raises:
        DataError: too few groups.
    """
    names, labels = np.unique(measurements.classes, return_inverse=True)
    class_names = tuple(names.tolist())
    official_test = None
    if config.data.official_split == "keep":
        official_test = np.flatnonzero(measurements.official == "test")
        check_official_test(labels[official_test], class_names)
    try:
        return make_split(labels, groups, class_names, config.split, config.seed, official_test)
    except DataError as error:
        named = set(measurements.patients.tolist()) - {""}
        if config.split.patient == "ignore" or not named:
            raise
        images = counted(len(measurements), "image")
        shared = shared_patient(measurements.patients.tolist(), measurements.classes.tolist())
        shared = shared or f"The {images} name only {counted(len(named), 'patient')}"
        raise DataError(f"{shared}, so they cannot be split; {IGNORE_PATIENT}. {error}") from None


def _moved_to_test(measurements: Measurements, split: Split, data: DataConfig) -> list[str]:
    others = (measurements.official[split["test"]] != "test").sum()
    if data.official_split != "keep" or not others:
        return []
    return [
        f"{counted(int(others), 'image')} outside the official test set: copies of its images, or "
        "images of the same patients. They have the role `test` too."
    ]
