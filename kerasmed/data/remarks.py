"""What a user should know of a set before anything learns from it, a line each."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

import numpy as np

from kerasmed.data.config import DataConfig, SplitConfig
from kerasmed.data.fingerprints import Fingerprints
from kerasmed.data.groups import IGNORE_PATIENT, shared_patient
from kerasmed.data.picture import FEW_LEVELS, pooled_range
from kerasmed.data.sources import same_folders_inside
from kerasmed.text import counted

# Share of the images that lose grey levels from which on that is worth a line: single slices have
# hardly any tissue.
_SHARE_OF_POOR = 0.05
# Images that show no more levels than this are wholly black or white, which a few may be.
_UNIFORM, _SHARE_OF_UNIFORM = 2, 0.5
# Images of a class that seldom are of fewer patients than a split has roles.
_MANY_IMAGES, _ROLES = 12, 4
# Percentiles of the different values of an image, so that a marker or padding does not count.
_PERCENTILES = (0.5, 99.5)


def remarks(
    found: Fingerprints,
    grey_range: tuple[float, float] | None,
    data: DataConfig,
    split: SplitConfig,
) -> list[str]:
    """One line for each thing that is seldom meant: lost grey levels, masks, spellings and more.

    Args:
        found: of the set.
        grey_range: in which images that need one are shown.
        data: the settings that the set was read with.
        split: whether patients are believed.
    """
    lines = [
        _lost_levels(found, grey_range, data),
        masks_line(len(found.masks), found.masks.tolist()),
        _official_parts(found, data),
        _alike_classes(data),
        *_spellings(found.classes),
    ]
    if split.patient == "together":
        shared = shared_patient(found.patients.tolist(), found.classes.tolist())
        shared = shared or _few_patients(found)
        lines.append(shared and f"{shared}; {IGNORE_PATIENT}.")
    counts = Counter(
        line
        for number in found.notes[found.notes > 0].tolist()
        for line in str(found.note_texts[number]).split("\n")
    )
    lines += note_lines(counts)
    return [line for line in lines if line]


def _few_patients(found: Fingerprints) -> str | None:
    """Words for patients who are too few for the four roles of a split, such as ANON1 and ANON2."""
    for name in np.unique(found.classes).tolist():
        named = found.patients[found.classes == name]
        patients = len(set(named.tolist()))
        if (named != "").all() and len(named) >= _MANY_IMAGES and patients < _ROLES:
            images = counted(len(named), "image")
            return f"The {images} of class {name!r} name only {counted(patients, 'patient')}"
    return None


def masks_line(count: int, names: list[str]) -> str | None:
    """How many masks are left out, and one of them where the names are known."""
    if not count:
        return None
    example = f", such as {names[0]}" if names else ""
    files = counted(count, "file")
    return f"Left out as masks: {files}{example}; set data.masks: keep to use them as images."


def note_lines(notes: Mapping[str, int]) -> list[str]:
    """A line for each fault of files that was ignored, with the number of images that have it."""
    return [f"{counted(count, 'image')}: {note}." for note, count in notes.items()]


def _lost_levels(
    found: Fingerprints, grey_range: tuple[float, float] | None, data: DataConfig
) -> str | None:
    seen = found.in_range(grey_range).appearance
    held, kept = seen["held"], seen["kept"]
    poor = np.flatnonzero(_is_poor(found, held, kept))
    if len(poor) < max(1, _SHARE_OF_POOR * len(found)):
        return None
    ends = pooled_range(found.levels[held > 0], _PERCENTILES) or (0.0, 1.0)
    return (
        f"{len(poor)} of {counted(len(found), 'image')} keep fewer than {FEW_LEVELS} grey levels "
        f"of what their files hold (median {int(np.median(kept[poor]))} of "
        f"{int(np.median(held[poor]))}). " + _remedy(found, poor, grey_range, ends, data)
    )


def _is_poor(found: Fingerprints, held: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Which images lose grey levels; of a file of several, all or none."""
    # Of few values some fall on the same grey level by rounding.
    enough = np.where(held >= 2 * FEW_LEVELS, FEW_LEVELS, 0.75 * FEW_LEVELS)
    is_poor = (held >= FEW_LEVELS) & (kept < enough)
    is_uniform = is_poor & (kept <= _UNIFORM)
    if is_uniform.sum() < _SHARE_OF_UNIFORM * len(found):
        is_poor &= ~is_uniform
    files = np.array([name.rpartition("#")[0] for name in found.names[found.parts >= 0].tolist()])
    if len(files):
        _, file_of = np.unique(files, return_inverse=True)
        rich = np.bincount(file_of, weights=~is_poor[found.parts >= 0])
        # A volume whose other slices show enough is dark at its ends.
        is_poor[found.parts >= 0] &= (rich < np.bincount(file_of) / 2)[file_of]
    return is_poor


def _remedy(
    found: Fingerprints,
    poor: np.ndarray,
    grey_range: tuple[float, float] | None,
    ends: tuple[float, float],
    data: DataConfig,
) -> str:
    """The setting that helps images which lose grey levels, where one does."""
    low, high = ends
    kinds = found.appearance["kind"][poor]
    is_windowed = np.char.startswith(kinds, "DICOM MONO") & ~found.need_range[poor]
    values = f"Nearly all values of the set lie between {low:.6g} and {high:.6g}; "
    if data.dicom.window is not None or (is_windowed.all() and data.grey_range is None):
        return f"{values}set data.dicom.window: [{(low + high) / 2:.6g}, {high - low:.6g}]."
    now = data.grey_range or grey_range
    if now is None or now[1] - now[0] > 2 * (high - low) or high <= now[0] or low >= now[1]:
        return f"{values}set data.grey_range: [{low:.6g}, {high:.6g}]."
    if (kinds == "NIfTI").all() and data.nifti.range == "set":
        return f"{values}set data.nifti.range: volume if the scanners' units differ."
    return (
        f"{values}these images are much darker or narrower than the others. If their unit is "
        "another one, convert the files; data.grey_range can only serve one unit."
    )


def _official_parts(found: Fingerprints, data: DataConfig) -> str | None:
    counts = Counter(part for part in found.official.tolist() if part)
    if not counts:
        return None
    parts = ", ".join(f"{part} {count}" for part, count in counts.items())
    if data.official_split == "keep":
        return f"The set comes divided ({parts}): its test images are the role `test`."
    return (
        f"The set comes divided ({parts}): all images are split anew; set "
        "data.official_split: keep to keep its own test images."
    )


def _alike_classes(data: DataConfig) -> str | None:
    if data.source is None or data.official_split == "merge":
        return None
    inside = same_folders_inside(data.source)
    # Numbers are those of patients or of magnifications.
    if not inside or any(letter.isdigit() for name in inside for letter in name):
        return None
    return (
        f"All class folders hold the same folders inside ({', '.join(inside[:6])}). If these are "
        "the classes, set data.official_split: merge."
    )


def _spellings(classes: np.ndarray) -> list[str]:
    """Pairs of classes that are the same but for case, spaces and signs."""
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
    """A name without case, and without separators except between digits."""
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
