"""One pass over a source: every file is read and decoded once, on all cores, in bounded memory."""

import hashlib
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from kerasmed.data.config import DataConfig
from kerasmed.data.entries import Entry, Source
from kerasmed.data.picture import Picture
from kerasmed.data.readers import FILTER, reduce_image
from kerasmed.errors import DataError
from kerasmed.fingerprint import Fingerprint
from kerasmed.runtime.hardware import cpu_cores

# Entries that are under way at once, which bounds the memory.
_BATCH = 64
# Entries of one task; fewer tasks cost less, more tasks keep every core busy.
_PER_TASK = 8

# Raise it when the same files give other images or other metadata.
_READING_VERSION = 4

Result = TypeVar("Result")


@dataclass(frozen=True)
class Decoded:
    """One image of a source, as it is handed to every collector.

    Attributes:
        entry: its entry.
        sha256: hash of the file's bytes, as in ``ImageFile``.
        picture: the decoded image.
    """

    entry: Entry
    sha256: str
    picture: Picture
    _reduced: dict[int, np.ndarray] = field(default_factory=dict)

    def reduced(self, size: int) -> np.ndarray:
        """The image by ``reduce_image``, once for each size."""
        if size not in self._reduced:
            self._reduced[size] = reduce_image(self.picture.image, size)
        return self._reduced[size]


class Collector(Protocol):
    """Takes from each image what one result of the pass needs."""

    def measure(self, image: Decoded) -> Any:
        """What is kept of an image; called in several threads at once.

        Raises:
            DataError: the entry counts as unreadable.
        """

    def add(self, entry: Entry, rows: list[Any] | str) -> None:
        """Add what ``measure`` returned for each image of an entry, or why it is unreadable.

        Entries come in the order of the source. An entry without images is a mask.
        """


def read_source(
    source: Source, scratch: Path, draft_size: int, collectors: Sequence[Collector]
) -> None:
    """Read every entry of a source once, for all collectors.

    Args:
        source: the files.
        scratch: as for ``Source.opened``.
        draft_size: as for ``read_pictures``.
        collectors: receive each image.
    """
    with source.opened(scratch) as read:

        def measure(entry: Entry) -> list[list[Any]] | str:
            columns: list[list[Any]] = [[] for _ in collectors]
            try:
                for digest, picture in source.images_of(entry, read, draft_size):
                    image = Decoded(entry, digest, picture)
                    for collector, column in zip(collectors, columns, strict=True):
                        column.append(collector.measure(image))
            except DataError as error:
                return str(error)
            return columns

        for entry, columns in in_parallel(measure, source.entries):
            for number, collector in enumerate(collectors):
                collector.add(entry, columns if isinstance(columns, str) else columns[number])


def in_parallel(
    work: Callable[[Entry], Result], entries: Sequence[Entry]
) -> Iterator[tuple[Entry, Result]]:
    """Each entry with the result of ``work``, in order; a bounded number is in memory.

    Pillow and hashlib release the interpreter lock, so threads use every core.
    """
    per_task = min(_PER_TASK, max(1, _BATCH // (2 * cpu_cores())))
    tasks: deque[Future[tuple[list[Result], BaseException | None]]] = deque()
    begun = done = 0
    with ThreadPoolExecutor(cpu_cores()) as pool:
        while done < len(entries):
            while begun < len(entries) and begun - done + per_task <= _BATCH:
                tasks.append(pool.submit(_each, work, entries[begun : begun + per_task]))
                begun = min(begun + per_task, len(entries))
            results, error = tasks.popleft().result()
            for result in results:
                yield entries[done], result
                done += 1
            if error is not None:
                raise error


def _each(
    work: Callable[[Entry], Result], entries: Sequence[Entry]
) -> tuple[list[Result], BaseException | None]:
    """The results up to the first error, and that error."""
    results: list[Result] = []
    try:
        for entry in entries:
            results.append(work(entry))
    except BaseException as error:
        return results, error
    return results, None


def made_from(source: Source, data: DataConfig) -> Fingerprint:
    """What the reading of a source depends on: settings; names, sizes and times of its files."""
    settings = data.model_dump(mode="json", exclude={"source", "phantoms", "symmetry"})
    place = {"source": str(source.path.resolve()), "filter": FILTER}
    return Fingerprint(settings | place, {"files": _listing(source.files())}, _READING_VERSION)


def _listing(paths: Sequence[Path]) -> str:
    """SHA-256 of the names, sizes and times of files."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        line = f"{path}\0{stat.st_size} {stat.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))  # names need not be UTF-8
    return digest.hexdigest()


_common_salt: ContextVar[bytes | None] = ContextVar("common_salt", default=None)


def new_salt() -> bytes:
    """What the pseudonyms of a reading depend on; never stored, so guesses cannot be verified."""
    return _common_salt.get() or secrets.token_bytes(16)


@contextmanager
def comparable_patients() -> Iterator[None]:
    """Within it, one patient has one pseudonym in all sets that are read."""
    token = _common_salt.set(secrets.token_bytes(16))
    try:
        yield
    finally:
        _common_salt.reset(token)


def pseudonym(patient: str | None, salt: bytes) -> str | None:
    """A name that is equal for equal patients and reveals nothing once the salt is gone."""
    if patient is None:
        return None
    return hashlib.blake2b(patient.encode(), digest_size=8, salt=salt).hexdigest()
