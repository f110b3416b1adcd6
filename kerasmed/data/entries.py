"""Files with their classes, and the images in them."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kerasmed.data.config import Formats
from kerasmed.data.masks import Suspicion, looks_like_mask, suspected_masks
from kerasmed.data.official import Part
from kerasmed.data.picture import Picture
from kerasmed.data.readers import read_pictures, stem_of
from kerasmed.errors import DataError
from kerasmed.files import sha256_of


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a source, or a row of an .npz, with its class.

    Attributes:
        path: the file.
        class_name: its class.
        row: of an .npz.
        patient: whom a table names.
        part: to which part of the set its publishers gave it.
        suspicion: why it may be a mask of another image, which its pixels decide.
    """

    path: Path
    class_name: str
    row: int | None = None
    patient: str | None = None
    part: Part | None = None
    suspicion: Suspicion | None = None


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
        formats: the choices of format.
        leaves_out_masks: whether what marks regions of other images is no image.
    """

    path: Path
    class_names: tuple[str, ...]
    entries: tuple[Entry, ...]
    formats: Formats
    leaves_out_masks: bool = True

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

    def images_of(
        self, entry: Entry, read: Read, draft_size: int | None
    ) -> Iterator[tuple[str, Picture]]:
        """SHA-256 and picture of each image of an entry; none where it is a mask.

        Args:
            entry: what is read.
            read: of ``opened``.
            draft_size: a size below which a JPEG need not be decoded.
        """
        if entry.suspicion is not None and self._is_mask(entry, entry.suspicion, read):
            return
        for digest, picture in read(entry, draft_size):
            if not (picture.is_mask and self.leaves_out_masks):
                yield digest, picture

    def _is_mask(self, entry: Entry, suspicion: Suspicion, read: Read) -> bool:
        if not looks_like_mask((picture for _, picture in read(entry, None)), suspicion):
            return False
        # Where the image holds as few values, all of the set's do.
        try:
            return not looks_like_mask(read_pictures(suspicion.image, self.formats), suspicion)
        except DataError:
            return True

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


def with_suspicions(entries: Iterable[Entry], root: Path) -> tuple[Entry, ...]:
    """The entries, those that may be masks by their names marked so."""
    entries = tuple(entries)
    paths = [entry.path for entry in entries]
    found = suspected_masks(paths, [stem_of(path) for path in paths], root)
    return tuple(
        replace(entry, suspicion=found[entry.path]) if entry.path in found else entry
        for entry in entries
    )


def root_of(source: Path) -> Path:
    """The folder that a source's files are named from: itself, or where the table lies."""
    return source if source.is_dir() else source.parent


def relative_path(path: Path, root: Path) -> Path:
    """The path below the root; as it is where it lies elsewhere."""
    return path.relative_to(root) if path.is_relative_to(root) else path


# Bytes of a folder's name that leave room for what file names add, within the 255 of most systems.
_LONGEST_NAME = 150
# The percent sign, and what some common system refuses in a name.
_REFUSED = '%/\\:*?"<>|'
# Windows takes these for devices, with any ending.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³]|conin\$|conout\$) *(\.|$)", re.I)


def folder_name(label: str) -> str:
    """The name of a label's folder on any common system; ``label_of_folder`` gives the label back.

    What cannot be part of it is written as in an address, such as ``%2E`` for a leading dot: the
    characters ``% / \\ : * ? " < > |``, control characters, a dot in front, a dot or a space at
    the end, and the first letter of what Windows takes for a device, such as ``CON``.

    Args:
        label: the name of a class.
    """
    last = len(label) - 1
    is_device = _DEVICE.match(label) is not None

    def is_refused(position: int, sign: str) -> bool:
        return (
            sign in _REFUSED
            or sign < " "
            or sign == "\x7f"
            or (position == 0 and (sign == "." or is_device))
            or (position == last and sign in ". ")
        )

    return "".join(
        f"%{ord(sign):02X}" if is_refused(position, sign) else sign
        for position, sign in enumerate(label)
    )


def label_of_folder(name: str) -> str:
    """The label whose ``folder_name`` this is; the name itself where it is that of none."""
    label = re.sub("%([0-7][0-9A-F])", lambda match: chr(int(match[1], 16)), name)
    return label if folder_name(label) == name else name


def checked_label(label: str, where: str) -> str:
    """A label of one line that is short enough for the folder in which synthetic images will lie.

    Raises:
        DataError: it is empty, of several lines or too long.
    """
    if not label or any(sign in label for sign in "\0\n\r"):
        raise DataError(f"{where}: expected a label of one line, received {label!r}; rename it.")
    if len(folder_name(label).encode(errors="surrogatepass")) > _LONGEST_NAME:
        raise DataError(
            f"{where}: expected a label that takes at most {_LONGEST_NAME} bytes as the name of a "
            f"folder, received {label!r}; shorten it."
        )
    return label


def sorted_by_class(
    entries: Iterable[Entry], path: Path, least_classes: int = 2
) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    """The classes' names, and the entries class by class.

    Raises:
        DataError: fewer than two classes.
    """
    names = tuple(sorted({entry.class_name for entry in entries}))
    if len(names) < least_classes:
        raise DataError(f"{path}: expected at least two classes, received {list(names)}.")
    return names, tuple(sorted(entries, key=lambda entry: entry.class_name))
