"""``kerasmed init``: look at a set of images, and write an experiment file for it."""

import re
import shlex
import textwrap
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kerasmed.classify.config import ClassifierConfig
from kerasmed.data.config import DataConfig, SplitConfig
from kerasmed.data.duplicates import Duplicates, find_duplicates
from kerasmed.data.entries import root_of
from kerasmed.data.examine import describe_duplicates, kinds_of, sizes_of
from kerasmed.data.groups import group_images
from kerasmed.data.image_set import ImageSet
from kerasmed.data.measurements import Measurements
from kerasmed.data.orientation import Orientation, measure_orientation
from kerasmed.data.patients import PatientPattern, find_patient_pattern
from kerasmed.data.remarks import remarks
from kerasmed.data.sources import open_source
from kerasmed.data.splits import make_split
from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.errors import ConfigError, DataError
from kerasmed.files import write_text
from kerasmed.runtime.hardware import cpu_cores, has_cuda_driver
from kerasmed.study.config import override, parse_config
from kerasmed.text import counted, printable

_WIDTH = 100
# Size at which the images are looked at.
_SIZE = 64
# From so many images on, the paper's fifth is enough to learn from.
_MANY, _TRAIN_OF_MANY, _TRAIN_OF_FEW = 5000, 0.2, 0.6
# The preset `small` learned more than `cpu` from so many images on.
_IMAGES_FOR_SMALL = 500
_TIMES_REAL = 3
# The answer on faithfulness needs so many groups of each class (configs/my_images.yaml).
_GROUPS_OF_CLASS = 100
# Images whose channels differ by less than this on average are grey, JPEG's errors included.
_GREY, _LOOKED_AT = 3.0, 500
# Speed of two CPU cores (docs/evidence/results.md): images that the training of a
# MobileNet at 160 pixels shows a second, seconds to draw an image, seconds of all other stages.
_SHOWN_PER_S, _S_PER_DRAW, _OTHER_S = 40, 0.06, 300


def default_path(source: Path) -> Path:
    """The experiment file of a source: ``scans.yaml`` in the working directory for ``a/scans``."""
    return Path(f"{_study_name(source)}.yaml")


def init(source: Path, path: Path, assignments: list[str] | None = None) -> list[str]:
    """Look at a set of images, and write an experiment file for it.

    Args:
        source: a folder of class folders, a .csv or an .npz.
        path: the experiment file.
        assignments: settings of the section ``data`` as ``key.path=value``; the file keeps them.

    Returns:
        What was found, and what the file sets because of it, as sentences.

    Raises:
        ConfigError: the file exists, or a setting is not valid.
        DataError: the source is missing, has another layout, or holds no image that can be read.
    """
    if path.exists():
        raise ConfigError(
            f"{path} exists: expected a new file; remove it, or choose another --out."
        )
    values = {"name": "init", "data": {"source": str(source)}}
    data = _of_divided_set(override(values, assignments, source="--set").data)
    images = ImageSet.from_directory(
        str(data.source), _SIZE, **{"on_bad_image": "skip"} | _given(data)
    )
    found, context = _look_at(images, data)
    context |= {"found": found, "file": shlex.quote(str(path)), "name": _study_name(source)}
    text = _rendered(context)
    parse_config(yaml.safe_load(text), str(path))
    write_text(path, text)
    shown = [*found, *context["patients"], context["orientation"], context["duration"]]
    return list(map(printable, shown))


def _study_name(source: Path) -> str:
    """The source's name without what a study's name may not have."""
    resolved = source.resolve()
    name = resolved.stem if resolved.is_file() else resolved.name
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-") or "study"


def _given(data: DataConfig, without: Iterable[str] = ()) -> dict[str, Any]:
    """The settings of the images that differ from the default, except for source and size."""
    excluded = {"source", "image_size", *without}
    return data.model_dump(mode="json", exclude_unset=True, exclude=excluded)


def _of_divided_set(data: DataConfig) -> DataConfig:
    """The settings, with ``official_split: merge`` if none is given for a split set."""
    if "official_split" in data.model_fields_set:
        return data
    merged = data.model_copy(update={"official_split": "merge"})
    try:
        source = open_source(data)
    except DataError:
        with suppress(DataError):
            open_source(merged)
            return merged
        raise
    return merged if any(entry.official for entry in source.entries) else data


def _look_at(images: ImageSet, data: DataConfig) -> tuple[list[str], dict[str, Any]]:
    """What was found in the images, as sentences, and what the template needs."""
    measurements = images.measurements
    if measurements is None:
        raise AssertionError("from_directory measures what it reads")
    duplicates = find_duplicates(measurements, SplitConfig().near_duplicate_bits)
    grey_range = measurements.common_range()
    grouping, patients = _patients(measurements)
    train = _TRAIN_OF_MANY if len(images) >= _MANY else _TRAIN_OF_FEW
    split = SplitConfig(train=train, **grouping)
    root = root_of(Path(str(data.source)))
    groups = np.array(group_images(measurements.files(root), duplicates.pairs, split, root))
    orientation = measure_orientation(images, groups)
    data = _suggested(data, measurements, orientation)
    training = [0.9 * train * count for count in images.counts().values()]
    is_small = has_cuda_driver() and sum(training) >= _IMAGES_FOR_SMALL
    diffusion = DiffusionConfig(preset="small" if is_small else "cpu")
    found = [
        *_contents(images, measurements, duplicates),
        _groups(images, groups),
        *(f"Note: {line}" for line in remarks(measurements, grey_range, data, split)),
        *_hindrance(images, groups, split),
    ]
    return found, {
        "data": data,
        "more": _block(_given(data, without={"symmetry", "official_split", "on_bad_image"})),
        "orientation": _orientation(orientation),
        "grey_range": grey_range,
        "split": split,
        "patients": patients,
        "diffusion": diffusion,
        "times_real": _TIMES_REAL,
        "train_on": ClassifierConfig().train_on,
        "duration": _duration(training, diffusion),
    }


def _suggested(
    data: DataConfig, measurements: Measurements, orientation: Orientation
) -> DataConfig:
    """The settings of the images, with suggestions for those that were not given."""
    appearance = measurements.appearance
    edge = np.median(np.minimum(appearance["width"], appearance["height"]))
    suggestions = {
        "image_size": _SIZE if edge > 0.75 * _SIZE else _SIZE // 2,
        "symmetry": orientation.symmetry,
        "on_bad_image": "skip" if len(measurements.unreadable) else "stop",
    }
    missing = suggestions.keys() - data.model_fields_set
    return data.model_copy(update={key: suggestions[key] for key in missing})


def _patients(measurements: Measurements) -> tuple[dict[str, Any], list[str]]:
    """Settings of the split that keep patients together, and sentences about them."""
    named = measurements.patients[measurements.patients != ""]
    patients, unnamed = len(np.unique(named)), len(measurements) - len(named)
    if patients > 1:
        rest = f" {unnamed:,} images name none and count as patients of their own." * (unnamed > 0)
        return {}, [f"Patients: {patients:,}, named by the table or the files' headers.{rest}"]
    settings: dict[str, Any] = {}
    lines = []
    if patients and not unnamed:
        settings["patient"] = "ignore"
        lines = ["All images name the same patient, which counts as a placeholder."]
    pattern = find_patient_pattern(*_files(measurements))
    if pattern is not None:
        settings |= {"group_by": "pattern", "pattern": pattern.pattern}
        return settings, lines + _described(pattern)
    own = "Each image, or file of several, counts as a patient of its own, except copies."
    return settings, [*lines, f"Patients: none named. {own}"]


def _files(measurements: Measurements) -> tuple[list[str], list[str]]:
    """The path of each file, and its class."""
    is_frame = measurements.frames >= 0
    paths = [
        name.rpartition("#")[0] if frame else name
        for name, frame in zip(measurements.names.tolist(), is_frame.tolist(), strict=True)
    ]
    classes = dict(zip(paths, measurements.classes.tolist(), strict=True))
    return [Path(path).as_posix() for path in classes], list(classes.values())


def _described(pattern: PatientPattern) -> list[str]:
    """What a pattern finds, with examples."""
    unnamed, several = pattern.files - pattern.named, pattern.in_several_classes
    return [
        f"Patients: {pattern.files - unnamed:,} of {pattern.files:,} paths seem to name "
        f"{pattern.patients:,} patients."
        + f" The other {unnamed:,} files count as patients of their own." * (unnamed > 0)
        + f" {several:,} patients have images of several classes." * (several > 0),
        *(f"  {patient}: {', '.join(paths)}" for patient, paths in pattern.examples),
    ]


def _contents(images: ImageSet, measurements: Measurements, duplicates: Duplicates) -> list[str]:
    """Sentences about classes, files, sizes, copies, grey values and unreadable files."""
    sizes, copies = sizes_of(measurements), describe_duplicates(measurements, duplicates)
    near = copies["near_duplicates"] + copies["only_mirrored_or_turned"]
    kinds = {kind: sum(counts.values()) for kind, counts in kinds_of(measurements).items()}
    lines = [
        f"{len(images):,} images of {len(images.class_names)} classes: {_list(images.counts())}.",
        f"Files: {_list(kinds)}; {_colours(images)}.",
        f"Sizes: {_size(sizes['most_common'])} pixels"
        + f" most often, from {_size(sizes['smallest'])} to {_size(sizes['largest'])}"
        * (sizes["different"] > 1)
        + ".",
        f"Copies: {copies['pixel_identical']:,} pairs of equal pixels; {near:,} images have a "
        "near-duplicate.",
    ]
    if (grey_range := measurements.common_range()) is not None:
        lines.append("Grey values: {:.6g} (black) to {:.6g} (white).".format(*grey_range))
    if unreadable := measurements.unreadable.tolist():
        lines.append(f"Unreadable: {counted(len(unreadable), 'file')}, such as: {unreadable[0]}")
    return lines


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _size(size: list[int]) -> str:
    return f"{size[0]} x {size[1]}"


def _colours(images: ImageSet) -> str:
    """Whether the images are grey or in colour, whatever their files can hold."""
    rows = np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT).astype(int))
    spread = np.ptp(images.images[rows].astype(np.int16), axis=3).mean(axis=(1, 2))
    in_colour = float((spread > _GREY).mean())
    if in_colour in (0, 1):
        return "all in colour" if in_colour else "all grey"
    return f"{in_colour:.0%} in colour, the others grey"


def _groups(images: ImageSet, groups: np.ndarray) -> str:
    """A sentence about the images that stay together, by the class that has the fewest groups."""
    of_class = {
        name: len(np.unique(groups[images.labels == label]))
        for label, name in enumerate(images.class_names)
    }
    fewest = min(of_class, key=of_class.__getitem__)
    few = f"; the answer on faithfulness needs about {_GROUPS_OF_CLASS}"
    return (
        f"Groups of images that stay together: {len(np.unique(groups)):,}; the class with the "
        f"fewest, {fewest}, has {of_class[fewest]:,}{few * (of_class[fewest] < _GROUPS_OF_CLASS)}."
    )


def _hindrance(images: ImageSet, groups: np.ndarray, split: SplitConfig) -> list[str]:
    """Why a study cannot divide the images into roles, if it cannot."""
    try:
        make_split(images.labels, groups.tolist(), images.class_names, split, seed=0)
    except DataError as error:
        return [f"Note: a study cannot use the set as it is. {error}"]
    return []


def _orientation(orientation: Orientation) -> str:
    """A sentence about the flips and turns that look harmless."""
    if not orientation.accuracy:
        return "Flips and turns: too few groups of images to measure which are harmless."
    accuracy = ", ".join(f"{name} {value:.0%}" for name, value in orientation.accuracy.items())
    return (
        "Flips and turns: a small classifier distinguishes changed images from originals, with an "
        f"accuracy of: {accuracy} (chance: 50%). Suggested symmetry: {orientation.symmetry}. It "
        "misses what is rare or small, and lighting or a scale bar may mislead it."
    )


def _duration(training: list[float], diffusion: DiffusionConfig) -> str:
    """A sentence about how long a study takes, from the number of training images by class."""
    settings = ClassifierConfig()
    synthetic = _TIMES_REAL * max(training) * len(training)
    trained = len([regime for regime in settings.train_on if regime != "best"])  # which is a copy
    shown = trained * settings.finetune_epochs * (sum(training) + synthetic)
    cores = cpu_cores()
    seconds = (shown / _SHOWN_PER_S + synthetic * _S_PER_DRAW + _OTHER_S) * 2 / cores
    limit = diffusion.max_minutes or 0
    hours = (seconds / 60 + limit) / 60
    return (
        f"Duration: roughly {hours:.1f} hours on {counted(cores, 'core')}, of which the diffusion "
        f"training takes {limit:g} minutes (diffusion.max_minutes)."
    )


def _rendered(values: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"comment": _comment, "plain": printable, "scalar": _scalar}
    return environment.get_template("init.yaml.j2").render(values)


def _comment(text: str, indent: int = 0) -> str:
    start = " " * indent + "# "
    return textwrap.fill(
        printable(text), _WIDTH, initial_indent=start, subsequent_indent=start,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _block(values: Mapping[str, Any]) -> str:
    """Settings in YAML, one a line."""
    return yaml.safe_dump(values, allow_unicode=True, width=10**6).rstrip() if values else ""


def _scalar(text: str) -> str:
    """Text as a value in YAML, in quotation marks where it needs them."""
    return _block({"": text}).partition(": ")[2]
