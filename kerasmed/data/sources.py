"""Lists the files of a user's set without reading a pixel: class folders, .csv or .npz."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kerasmed.data.config import DataConfig, Formats
from kerasmed.data.csv_table import list_table
from kerasmed.data.entries import (
    Entry,
    Source,
    label_of_folder,
    root_of,
    sorted_by_class,
    with_suspicions,
)
from kerasmed.data.npz import open_npz
from kerasmed.data.official import (
    OfficialFolder,
    OfficialSubset,
    alike_folders,
    find_official_folders,
    official_subset,
)
from kerasmed.data.readers import EXPECTED, SUFFIXES, is_hidden, suffix_of
from kerasmed.errors import DataError

LAYOUT = "a folder with one folder of images for each class"


def open_source(data: DataConfig, least_classes: int = 2) -> Source:
    """The files that ``data.source`` names, listed and checked but not decoded.

    Args:
        data: the settings.
        least_classes: smallest number of classes that is accepted.

    Raises:
        DataError: the source is missing or has another layout.
    """
    if data.source is None:
        raise AssertionError("phantoms are written before they are read")
    try:
        return _open(data.source, data, least_classes)
    except OSError as error:
        raise DataError(
            f"Cannot read {error.filename or data.source}: {error.strerror}; correct it."
        ) from None


def _open(path: Path, data: DataConfig, least_classes: int) -> Source:
    suffix = path.suffix.lower()
    formats = Formats(**{name: getattr(data, name) for name in Formats.model_fields})
    if path.is_dir():
        names, entries = _list_class_folders(path, data.official_split, least_classes)
    elif not path.exists():
        raise DataError(
            f"Nothing at {path}: expected {LAYOUT}, a .csv or an .npz; correct the path, or get a "
            "known set with `kerasmed data fetch`."
        )
    elif suffix == ".csv" and path.is_file():
        names, entries = list_table(path, least_classes)
    elif suffix == ".npz" and path.is_file():
        return open_npz(path, data.class_names, formats, least_classes)
    else:
        raise DataError(f"{path}: expected {LAYOUT}, a .csv or an .npz, received {path.name!r}.")
    leaves_out_masks = data.masks == "leave_out"
    if leaves_out_masks:
        entries = with_suspicions(entries, root_of(path))
    return Source(path, names, entries, formats, leaves_out_masks)


def count_class_folders(directory: Path) -> dict[str, int]:
    """Number of files of each class, as ``open_source`` lists them.

    Raises:
        DataError: the folder is missing or has another layout.
    """
    source = open_source(DataConfig(source=directory))
    counts = Counter(entry.class_name for entry in source.entries)
    return {name: counts[name] for name in source.class_names}


def _list_class_folders(
    directory: Path, official_split: str, least_classes: int
) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    children = _visible(directory)
    for path in children:
        if path.is_symlink() and not path.exists():
            raise DataError(f"{path} is a link to nothing: expected a class folder; remove it.")
    stray = [path for path in children if path.is_file() and suffix_of(path) in SUFFIXES]
    if stray:
        raise DataError(
            f"{stray[0]} lies outside the class folders ({len(stray)} such): expected {LAYOUT}; "
            "move these files into a class folder or elsewhere."
        )
    folders = [path for path in children if path.is_dir()]
    subfolders = _subfolders(folders)
    subsets = find_official_folders(folders, subfolders)
    if not subsets and official_split == "merge":
        subsets = alike_folders(folders, subfolders)
    if subsets:
        return _list_official_folders(directory, folders, subsets, official_split, least_classes)
    if len(folders) < least_classes:
        raise DataError(
            f"{directory} has {len(folders)} class folder{'s' * (len(folders) != 1)}: expected "
            f"{LAYOUT}, at least {('one', 'two')[least_classes - 1]}; received "
            f"{[path.name for path in folders]}." + _inner_folder(folders)
        )
    names = [path.name for path in folders]
    # If all name one subset, such as "test positive" and "test negative", they are classes.
    named_subsets = {official_subset(name) for name in names}
    if len(named_subsets - {None}) > 1:
        raise DataError(
            f"{directory} holds {', '.join(names)}, which are subsets of a set and not classes: "
            f"expected {LAYOUT}; give one of them, or a .csv that lists the images of all."
        )
    entries = [
        Entry(path, label_of_folder(folder.name), official=subset)
        for folder in folders
        for path, subset in _with_inner_subsets(_list_folder(folder), folder)
    ]
    return sorted_by_class(entries, directory, least_classes)


def _with_inner_subsets(
    files: list[Path], folder: Path
) -> list[tuple[Path, OfficialSubset | None]]:
    """The files of a class, each with its subset if the class is divided, such as class/train."""
    subsets: list[OfficialSubset | None] = [
        next(filter(None, map(official_subset, path.relative_to(folder).parent.parts)), None)
        for path in files
    ]
    is_divided = len(set(subsets)) > 1 and None not in subsets
    return [
        (path, subset if is_divided else None) for path, subset in zip(files, subsets, strict=True)
    ]


def same_folders_inside(directory: Path) -> list[str]:
    """The folders that all class folders have inside, which may be the real classes."""
    if not directory.is_dir():
        return []
    folders = _folders_in(directory)
    alike = alike_folders(folders, {path: _folders_in(path) for path in folders})
    return [path.name for path in alike[0].class_folders] if alike else []


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_hidden(path))


def _folders_in(folder: Path) -> list[Path]:
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # a link to itself
                if entry.is_dir() and not is_hidden(Path(entry.name)):
                    folders.append(Path(entry.path))
    return sorted(folders)


def _subfolders(folders: list[Path]) -> dict[Path, list[Path]]:
    """The folders in each of these folders, and in each of their folders."""
    subfolders: dict[Path, list[Path]] = {}
    for folder in folders:
        subfolders[folder] = _folders_in(folder)
        for inner in subfolders[folder]:
            subfolders[inner] = _folders_in(inner)
    return subfolders


def _inner_folder(folders: list[Path]) -> str:
    """Advice on which path to give instead, if a single folder holds the class folders."""
    if len(folders) != 1:
        return ""
    inside = [path.name for path in _folders_in(folders[0])]
    return f" Give {folders[0]} for its folders {inside}." if len(inside) > 1 else ""


def _list_official_folders(
    directory: Path,
    folders: list[Path],
    subsets: list[OfficialFolder],
    official_split: str,
    least_classes: int,
) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    """The class names and files of all subsets, and of class folders next to the subsets."""
    subset_names = ", ".join(str(subset.path.relative_to(directory)) for subset in subsets)
    class_names = sorted(
        {label_of_folder(folder.name) for subset in subsets for folder in subset.class_folders}
    )
    if official_split == "refuse":
        raise DataError(
            f"{directory} holds {subset_names}, which are subsets of a set and not classes "
            f"(inside: {', '.join(class_names)}); set data.official_split: merge to make a new "
            "split of all images, or keep to take the set's own test images as `test`."
        )
    if official_split == "keep" and all(subset.subset != "test" for subset in subsets):
        raise DataError(
            f"data.official_split: keep: expected a folder of test images in {directory}, received "
            f"{subset_names}; set it to merge."
        )
    class_folders = [
        (folder, subset.subset) for subset in subsets for folder in subset.class_folders
    ]
    subset_folders = {subset.path for subset in subsets}
    parents = {subset.path.parent for subset in subsets} - {directory}
    others = [path for path in folders if path not in subset_folders | parents]
    for folder in [*parents, *subset_folders]:
        inner = set(_visible(folder)) - subset_folders - {path for path, _ in class_folders}
        others += sorted(path for path in inner if path.is_dir() or suffix_of(path) in SUFFIXES)
    for path in others:
        if path.parent != directory or label_of_folder(path.name) not in class_names:
            raise DataError(
                f"{path} is next to the subsets {subset_names} but is not one of their classes: "
                f"expected one of {', '.join(class_names)}; move it out."
            )
        class_folders.append((path, "train"))
    entries = [
        Entry(path, label_of_folder(folder.name), official=subset)
        for folder, subset in class_folders
        for path in _list_folder(folder)
    ]
    return sorted_by_class(entries, directory, least_classes)


def _list_folder(folder: Path) -> list[Path]:
    """The images of a class folder, sorted."""
    files = sorted(_walk(folder))
    foreign = [path for path in files if suffix_of(path) not in SUFFIXES]
    if foreign:
        raise DataError(
            f"{foreign[0]} has an unsupported file extension ({len(foreign)} such in {folder}; "
            f"supported: {EXPECTED}); move such files out of the class folder."
        )
    if not files:
        raise DataError(
            f"Class folder {folder} is empty: expected at least one image; "
            "add images or remove the folder."
        )
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Files at any depth, also in linked folders; each folder is visited once."""
    # A link to a folder above the class would add the images of the other classes.
    visited = {str(parent) for parent in Path(os.path.realpath(folder)).parents}
    for directory, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        real = os.path.realpath(directory)
        if real in visited:  # a link to a folder above it, or a second link to the same one
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(Path(name)))
        for name in names:
            path = Path(directory, name)
            if is_hidden(path):
                continue
            if not path.is_file():
                kind = "a link to nothing" if path.is_symlink() else "not a regular file"
                raise DataError(f"{path} is {kind}: expected an image; remove it.")
            yield path


def _refuse_folder(error: OSError) -> None:
    raise DataError(
        f"Cannot open the folder {error.filename}: {error.strerror}; correct its permissions."
    )
