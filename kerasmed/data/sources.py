"""What a user's archive holds, before any pixel is read: folder of class folders, CSV or .npz."""

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
    root_of,
    sorted_by_class,
    with_suspicions,
)
from kerasmed.data.npz import open_npz
from kerasmed.data.official import Part, PartFolder, alike_folders, find_parts, part_named
from kerasmed.data.readers import EXPECTED, SUFFIXES, is_hidden, suffix_of
from kerasmed.errors import DataError

LAYOUT = "a folder with one folder of images for each class"


def open_source(data: DataConfig, least_classes: int = 2) -> Source:
    """The files that ``data.source`` names, listed and checked, none of them decoded.

    Args:
        data: the settings.
        least_classes: how many classes there must be.

    Raises:
        DataError: it is not there, or not laid out as it must be.
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
    """Files of each class folder, as ``open_source`` would list them.

    Raises:
        DataError: the folder is not there, or not laid out as it must be.
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
            "move them into a class folder or out."
        )
    folders = [path for path in children if path.is_dir()]
    subfolders = _subfolders(folders)
    parts = find_parts(folders, subfolders)
    if not parts and official_split == "merge":
        parts = alike_folders(folders, subfolders)
    if parts:
        return _list_parts(directory, folders, parts, official_split, least_classes)
    if len(folders) < least_classes:
        raise DataError(
            f"{directory} has {len(folders)} class folder{'s' * (len(folders) != 1)}: expected "
            f"{LAYOUT}, at least {('one', 'two')[least_classes - 1]}; received "
            f"{[path.name for path in folders]}." + _inner_folder(folders)
        )
    names = [path.name for path in folders]
    # Of one part alone, such as "test positive" and "test negative", they are classes.
    parts_named = {part_named(name) for name in names}
    if len(parts_named - {None}) > 1:
        raise DataError(
            f"{directory} holds {', '.join(names)}, which are parts of a set and no classes: "
            f"expected {LAYOUT}; give one of them, or a .csv that lists the images of all."
        )
    entries = [
        Entry(path, folder.name, part=part)
        for folder in folders
        for path, part in _with_inner_parts(_list_folder(folder), folder)
    ]
    return tuple(names), tuple(entries)


def _with_inner_parts(files: list[Path], folder: Path) -> list[tuple[Path, Part | None]]:
    """The files of a class, with their parts where it is divided itself, such as class/train."""
    inner = [path.relative_to(folder).parts[:-1] for path in files]
    parts: list[Part | None] = [
        next((part for name in folders if (part := part_named(name))), None) for folders in inner
    ]
    is_divided = len(set(parts)) > 1 and None not in parts
    return [(path, part if is_divided else None) for path, part in zip(files, parts, strict=True)]


def same_folders_inside(directory: Path) -> list[str]:
    """The folders that each of several class folders has inside, which may be the classes."""
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
            with suppress(OSError):  # a link to itself is no folder
                if entry.is_dir() and not is_hidden(Path(entry.name)):
                    folders.append(Path(entry.path))
    return sorted(folders)


def _subfolders(folders: list[Path]) -> dict[Path, list[Path]]:
    """The folders in each of these, and in each of those."""
    subfolders: dict[Path, list[Path]] = {}
    for folder in folders:
        subfolders[folder] = _folders_in(folder)
        for inner in subfolders[folder]:
            subfolders[inner] = _folders_in(inner)
    return subfolders


def _inner_folder(folders: list[Path]) -> str:
    """What to give instead, where a single folder holds the class folders."""
    if len(folders) != 1:
        return ""
    inside = [path.name for path in _folders_in(folders[0])]
    return f" Give {folders[0]} for its folders {inside}." if len(inside) > 1 else ""


def _list_parts(
    directory: Path,
    folders: list[Path],
    parts: list[PartFolder],
    official_split: str,
    least_classes: int,
) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    """The class folders of all parts of a set, each class once, and those beside the parts."""
    named = ", ".join(str(each.path.relative_to(directory)) for each in parts)
    inside = sorted({folder.name for each in parts for folder in each.class_folders})
    if official_split == "refuse":
        raise DataError(
            f"{directory} holds {named}, which are parts of a set and no classes (inside: "
            f"{', '.join(inside)}); set data.official_split: merge to split all images anew, or "
            "keep to take the set's own test images as `test`."
        )
    if official_split == "keep" and all(each.part != "test" for each in parts):
        raise DataError(
            f"data.official_split: keep: expected a folder of test images in {directory}, received "
            f"{named}; set it to merge."
        )
    class_folders = [(folder, each.part) for each in parts for folder in each.class_folders]
    taken = {each.path for each in parts}
    around = {each.path.parent for each in parts} - {directory}
    beside = [path for path in folders if path not in taken | around]
    for folder in [*around, *taken]:
        inner = set(_visible(folder)) - taken - {path for path, _ in class_folders}
        beside += sorted(path for path in inner if path.is_dir() or suffix_of(path) in SUFFIXES)
    for path in beside:
        if path.parent != directory or path.name not in inside:
            raise DataError(
                f"{path} lies beside the parts {named} and is no class of theirs: expected one "
                f"of {', '.join(inside)}; move it out."
            )
        class_folders.append((path, "train"))
    entries = [
        Entry(path, folder.name, part=part)
        for folder, part in class_folders
        for path in _list_folder(folder)
    ]
    return sorted_by_class(entries, directory, least_classes)


def _list_folder(folder: Path) -> list[Path]:
    """The images of a class folder, sorted."""
    files = sorted(_walk(folder))
    foreign = [path for path in files if suffix_of(path) not in SUFFIXES]
    if foreign:
        raise DataError(
            f"{foreign[0]} is no image by its name ({len(foreign)} such in {folder}): expected "
            f"{EXPECTED}; move them out of the class folder."
        )
    if not files:
        raise DataError(
            f"Class folder {folder} is empty: expected at least one image; "
            "add images or remove the folder."
        )
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Files at any depth, through links to folders too, each folder once."""
    # A link that leads above the class would bring in the other classes.
    seen = {str(above) for above in Path(os.path.realpath(folder)).parents}
    for directory, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        real = os.path.realpath(directory)
        if real in seen:  # a link to a folder above it, or a second link to the same one
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(Path(name)))
        for name in names:
            path = Path(directory, name)
            if is_hidden(path):
                continue
            if not path.is_file():
                what = "a link to nothing" if path.is_symlink() else "no regular file"
                raise DataError(f"{path} is {what}: expected an image; remove it.")
            yield path


def _refuse_folder(error: OSError) -> None:
    raise DataError(f"Cannot open the folder {error.filename}: {error.strerror}; mend it.")
