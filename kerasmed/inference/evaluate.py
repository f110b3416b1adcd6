"""A single ONNX file tested on images that belong to no study."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kerasmed.data.config import DataConfig, Formats, SplitConfig
from kerasmed.data.entries import root_of
from kerasmed.data.groups import IGNORE_PATIENT, group_images, shared_patient
from kerasmed.data.image_set import ImageSet, read_images
from kerasmed.data.official import OfficialSubset
from kerasmed.data.remarks import masks_line, note_lines
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.metrics.classification import classification_metrics
from kerasmed.progress import say
from kerasmed.text import counted


def evaluate_folder(
    model: Path,
    directory: Path,
    data: DataConfig | None = None,
    split: SplitConfig | None = None,
    grey_range: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Metrics of a classifier file on labelled images from elsewhere.

    The images' classes must have the names of the model's classes. Some of these may be missing,
    see ``classification_metrics``. Intervals are over groups, as in a study, as far as the files
    show what belongs together: patients of DICOM, slices of a volume, equal bytes.

    Args:
        model: the classifier file.
        directory: a folder of class folders, a ``.csv`` or an ``.npz``.
        data: how ``directory`` is read; size and formats are always the model's.
        split: what belongs together.
        grey_range: see ``OnnxClassifier``.

    Returns:
        The result of ``classification_metrics``, and entries of the model's metadata.

    Raises:
        DataError: classes that the model does not have, or numbers for which it has no names.
    """
    engine = OnnxClassifier(model, grey_range=grey_range)
    split = split or SplitConfig()
    data = _with_settings_of(engine, data or DataConfig(source=directory), directory)
    with TemporaryDirectory(ignore_cleanup_errors=True) as cache:  # Windows: a memory map is open
        images = read_test_images(data, split, engine.class_names, Path(cache) / "images")
        metrics = classification_metrics(
            engine.predict(images.images), images.labels, engine.class_names, groups=images.groups
        )
    keys = ("backbone", "precision", "trained_on", "variant", "seed", "n_train")
    return {key: engine.metadata.get(key) for key in keys} | metrics


def read_test_images(
    data: DataConfig, split: SplitConfig, class_names: Sequence[str], cache: Path
) -> ImageSet:
    """Labelled images from elsewhere, to test CNNs on: with these classes and with groups.

    Args:
        data: where they are and how they are read.
        split: what belongs together.
        class_names: classes of the CNNs; the set may lack some.
        cache: path without suffix for the decoded images.

    Raises:
        DataError: other classes, or another layout.
    """
    label_of = {name: label for label, name in enumerate(class_names)}
    subset: OfficialSubset | None = "test" if data.official_split == "keep" else None
    listed = open_source(data, least_classes=1)
    subsets = {entry.official for entry in listed.entries} - {None}
    if subset is None and "test" in subsets and len(subsets) > 1:
        say(
            f"{data.source} has its own split, and all its images are tested; set "
            "data.official_split: keep to test only its test images."
        )
    images = read_images(data, cache, "", least_classes=1, subset=subset)
    if unknown := [name for name in images.class_names if name not in label_of]:
        raise DataError(
            f"{data.source}: expected classes of the model, {list(class_names)}, received also "
            f"{unknown}; rename or remove them, or give the folder that holds its classes."
        )
    _say_remarks(images, split)
    no_pairs = np.empty((0, 2), np.int64)  # only equal bytes count as copies
    groups = group_images(images.files, no_pairs, split, root_of(listed.path))
    return replace(
        images,
        labels=np.array([label_of[name] for name in images.class_names])[images.labels],
        class_names=tuple(class_names),
        groups=np.array(groups),
    )


def _with_settings_of(engine: OnnxClassifier, data: DataConfig, directory: Path) -> DataConfig:
    """The settings of the data with the model's image size, formats and class names."""
    formats = Formats.model_validate(engine.formats)
    return data.model_copy(
        update={
            "class_names": _names_of_numbers(engine) if _is_archive(directory) else None,
            "image_size": engine.input_size,
            **{name: getattr(formats, name) for name in Formats.model_fields},
        }
    )


def _say_remarks(images: ImageSet, split: SplitConfig) -> None:
    """Print a line for everything that is left out of a set or makes its figures doubtful."""
    lines = [masks_line(images.masks, []), *note_lines(images.notes)]
    if images.skipped:
        files = counted(len(images.skipped), "file")
        lines.append(f"Left out as unreadable: {files}, such as: {images.skipped[0]}")
    patients = [file.patient for file in images.files]
    classes = [file.class_name for file in images.files]
    if split.patient == "together" and (shared := shared_patient(patients, classes)):
        lines.append(f"{shared}, so the intervals mean little; {IGNORE_PATIENT}.")
    for line in filter(None, lines):
        say(line)


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".npz" and path.is_file()


def _names_of_numbers(engine: OnnxClassifier) -> list[str]:
    """Names of the classes that the labels 0, 1, ... of an .npz stand for.

    Raises:
        DataError: the model's file does not say.
    """
    if names := engine.metadata.get("data_class_names"):
        return names
    if not all(name.isdecimal() for name in engine.class_names):
        raise DataError(
            f"{engine.path}: expected a model of numbered classes or one trained on an .npz, since "
            f"an .npz has numbers for labels; received the classes {engine.class_names}; give a "
            ".csv or a folder of class folders."
        )
    by_number = {int(name): name for name in engine.class_names}
    return [by_number.get(number, str(number)) for number in range(max(by_number) + 1)]
