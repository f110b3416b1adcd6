"""From a source to a memory map: each image is decoded once, on all cores, in bounded memory."""

import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kerasmed.data.config import DataConfig
from kerasmed.data.entries import Entry, Source, relative_path
from kerasmed.data.image_set import ImageFile, ImageSet
from kerasmed.data.official import OfficialSubset
from kerasmed.data.readers import FILTER, check_range, reduce_image
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError, StageError
from kerasmed.files import make_folder, write_json, written_aside
from kerasmed.runtime.hardware import cpu_cores

# Entries that are decoded at once, which bounds the memory.
_BATCH = 64

# Raise it when the same files give other images or other metadata.
_READING_VERSION = 2

Result = TypeVar("Result")

_SKIP = "Or set data.on_bad_image: skip to continue without it."


def read_images(
    data: DataConfig,
    cache: Path,
    remedy: str = _SKIP,
    least_classes: int = 2,
    subset: OfficialSubset | None = None,
) -> ImageSet:
    """The images of ``data.source`` at ``data.image_size``, decoded once and kept as a memory map.

    Args:
        data: source, size, choices of format, and what to do with an unreadable image.
        cache: path without suffix of the ``.npy`` and ``.json`` that are written. They replace the
            images while the files' names, sizes and times and the settings stay the same.
        remedy: what a user can do about an unreadable image, other than replace or remove it.
        least_classes: smallest number of classes.
        subset: the only official subset to read; all if None.

    Raises:
        DataError: the source has another layout, or an image is unreadable.
    """
    source = open_source(data, least_classes)
    if subset is not None:
        entries = tuple(entry for entry in source.entries if entry.official == subset)
        names = tuple(sorted({entry.class_name for entry in entries}))
        source = replace(source, entries=entries, class_names=names)
        if not entries:
            raise DataError(f"{source.path}: expected a subset of {subset} images, received none.")
    key = cache_key(source, data)
    manifest = _read_manifest(_cache_file(cache, ".json"), key)
    if manifest is None:
        manifest = _decode(source, data, cache, remedy)
        write_json(_cache_file(cache, ".json"), {"key": key, **manifest})
    return _from_cache(source, cache, manifest, data, least_classes)


def _cache_file(cache: Path, suffix: str) -> Path:
    """A file of the cache; ``with_suffix`` would cut a name that holds dots."""
    return cache.with_name(cache.name + suffix)


def cache_key(source: Source, data: DataConfig) -> str:
    """SHA-256 of everything that the decoded images depend on, without reading the images."""
    digest = hashlib.sha256()
    settings = data.model_dump(mode="json", exclude={"source", "phantoms", "symmetry"})
    digest.update(
        json.dumps([_READING_VERSION, FILTER, str(source.path.resolve()), settings]).encode()
    )
    for path in source.files():
        stat = path.stat()
        line = f"{path}\0{stat.st_size} {stat.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))  # names need not be UTF-8
    return digest.hexdigest()


def in_parallel(
    work: Callable[[Entry], Result], entries: Sequence[Entry]
) -> Iterator[tuple[Entry, Result]]:
    """Each entry with the result of ``work``, in order; a bounded number is in memory.

    Pillow and hashlib release the interpreter lock, so threads use every core.
    """
    with ThreadPoolExecutor(cpu_cores()) as pool:
        for start in range(0, len(entries), _BATCH):
            batch = entries[start : start + _BATCH]
            yield from zip(batch, pool.map(work, batch), strict=True)


def _read_manifest(path: Path, key: str) -> dict[str, Any] | None:
    """The manifest of an earlier decoding, or None if it is damaged or has another key."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("key") == key else None


def _decode(source: Source, data: DataConfig, cache: Path, remedy: str) -> dict[str, Any]:
    size = data.image_size
    salt = secrets.token_bytes(16)  # never stored, so guessed names cannot be verified
    files: list[list] = []
    unreadable: list[list[str]] = []
    masks, notes = 0, Counter[str]()
    make_folder(cache.parent)
    with (
        source.opened(cache.parent) as read,
        written_aside(_cache_file(cache, ".npy")) as temporary,
        temporary.open("wb") as stream,
    ):

        def decode(entry: Entry) -> list[tuple] | str:
            rows: list[tuple] = []
            try:
                for digest, picture in source.images_of(entry, read, size):
                    check_range(picture, entry.path)
                    image = reduce_image(picture.image, size)
                    rows.append((digest, image, picture.frame, picture.patient, picture.notes))
            except DataError as error:
                return str(error)
            return rows

        _write_header(stream, 0, size)
        for entry, rows in in_parallel(decode, source.entries):
            if isinstance(rows, str):
                unreadable.append([entry.class_name, rows])
                continue
            if not rows:
                masks += 1
            for digest, image, frame, patient, image_notes in rows:
                notes.update(image_notes)
                stream.write(image.tobytes())
                patient_pseudonym = pseudonym(entry.patient or patient, salt)
                name = str(relative_path(entry.path, source.root))
                files.append([name, digest, entry.class_name, frame, patient_pseudonym])
        refuse_unreadable([reason for _, reason in unreadable], data, remedy)
        stream.seek(0)
        _write_header(stream, len(files), size)
        # If the process ends between the two files, the old manifest must not describe new images.
        _cache_file(cache, ".json").unlink(missing_ok=True)
    return {"files": files, "skipped": unreadable, "masks": masks, "notes": dict(notes)}


def refuse_unreadable(reasons: Sequence[str], data: DataConfig, remedy: str = _SKIP) -> None:
    """Refuse files that cannot be read, unless the settings skip them.

    Raises:
        DataError: the first reason, and the number of further unreadable files.
    """
    if len(reasons) and data.on_bad_image == "stop":
        more = f" ({len(reasons) - 1} more unreadable)" if len(reasons) > 1 else ""
        raise DataError(f"{reasons[0]}{more} {remedy}".rstrip())


def _write_header(stream, count: int, size: int) -> None:
    """Write an .npy header, which NumPy pads so that the count can be rewritten in place."""
    shape = (count, size, size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


def pseudonym(patient: str | None, salt: bytes) -> str | None:
    """A name that is equal for equal patients and reveals nothing once the salt is gone."""
    if patient is None:
        return None
    return hashlib.blake2b(patient.encode(), digest_size=8, salt=salt).hexdigest()


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
) -> ImageSet:
    size = data.image_size
    files = tuple(
        ImageFile(source.root / name, digest, class_name, frame, patient)
        for name, digest, class_name, frame, patient in manifest["files"]
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
    return ImageSet(
        images=images,
        labels=np.array([index[file.class_name] for file in files], dtype=np.int32),
        class_names=class_names,
        files=files,
        skipped=tuple(reason for _, reason in skipped),
        masks=manifest["masks"],
        notes=manifest["notes"],
        formats=data.formats,
    )
