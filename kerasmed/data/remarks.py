"""One-line remarks that a user should read before training on a set."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

import numpy as np

from kerasmed.data.config import DataConfig, SplitConfig
from kerasmed.data.groups import IGNORE_PATIENT, shared_patient
from kerasmed.data.measurements import Measurements
from kerasmed.data.picture import FEW_LEVELS, pooled_range
from kerasmed.data.sources import same_folders_inside
from kerasmed.text import counted

# Fraction of images with lost grey levels that is worth a remark: a few slices show hardly any
# tissue.
_POOR_FRACTION = 0.05
# Images that show at most this many levels are wholly black or white. They count only from this
# fraction of the images on.
_UNIFORM_LEVELS, _UNIFORM_FRACTION = 2, 0.5
# So many images of a class are seldom from fewer patients than a split has roles.
_MANY_IMAGES, _ROLES = 12, 4
# Percentiles of an image's distinct values, chosen so that a marker or padding does not count.
_PERCENTILES = (0.5, 99.5)


def remarks(
    measurements: Measurements,
    grey_range: tuple[float, float] | None,
    data: DataConfig,
    split: SplitConfig,
) -> list[str]:
    """One line for each likely mistake: lost grey levels, masks, spellings and more.

    Args:
        measurements: of the set.
        grey_range: black and white of the images that need a range.
        data: settings that the set was read with.
        split: says whether the named patients are trusted.
    """
    lines = [
        _lost_levels(measurements, grey_range, data),
        masks_line(len(measurements.masks), measurements.masks.tolist()),
        _official_subsets(measurements, data),
        _alike_classes(data),
        *_spellings(measurements.classes),
    ]
    if split.patient == "together":
        shared = shared_patient(measurements.patients.tolist(), measurements.classes.tolist())
        shared = shared or _few_patients(measurements)
        lines.append(shared and f"{shared}; {IGNORE_PATIENT}.")
    counts = Counter(
        line
        for number in measurements.notes[measurements.notes > 0].tolist()
        for line in str(measurements.note_texts[number]).split("\n")
    )
    lines += note_lines(counts)
    return [line for line in lines if line]


def _few_patients(measurements: Measurements) -> str | None:
    """A sentence about too few patients for the four roles of a split, such as ANON1 and ANON2."""
    for name in np.unique(measurements.classes).tolist():
        class_patients = measurements.patients[measurements.classes == name]
        patients = len(set(class_patients.tolist()))
        all_named = bool((class_patients != "").all())
        if all_named and len(class_patients) >= _MANY_IMAGES and patients < _ROLES:
            images = counted(len(class_patients), "image")
            return f"The {images} of class {name!r} name only {counted(patients, 'patient')}"
    return None


def masks_line(count: int, names: list[str]) -> str | None:
    """The number of masks that are left out, with an example if the names are known."""
    if not count:
        return None
    example = f", such as {names[0]}" if names else ""
    files = counted(count, "file")
    return f"Left out as masks: {files}{example}; set data.masks: keep to use them as images."


def note_lines(notes: Mapping[str, int]) -> list[str]:
    """A line for each ignored fault of files, with the number of images that have it."""
    return [f"{counted(count, 'image')}: {note}." for note, count in notes.items()]


def _lost_levels(
    measurements: Measurements, grey_range: tuple[float, float] | None, data: DataConfig
) -> str | None:
    appearance = measurements.in_range(grey_range).appearance
    held, kept = appearance["held"], appearance["kept"]
    poor = np.flatnonzero(_is_poor(measurements, held, kept))
    if len(poor) < max(1, _POOR_FRACTION * len(measurements)):
        return None
    value_range = pooled_range(measurements.levels[held > 0], _PERCENTILES) or (0.0, 1.0)
    return (
        f"{len(poor)} of {counted(len(measurements), 'image')} keep fewer than {FEW_LEVELS} grey "
        f"levels of what their files hold (median {int(np.median(kept[poor]))} of "
        f"{int(np.median(held[poor]))}). "
        + _remedy(measurements, poor, grey_range, value_range, data)
    )


def _is_poor(measurements: Measurements, held: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Which images lose grey levels; none of a file most of whose images keep theirs."""
    # Of few values, some fall on the same grey level after rounding.
    enough = np.where(held >= 2 * FEW_LEVELS, FEW_LEVELS, 0.75 * FEW_LEVELS)
    is_poor = (held >= FEW_LEVELS) & (kept < enough)
    is_uniform = is_poor & (kept <= _UNIFORM_LEVELS)
    if is_uniform.sum() < _UNIFORM_FRACTION * len(measurements):
        is_poor &= ~is_uniform
    is_frame = measurements.frames >= 0
    files = np.array([name.rpartition("#")[0] for name in measurements.names[is_frame].tolist()])
    if len(files):
        _, file_of = np.unique(files, return_inverse=True)
        rich = np.bincount(file_of, weights=~is_poor[is_frame])
        # Poor slices do not count where the rest of the volume shows enough: its ends are dark.
        is_poor[is_frame] &= (rich < np.bincount(file_of) / 2)[file_of]
    return is_poor


def _remedy(
    measurements: Measurements,
    poor: np.ndarray,
    grey_range: tuple[float, float] | None,
    value_range: tuple[float, float],
    data: DataConfig,
) -> str:
    """The setting that helps images that lose grey levels, if there is one."""
    low, high = value_range
    kinds = measurements.appearance["kind"][poor]
    is_windowed = np.char.startswith(kinds, "DICOM MONO") & ~measurements.need_range[poor]
    values = f"Nearly all values of the set lie between {low:.6g} and {high:.6g}; "
    if data.dicom.window is not None or (is_windowed.all() and data.grey_range is None):
        return f"{values}set data.dicom.window: [{(low + high) / 2:.6g}, {high - low:.6g}]."
    shown = data.grey_range or grey_range
    if (
        shown is None
        or shown[1] - shown[0] > 2 * (high - low)
        or high <= shown[0]
        or low >= shown[1]
    ):
        return f"{values}set data.grey_range: [{low:.6g}, {high:.6g}]."
    if (kinds == "NIfTI").all() and data.nifti.range == "set":
        return f"{values}set data.nifti.range: volume if the scanners' units differ."
    return (
        f"{values}these images are much darker or narrower than the others. If they have "
        "another unit, convert the files; data.grey_range can only serve one unit."
    )


def _official_subsets(measurements: Measurements, data: DataConfig) -> str | None:
    counts = Counter(subset for subset in measurements.official.tolist() if subset)
    if not counts:
        return None
    subsets = ", ".join(f"{subset} {count}" for subset, count in counts.items())
    if data.official_split == "keep":
        return f"The set has its own split ({subsets}): its test images are the role `test`."
    return (
        f"The set has its own split ({subsets}): all images are split again; set "
        "data.official_split: keep to keep its own test images."
    )


def _alike_classes(data: DataConfig) -> str | None:
    if data.source is None or data.official_split == "merge":
        return None
    inside = same_folders_inside(data.source)
    # Names with digits are those of patients or magnifications.
    if not inside or any(letter.isdigit() for name in inside for letter in name):
        return None
    return (
        f"All class folders hold the same folders inside ({', '.join(inside[:6])}). If these are "
        "the classes, set data.official_split: merge."
    )


def _spellings(classes: np.ndarray) -> list[str]:
    """A line for each set of classes that differ only in case, spaces and signs."""
    counts = Counter(classes.tolist())
    alike: dict[str, list[str]] = {}
    for name in sorted(counts):
        alike.setdefault(_plain(name), []).append(name)
    return [
        "Classes that differ only in spelling: "
        + ", ".join(f"{name!r} ({counted(counts[name], 'image')})" for name in names)
        + "; give them one name if they are one class."
        for names in alike.values()
        if len(names) > 1
    ]


def _plain(name: str) -> str:
    """The name without case, and without separators except between digits."""
    letters = unicodedata.normalize("NFKC", name).casefold().strip()
    return re.sub(
        r"(?<=\w)[\s_.-]+(?=\w)|_",
        lambda match: (
            "."
            * (
                letters[match.start() - 1 : match.start()].isdigit()
                and letters[match.end() : match.end() + 1].isdigit()
            )
        ),
        letters,
    )
