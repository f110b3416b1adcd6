"""ImageSet: labelled images as one uint8 memory map with a manifest."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasmed.data.readers import FILTER, SUFFIXES, read_image
from kerasmed.errors import DataError, StageError
from kerasmed.files import read_json, sha256_of, write_json, written_aside

# Files that operating systems leave in folders of images.
_LITTER = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class ImageFile:
    """One file of a set: where it is, its bytes' SHA-256 and its class name."""

    path: Path
    sha256: str
    class_name: str


@dataclass(frozen=True)
class ImageSet:
    """Labelled images, real or synthetic.

    Attributes:
        images: uint8 (n, size, size, 3), 0 to 255; usually a memory map.
        labels: int32 (n,), indices into ``class_names``.
        class_names: sorted names of the classes.
        files: where each image came from, in the same order.
        skipped: unreadable files that were left out, with the reason.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    files: tuple[ImageFile, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.images.shape[1]

    @property
    def data_hash(self) -> str:
        """SHA-256 over every file's hash and class, in order."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.sha256} {file.class_name}\n".encode())
        return digest.hexdigest()

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images at the given positions, in that order, copied into memory."""
        return ImageSet(
            images=np.asarray(self.images[indices]),
            labels=self.labels[indices],
            class_names=self.class_names,
            files=tuple(self.files[i] for i in indices),
        )

    def counts(self) -> dict[str, int]:
        """Number of images of each class."""
        numbers = np.bincount(self.labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, numbers.tolist(), strict=True))


def concatenate(first: ImageSet, second: ImageSet) -> ImageSet:
    """Both sets, one after the other.

    Raises:
        DataError: their classes or sizes differ.
    """
    if first.class_names != second.class_names or first.image_size != second.image_size:
        raise DataError(
            f"Image sets do not fit together: expected classes {list(first.class_names)} at "
            f"{first.image_size} pixels, received {list(second.class_names)} at "
            f"{second.image_size}; draw the synthetic set again with `kerasmed sample`."
        )
    return ImageSet(
        images=np.concatenate([first.images, second.images]),
        labels=np.concatenate([first.labels, second.labels]),
        class_names=first.class_names,
        files=first.files + second.files,
    )


def list_class_folders(directory: Path) -> dict[str, list[Path]]:
    """Files of each class folder, at any depth below it, hidden files and litter left out.

    Raises:
        DataError: no such folder, fewer than two classes, an empty class, or a file that is no
            image by its suffix.
    """
    layout = "a folder with one folder of images for each class"
    if not directory.is_dir():
        raise DataError(f"No folder at {directory}: expected {layout}; mend the path.")
    stray = sorted(path for path in directory.iterdir() if path.suffix.lower() in SUFFIXES)
    if stray:
        raise DataError(
            f"{stray[0]} lies outside the class folders ({len(stray)} such): expected {layout}; "
            "move them into a class folder or out."
        )
    classes = sorted(
        path for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if len(classes) < 2:
        raise DataError(
            f"{directory} has {len(classes)} class folder{'s' * (len(classes) != 1)}: expected "
            f"{layout}, at least two; received {[path.name for path in classes]}."
        )
    found = {}
    for folder in classes:
        files = sorted(path for path in folder.rglob("*") if _counts(path, folder))
        foreign = [path for path in files if path.suffix.lower() not in SUFFIXES]
        if foreign:
            raise DataError(
                f"{foreign[0]} is no image by its name ({len(foreign)} such in {folder}): expected "
                f"{', '.join(sorted(SUFFIXES))}; move them out of the class folder."
            )
        if not files:
            raise DataError(
                f"Class folder {folder} is empty: expected at least one image; "
                "add images or remove the folder."
            )
        found[folder.name] = files
    return found


def _counts(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden and path.name.lower() not in _LITTER


def read_image_folder(
    directory: Path, image_size: int, cache: Path, on_bad_image: str = "stop"
) -> ImageSet:
    """The images of a folder of class folders, decoded once and kept as a memory map.

    Args:
        directory: holds one folder of images for each class.
        image_size: height and width that every image is reduced to.
        cache: path without suffix; ``.npy`` and ``.json`` are written there, and read instead of
            the images while the files' names, sizes and times stay the same.
        on_bad_image: "stop" raises on an unreadable image, "skip" leaves it out and lists it.

    Raises:
        DataError: the folder's layout, or an unreadable image, by name.
    """
    found = list_class_folders(directory)
    entries = [(path, name) for name, paths in found.items() for path in paths]
    stats = [path.stat() for path, _ in entries]
    key = {
        "directory": str(directory.resolve()),
        "image_size": image_size,
        "filter": FILTER,
        "on_bad_image": on_bad_image,
        "files": [
            [str(path.relative_to(directory)), stat.st_size, stat.st_mtime_ns]
            for (path, _), stat in zip(entries, stats, strict=True)
        ],
    }
    manifest_path = cache.with_suffix(".json")
    cached = read_json(manifest_path, "the data stage") if manifest_path.exists() else {}
    if cached.get("key") != key:
        cached = _decode_folder(directory, entries, image_size, cache, on_bad_image)
        write_json(manifest_path, {"key": key, **cached})
    return _from_cache(directory, cache, cached, tuple(found))


def _decode_folder(
    directory: Path,
    entries: list[tuple[Path, str]],
    image_size: int,
    cache: Path,
    on_bad_image: str,
) -> dict:
    def decode(entry: tuple[Path, str]) -> tuple[str, np.ndarray] | str:
        path, _ = entry
        try:
            return sha256_of(path), read_image(path, image_size)
        except DataError as error:
            return str(error)
        except OSError as error:
            return f"Cannot read {path}: {error.strerror}; mend its permissions or remove it."

    files: list[list[str]] = []
    bad: list[str] = []
    with written_aside(cache.with_suffix(".npy")) as temporary:
        shape = (len(entries), image_size, image_size, 3)
        images = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        # Pillow and hashlib let go of the interpreter lock, so threads use every core.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for (path, name), decoded in zip(entries, pool.map(decode, entries), strict=True):
                if isinstance(decoded, str):
                    bad.append(decoded)
                else:
                    images[len(files)] = decoded[1]
                    files.append([str(path.relative_to(directory)), decoded[0], name])
        if bad and on_bad_image == "stop":
            more = f" ({len(bad) - 1} more unreadable)" if len(bad) > 1 else ""
            raise DataError(f"{bad[0]}{more} Or set data.on_bad_image: skip to go on without.")
        images.flush()
    return {"files": files, "skipped": bad}


def _from_cache(directory: Path, cache: Path, manifest: dict, classes: tuple[str, ...]) -> ImageSet:
    files = tuple(
        ImageFile(directory / path, sha256, name) for path, sha256, name in manifest["files"]
    )
    emptied = set(classes) - {file.class_name for file in files}
    if emptied:
        folder = str(directory / min(emptied))
        reason = next(reason for reason in manifest["skipped"] if folder in reason)
        raise DataError(
            f"No readable image left in class {sorted(emptied)} of {directory}: {reason}"
        )
    try:
        images = np.load(cache.with_suffix(".npy"), mmap_mode="r")
    except (OSError, ValueError) as error:
        raise StageError(
            f"Cannot read {cache.with_suffix('.npy')}: {error}; "
            f"delete {cache.parent} and start again."
        ) from None
    index = {name: i for i, name in enumerate(classes)}
    return ImageSet(
        images=images[: len(files)],
        labels=np.array([index[file.class_name] for file in files], dtype=np.int32),
        class_names=classes,
        files=files,
        skipped=tuple(manifest["skipped"]),
    )
