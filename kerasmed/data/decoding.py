"""From a source to a memory map: every image decoded once, on all cores, in bounded memory."""

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
from kerasmed.data.official import Part
from kerasmed.data.readers import FILTER, check_range, reduce_image
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError, StageError
from kerasmed.files import make_folder, write_json, written_aside
from kerasmed.runtime.hardware import cpu_cores

# How many entries are under way at once; bounds what waits in memory.
_BATCH = 64

# Raised where other images, or other facts of them, come of the same files.
_READING = 2

Result = TypeVar("Result")


_SKIP = "Or set data.on_bad_image: skip to go on without."


def read_images(
    data: DataConfig,
    cache: Path,
    remedy: str = _SKIP,
    least_classes: int = 2,
    part: Part | None = None,
) -> ImageSet:
    """The images of ``data.source`` at ``data.image_size``, decoded once and kept as a memory map.

    Args:
        data: source, size, choices of format, and what to do with an unreadable image.
        cache: path without suffix; ``.npy`` and ``.json`` are written there, and read instead of
            the images while the files' names, sizes and times and the settings stay the same.
        remedy: what can be done about an unreadable image, other than to replace or remove it.
        least_classes: how many classes there must be.
        part: of a set that comes divided, the only part to read; all if None.

    Raises:
        DataError: the source's layout, or an unreadable image, by name.
    """
    source = open_source(data, least_classes)
    if part is not None:
        entries = tuple(entry for entry in source.entries if entry.part == part)
        names = tuple(sorted({entry.class_name for entry in entries}))
        source = replace(source, entries=entries, class_names=names)
        if not entries:
            raise DataError(f"{source.path}: expected a part of {part} images, received none.")
    key = cache_key(source, data)
    manifest = _read_manifest(_beside(cache, ".json"), key)
    if manifest is None:
        manifest = _decode(source, data, cache, remedy)
        write_json(_beside(cache, ".json"), {"key": key, **manifest})
    return _from_cache(source, cache, manifest, data, least_classes)


def _beside(cache: Path, suffix: str) -> Path:
    """A file of the cache, whose name may hold dots."""
    return cache.with_name(cache.name + suffix)


def cache_key(source: Source, data: DataConfig) -> str:
    """SHA-256 of everything that the decoded images depend on, without reading any of them."""
    digest = hashlib.sha256()
    settings = data.model_dump(mode="json", exclude={"source", "phantoms", "symmetry"})
    digest.update(json.dumps([_READING, FILTER, str(source.path.resolve()), settings]).encode())
    for path in source.files():
        stat = path.stat()
        line = f"{path}\0{stat.st_size} {stat.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))  # names need not be UTF-8
    return digest.hexdigest()


def in_parallel(
    work: Callable[[Entry], Result], entries: Sequence[Entry]
) -> Iterator[tuple[Entry, Result]]:
    """Every entry with what ``work`` makes of it, in order, a bounded number under way.

    Pillow and hashlib let go of the interpreter lock, so threads use every core.
    """
    with ThreadPoolExecutor(cpu_cores()) as pool:
        for start in range(0, len(entries), _BATCH):
            batch = entries[start : start + _BATCH]
            yield from zip(batch, pool.map(work, batch), strict=True)


def _read_manifest(path: Path, key: str) -> dict[str, Any] | None:
    """The manifest of an earlier decoding, if it is whole and of the same files and settings."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("key") == key else None


def _decode(source: Source, data: DataConfig, cache: Path, remedy: str) -> dict[str, Any]:
    size = data.image_size
    salt = secrets.token_bytes(16)  # never kept: who a patient is cannot be tried out afterwards
    files: list[list] = []
    bad: list[list[str]] = []
    masks, notes = 0, Counter[str]()
    make_folder(cache.parent)
    with (
        source.opened(cache.parent) as read,
        written_aside(_beside(cache, ".npy")) as temporary,
        temporary.open("wb") as stream,
    ):

        def decode(entry: Entry) -> list[tuple] | str:
            rows: list[tuple] = []
            try:
                for digest, picture in source.images_of(entry, read, size):
                    check_range(picture, entry.path)
                    image = reduce_image(picture.image, size)
                    rows.append((digest, image, picture.part, picture.patient, picture.notes))
            except DataError as error:
                return str(error)
            return rows

        _write_header(stream, 0, size)
        for entry, rows in in_parallel(decode, source.entries):
            if isinstance(rows, str):
                bad.append([entry.class_name, rows])
                continue
            if not rows:
                masks += 1
            for digest, image, part, patient, faults in rows:
                notes.update(faults)
                stream.write(image.tobytes())
                who = pseudonym(entry.patient or patient, salt)
                name = str(relative_path(entry.path, source.root))
                files.append([name, digest, entry.class_name, part, who])
        refuse_unreadable([reason for _, reason in bad], data, remedy)
        stream.seek(0)
        _write_header(stream, len(files), size)
        # Should this end between the two files, the old manifest must not vouch for new images.
        _beside(cache, ".json").unlink(missing_ok=True)
    return {"files": files, "skipped": bad, "masks": masks, "notes": dict(notes)}


def refuse_unreadable(reasons: Sequence[str], data: DataConfig, remedy: str = _SKIP) -> None:
    """Stop at files that cannot be read, unless the settings skip them.

    Raises:
        DataError: the first reason, and how many more there are.
    """
    if len(reasons) and data.on_bad_image == "stop":
        more = f" ({len(reasons) - 1} more unreadable)" if len(reasons) > 1 else ""
        raise DataError(f"{reasons[0]}{more} {remedy}".rstrip())


def _write_header(stream, count: int, size: int) -> None:
    """An .npy header; NumPy pads it so that the count can be rewritten in place."""
    shape = (count, size, size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


def pseudonym(patient: str | None, salt: bytes) -> str | None:
    """A name that is equal for equal patients and tells nothing once the salt is forgotten."""
    if patient is None:
        return None
    return hashlib.blake2b(patient.encode(), digest_size=8, salt=salt).hexdigest()


def classes_left(
    source: Source,
    least_classes: int,
    present: Iterable[str],
    unreadable: Sequence[Sequence[str]],
) -> tuple[str, ...]:
    """The classes of a source without those that held nothing but masks, such as a folder `masks`.

    Args:
        source: with its classes.
        least_classes: how many there must be.
        present: the class of each image that could be read.
        unreadable: class and reason of each file that could not.

    Raises:
        DataError: a class of which no image can be read, or fewer than two classes.
    """
    there = set(present)
    for name, reason in unreadable:
        if name not in there:
            count = sum(other == name for other, _ in unreadable)
            raise DataError(
                f"No image left in class {name!r} of {source.path} ({count} unreadable): {reason}"
            )
    names = tuple(name for name in source.class_names if name in there)
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
        ImageFile(source.root / name, digest, class_name, part, patient)
        for name, digest, class_name, part, patient in manifest["files"]
    )
    skipped = manifest["skipped"]
    there = (file.class_name for file in files)
    class_names = classes_left(source, least_classes, there, skipped)
    path = _beside(cache, ".npy")
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
