"""The pixels of a source at the size of a study, kept as a memory map with a manifest."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from kerasmed.data.config import DataConfig
from kerasmed.data.entries import Entry, Source, name_below
from kerasmed.data.image_file import ImageFile
from kerasmed.data.marks import SYNTHETIC
from kerasmed.data.official import OfficialSubset
from kerasmed.data.readers import check_range
from kerasmed.data.reading import Decoded, made_from, new_salt, pseudonym, read_source
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError, StageError
from kerasmed.files import make_folder, write_json, written_aside
from kerasmed.fingerprint import Fingerprint

_SKIP = "Or set data.on_bad_image: skip to continue without it."


def decode_images(
    data: DataConfig,
    cache: Path,
    remedy: str = _SKIP,
    least_classes: int = 2,
    subset: OfficialSubset | None = None,
    source: Source | None = None,
) -> dict[str, Any]:
    """The fields of an ``ImageSet``: images at ``data.image_size``, decoded once, a memory map.

    Args:
        data: source, size, choices of format, and what to do with an unreadable image.
        cache: path without suffix of the ``.npy`` and ``.json`` that are written. They replace the
            images while the files' names, sizes and times and the settings stay the same.
        remedy: what a user can do about an unreadable image, other than replace or remove it.
        least_classes: smallest number of classes.
        subset: the only official subset to read; all if None.
        source: what ``open_source`` gave for these settings, if it is at hand.

    Raises:
        DataError: the source has another layout, an image is unreadable, or images are marked as
            synthetic and the settings do not allow it.
    """
    source = source or open_source(data, least_classes)
    if subset is not None:
        entries = tuple(entry for entry in source.entries if entry.official == subset)
        names = tuple(sorted({entry.class_name for entry in entries}))
        source = replace(source, entries=entries, class_names=names)
        if not entries:
            raise DataError(f"{source.path}: expected a subset of {subset} images, received none.")
    fingerprint = made_from(source, data)
    manifest = _read_manifest(cache, fingerprint)
    if manifest is None:
        with images_written(source, data, cache, fingerprint) as writer:
            read_source(source, cache.parent, data.image_size, [writer])
            refuse_unreadable([reason for _, reason in writer.unreadable], data, remedy)
        manifest = writer.manifest()
    marked = sum(SYNTHETIC in notes for *_, notes in manifest["files"])
    _refuse_synthetic(marked, len(manifest["files"]), data)
    return _from_cache(source, cache, manifest, data, least_classes)


def _refuse_synthetic(marked: int, count: int, data: DataConfig) -> None:
    if marked and data.synthetic == "refuse":
        raise DataError(
            f"{data.source}: expected real images, received {marked} of {count} that are marked as "
            "synthetic; remove them, or set data.synthetic: allow to take them for real ones."
        )


def has_images(cache: Path, fingerprint: Fingerprint) -> bool:
    """Whether a cache of ``decode_images`` holds the images with this fingerprint."""
    return _read_manifest(cache, fingerprint) is not None


def _cache_file(cache: Path, suffix: str) -> Path:
    """A file of the cache; ``with_suffix`` would cut a name that holds dots."""
    return cache.with_name(cache.name + suffix)


def _read_manifest(cache: Path, fingerprint: Fingerprint) -> dict[str, Any] | None:
    """The manifest of an earlier reading, or None if it is damaged or of other images."""
    try:
        manifest = json.loads(_cache_file(cache, ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_current = isinstance(manifest, dict) and fingerprint.matches(manifest.get("fingerprint"))
    return manifest if is_current else None


class ImageWriter:
    """Writes the pixels of a source while it is read; a ``Collector``."""

    def __init__(self, stream: IO[bytes], source: Source, size: int, stops_without_range: bool):
        self.unreadable: list[list[str]] = []
        self.lacks_range = False
        self._stream, self._size, self._root = stream, size, source.root
        self._stops_without_range = stops_without_range
        self._salt = new_salt()
        self._files: list[list] = []
        self._masks = 0
        self.write_header()

    def measure(self, image: Decoded) -> tuple | None:
        """The image at the size of the study and its metadata; None if its range is unknown."""
        picture = image.picture
        if self.lacks_range or (picture.needs_range and self._stops_without_range):
            self.lacks_range = True
            return None
        check_range(picture, image.entry.path)
        pixels = image.reduced(self._size)
        return image.sha256, pixels, picture.frame, picture.patient, picture.notes

    def add(self, entry: Entry, rows: list[Any] | str) -> None:
        """Append the images of an entry to the file."""
        if isinstance(rows, str):
            self.unreadable.append([entry.class_name, rows])
            return
        if self.lacks_range:
            return
        self._masks += not rows
        for digest, pixels, frame, patient, notes in rows:
            self._stream.write(pixels)
            name = name_below(entry.path, self._root)
            patient_pseudonym = pseudonym(entry.patient or patient, self._salt)
            self._files.append([name, digest, entry.class_name, frame, patient_pseudonym, notes])

    def write_header(self) -> None:
        """Write an .npy header, which NumPy pads so that the count can be rewritten in place."""
        shape = (len(self._files), self._size, self._size, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        self._stream.seek(0)
        np.lib.format.write_array_header_1_0(self._stream, header)

    def manifest(self) -> dict[str, Any]:
        """Where each image came from, and what was left out."""
        return {
            "files": self._files,
            "skipped": self.unreadable,
            "masks": self._masks,
        }


class _GivenUpError(Exception):
    """Leaves the block of a file that is not to be kept."""


@contextmanager
def images_written(
    source: Source,
    data: DataConfig,
    cache: Path,
    fingerprint: Fingerprint,
    stops_without_range: bool = False,
) -> Iterator[ImageWriter]:
    """A writer of the cache of ``decode_images``, which is complete when the block ends.

    Args:
        source: the files, which are read in the block.
        data: the settings.
        cache: as for ``read_images``.
        fingerprint: what the images are made from.
        stops_without_range: whether an image whose range is unknown, or an unreadable one that the
            settings do not skip, leaves no cache. If not, an unknown range is an error.
    """
    make_folder(cache.parent)
    with suppress(_GivenUpError):
        with (
            written_aside(_cache_file(cache, ".npy")) as temporary,
            temporary.open("wb", buffering=2**20) as stream,
        ):
            writer = ImageWriter(stream, source, data.image_size, stops_without_range)
            yield writer
            if writer.lacks_range or (writer.unreadable and data.on_bad_image == "stop"):
                raise _GivenUpError
            writer.write_header()
            # If the process ends between the two files, the old manifest must not describe new
            # images.
            _cache_file(cache, ".json").unlink(missing_ok=True)
        record = {"fingerprint": fingerprint.as_record(), **writer.manifest()}
        write_json(_cache_file(cache, ".json"), record)


def refuse_unreadable(reasons: Sequence[str], data: DataConfig, remedy: str = _SKIP) -> None:
    """Refuse files that cannot be read, unless the settings skip them.

    Raises:
        DataError: the first reason, and the number of further unreadable files.
    """
    if len(reasons) and data.on_bad_image == "stop":
        more = f" ({len(reasons) - 1} more unreadable)" if len(reasons) > 1 else ""
        raise DataError(f"{reasons[0]}{more} {remedy}".rstrip())


def classes_left(
    source: Source,
    least_classes: int,
    present: Iterable[str],
    unreadable: Sequence[Sequence[str]],
) -> tuple[str, ...]:
    """The classes of a source without those that hold only masks, such as a folder `masks`.

    Args:
        source: the source and its classes.
        least_classes: smallest number of classes.
        present: the class of each image that could be read.
        unreadable: class and reason of each file that could not be read.

    Raises:
        DataError: no image of a class can be read, or there are too few classes.
    """
    readable = set(present)
    for name, reason in unreadable:
        if name not in readable:
            count = sum(class_name == name for class_name, _ in unreadable)
            raise DataError(
                f"No image left in class {name!r} of {source.path} ({count} unreadable): {reason}"
            )
    names = tuple(name for name in source.class_names if name in readable)
    if len(names) < least_classes:
        remedy = "set data.masks: keep to use these as images"
        if names and (source.path / names[0]).is_dir():
            remedy = f"give {source.path / names[0]} if the classes are folders in it, or {remedy}"
        raise DataError(
            f"{source.path}: expected images of at least two classes, received {list(names)} and "
            f"masks; {remedy}."
        )
    return names


def _from_cache(
    source: Source, cache: Path, manifest: dict[str, Any], data: DataConfig, least_classes: int
) -> dict[str, Any]:
    size = data.image_size
    root = source.root
    path_of = {name_below(entry.path, root): entry.path for entry in source.entries}
    files = tuple(
        ImageFile(path_of[name], digest, class_name, frame, patient, tuple(notes))
        for name, digest, class_name, frame, patient, notes in manifest["files"]
    )
    skipped = manifest["skipped"]
    present = (file.class_name for file in files)
    class_names = classes_left(source, least_classes, present, skipped)
    path = _cache_file(cache, ".npy")
    try:
        images = np.load(path, mmap_mode="r")
        if images.shape != (len(files), size, size, 3):
            raise ValueError(f"{images.shape} images, not {len(files)}")
    except (OSError, ValueError, EOFError) as error:
        raise StageError(
            f"Cannot read {path}: {error}; delete {cache.parent} and start again."
        ) from None
    index = {name: i for i, name in enumerate(class_names)}
    return {
        "images": images,
        "labels": np.array([index[file.class_name] for file in files], dtype=np.int32),
        "class_names": class_names,
        "files": files,
        "skipped": tuple(reason for _, reason in skipped),
        "masks": manifest["masks"],
        "formats": data.formats,
    }
