"""Files with their classes, and the images in them."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kerasmed.config import Formats
from kerasmed.data.readers import Picture, read_pictures
from kerasmed.errors import DataError
from kerasmed.files import sha256_of


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a source, or a row of an .npz, with its class."""

    path: Path
    class_name: str
    row: int | None = None
    patient: str | None = None


# SHA-256 (of the pixels' bytes in an .npz, else of the file's) and image, for each of an entry; the
# number is a size below which a JPEG need not be decoded.
Read = Callable[[Entry, int | None], Iterator[tuple[str, Picture]]]


@dataclass(frozen=True)
class Source:
    """Files with their classes.

    Attributes:
        path: the folder, table or archive that the user named.
        class_names: sorted.
        entries: in the order in which their images will stand.
        formats: choices for DICOM and NIfTI.
    """

    path: Path
    class_names: tuple[str, ...]
    entries: tuple[Entry, ...]
    formats: Formats

    @property
    def root(self) -> Path:
        """What the entries' paths are relative to in manifests."""
        return root_of(self.path)

    def files(self) -> list[Path]:
        """Every file that decides what the images are."""
        own = [] if self.path.is_dir() else [self.path]
        return own + [entry.path for entry in self.entries if entry.row is None]

    @contextmanager
    def opened(self, scratch: Path) -> Iterator[Read]:
        """A function that yields SHA-256 and image, for each image of an entry.

        Args:
            scratch: a folder for what must be unpacked until the block ends.
        """
        yield self._read_file

    def _read_file(self, entry: Entry, draft_size: int | None) -> Iterator[tuple[str, Picture]]:
        try:
            digest = sha256_of(entry.path)
        except OSError as error:
            raise DataError(
                f"Cannot read {entry.path}: {error.strerror}; mend its permissions or remove it."
            ) from None
        for picture in read_pictures(entry.path, self.formats, draft_size):
            own = digest
            if picture.part is not None:
                own = hashlib.sha256(f"{digest} {picture.part}".encode()).hexdigest()
            yield own, picture


def root_of(source: Path) -> Path:
    """The folder that a source's files are named from: itself, or where the table lies."""
    return source if source.is_dir() else source.parent


def relative_path(path: Path, root: Path) -> Path:
    """The path below the root; as it is where it lies elsewhere."""
    return path.relative_to(root) if path.is_relative_to(root) else path


def checked_label(label: str, where: str) -> str:
    """A label that can be the name of a folder, since synthetic images will lie in one."""
    if not label or label.startswith(".") or any(sign in label for sign in '/\\:*?"<>|\0\n\r'):
        raise DataError(
            f"{where}: expected a label that can name a folder, received {label!r}; rename it."
        )
    return label


def sorted_by_class(
    entries: Iterable[Entry], path: Path
) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    names = tuple(sorted({entry.class_name for entry in entries}))
    if len(names) < 2:
        raise DataError(f"{path}: expected at least two classes, received {list(names)}.")
    return names, tuple(sorted(entries, key=lambda entry: entry.class_name))
