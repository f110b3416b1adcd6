"""Sets that come divided into training and test images, as their publishers left them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kerasmed.data.masks import is_mask_folder

Part = Literal["train", "validation", "test"]

_WORDS: dict[str, Part] = {
    # Folds for cross-validation are parts of the training images.
    **dict.fromkeys(("train", "training", "trn", "fold", "split", "subset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
}
_NAME = re.compile(
    rf"(?:.*[^a-z])?({'|'.join(sorted(_WORDS, key=len, reverse=True))})"
    r"(?:[^a-z].*|set|data|dataset|images?|imgs?|split|folder)?\d*"
)


@dataclass(frozen=True)
class PartFolder:
    """A folder that is a part of a set, with class folders inside."""

    path: Path
    part: Part
    class_folders: tuple[Path, ...]


def part_named(name: str) -> Part | None:
    """The part that a name such as "training_set" or "Val" means; None where it means none."""
    match = _NAME.fullmatch(name.strip().lower())
    return _WORDS[match[1]] if match else None


def find_parts(classes: list[Path], subfolders: dict[Path, list[Path]]) -> list[PartFolder]:
    """The folders among those that lie where class folders should, which are parts of a set.

    A part is called train, test and the like, and has folders inside that another such part, or the
    set itself, has too; it may lie in a folder around the parts.

    Args:
        classes: folders directly below the set's.
        subfolders: of each folder down to two levels below these, the folders in it.
    """

    def parts_among(folders: list[Path]) -> list[PartFolder]:
        return [
            PartFolder(path, part, tuple(inner))
            for path in folders
            if (part := part_named(path.name)) and (inner := subfolders.get(path, []))
        ]

    found = parts_among(classes)
    around = [inner for folder in classes if (inner := parts_among(subfolders.get(folder, [])))]
    if len(around) == 1:  # where several have parts inside, they are classes that are divided
        found += around[0]
    names = [{folder.name.casefold() for folder in each.class_folders} for each in found]
    beside = {folder.name.casefold() for folder in classes}
    found = [
        each
        for i, each in enumerate(found)
        if names[i] & beside or any(names[i] & other for j, other in enumerate(names) if i != j)
    ]
    # "test positive" and "test negative" are no division.
    is_divided = len({each.part for each in found}) > 1
    words = {re.sub(r"[^a-z]", "", each.path.name.lower()) for each in found}
    return found if is_divided or len(words) == 1 else []


def alike_folders(classes: list[Path], subfolders: dict[Path, list[Path]]) -> list[PartFolder]:
    """Folders that all have the same folders inside, two or more: sites or cohorts, it may be.

    Args:
        classes: as for ``find_parts``.
        subfolders: as for ``find_parts``.
    """
    inside = [tuple(subfolders.get(folder, [])) for folder in classes]
    names = {tuple(path.name for path in each) for each in inside}
    if len(classes) < 2 or len(names) != 1 or len(inside[0]) < 2:
        return []
    if any(part_named(path.name) or is_mask_folder(path.name) for path in inside[0]):
        return []
    return [PartFolder(path, "train", each) for path, each in zip(classes, inside, strict=True)]
