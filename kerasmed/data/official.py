"""Sets whose publishers have divided them into training and test images."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kerasmed.data.masks import is_mask_folder

OfficialSubset = Literal["train", "validation", "test"]

_WORDS: dict[str, OfficialSubset] = {
    # Folds for cross-validation divide the training images.
    **dict.fromkeys(("train", "training", "trn", "fold", "split", "subset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
}
_NAME = re.compile(
    rf"(?:.*[^a-z])?({'|'.join(sorted(_WORDS, key=len, reverse=True))})"
    r"(?:[^a-z].*|set|data|dataset|images?|imgs?|split|folder)?\d*"
)


@dataclass(frozen=True)
class OfficialFolder:
    """The folder of one subset of a set, with class folders inside."""

    path: Path
    subset: OfficialSubset
    class_folders: tuple[Path, ...]


def official_subset(name: str) -> OfficialSubset | None:
    """The subset that a name such as "training_set" or "Val" means; None if it means none."""
    match = _NAME.fullmatch(name.strip().lower())
    return _WORDS[match[1]] if match else None


def find_official_folders(
    classes: list[Path], subfolders: dict[Path, list[Path]]
) -> list[OfficialFolder]:
    """The subset folders among the folders of a set, such as ``train`` and ``test``.

    A subset folder is called train, test or similar. It has folders inside that another subset, or
    the set itself, has too. The subsets may be in one further folder.

    Args:
        classes: folders directly in the folder of the set.
        subfolders: the folders in each of these, and in each of their folders.
    """

    def subset_folders(folders: list[Path]) -> list[OfficialFolder]:
        return [
            OfficialFolder(path, subset, tuple(inner))
            for path in folders
            if (subset := official_subset(path.name)) and (inner := subfolders.get(path, []))
        ]

    subsets = subset_folders(classes)
    nested = [inner for folder in classes if (inner := subset_folders(subfolders.get(folder, [])))]
    if len(nested) == 1:  # if several folders have subsets inside, they are divided classes
        subsets += nested[0]
    class_names = [{folder.name.casefold() for folder in s.class_folders} for s in subsets]
    top_names = {folder.name.casefold() for folder in classes}
    subsets = [
        subset
        for i, subset in enumerate(subsets)
        if class_names[i] & top_names
        or any(class_names[i] & names for j, names in enumerate(class_names) if i != j)
    ]
    # "test positive" and "test negative" do not divide a set.
    is_divided = len({subset.subset for subset in subsets}) > 1
    words = {re.sub(r"[^a-z]", "", subset.path.name.lower()) for subset in subsets}
    return subsets if is_divided or len(words) == 1 else []


def alike_folders(classes: list[Path], subfolders: dict[Path, list[Path]]) -> list[OfficialFolder]:
    """Folders that all have the same two or more folders inside, perhaps sites or cohorts.

    Args:
        classes: as for ``find_official_folders``.
        subfolders: as for ``find_official_folders``.
    """
    class_folders = [tuple(subfolders.get(folder, [])) for folder in classes]
    names = {tuple(path.name for path in folders) for folders in class_folders}
    if len(classes) < 2 or len(names) != 1 or len(class_folders[0]) < 2:
        return []
    if any(official_subset(path.name) or is_mask_folder(path.name) for path in class_folders[0]):
        return []
    return [
        OfficialFolder(path, "train", folders)
        for path, folders in zip(classes, class_folders, strict=True)
    ]
