"""Files with their classes, and the images in them."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kerasmed.data import raster
from kerasmed.data.config import Formats
from kerasmed.data.masks import Suspicion, looks_like_mask, suspected_masks
from kerasmed.data.official import OfficialSubset
from kerasmed.data.picture import Picture
from kerasmed.data.readers import read_pictures, stem_of, suffix_of
from kerasmed.errors import DataError
from kerasmed.files import sha256_of


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a source, or a row of an .npz, with its class.

    Attributes:
        path: the file.
        class_name: its class.
        row: number of the row in an .npz.
        patient: patient that a table names.
        official: subset of the set that its publishers put it in.
        suspicion: why it may be a mask of another image; its pixels decide.
    """

    path: Path
    class_name: str
    row: int | None = None
    patient: str | None = None
    official: OfficialSubset | None = None
    suspicion: Suspicion | None = None


# Yields SHA-256 and picture for each image of an entry. The hash is of the pixels' bytes in an
# .npz, otherwise of the file's bytes. The number is ``draft_size`` of ``read_pictures``.
Read = Callable[[Entry, int | None], Iterator[tuple[str, Picture]]]


@dataclass(frozen=True)
class Source:
    """Files with their classes.

    Attributes:
        path: the folder, table or archive that the user named.
        class_names: sorted names of the classes.
        entries: files, in the order of their images in the set.
        formats: the choices of format.
        leaves_out_masks: whether masks of other images are left out.
    """

    path: Path
    class_names: tuple[str, ...]
    entries: tuple[Entry, ...]
    formats: Formats
    leaves_out_masks: bool = True

    @property
    def root(self) -> Path:
        """The folder that paths in manifests are relative to."""
        return root_of(self.path)

    def files(self) -> list[Path]:
        """Every file that the images depend on."""
        own = [] if self.path.is_dir() else [self.path]
        return own + [entry.path for entry in self.entries if entry.row is None]

    @contextmanager
    def opened(self, scratch: Path) -> Iterator[Read]:
        """A function that yields SHA-256 and picture for each image of an entry.

        Args:
            scratch: folder for files that are unpacked until the block ends.
        """
        yield self._read_file

    def images_of(
        self, entry: Entry, read: Read, draft_size: int | None
    ) -> Iterator[tuple[str, Picture]]:
        """SHA-256 and picture of each image of an entry; nothing if it is a mask.

        Args:
            entry: the file or row.
            read: the function that ``opened`` gave.
            draft_size: as for ``read_pictures``.
        """
        if entry.suspicion is not None and self._is_mask(entry, entry.suspicion, read):
            return
        for digest, picture in read(entry, draft_size):
            if not (picture.is_mask and self.leaves_out_masks):
                yield digest, picture

    def _is_mask(self, entry: Entry, suspicion: Suspicion, read: Read) -> bool:
        if not looks_like_mask((picture for _, picture in read(entry, None)), suspicion):
            return False
        # If the image holds as few values, so do all images of the set.
        try:
            return not looks_like_mask(read_pictures(suspicion.image, self.formats), suspicion)
        except DataError:
            return True

    def _read_file(self, entry: Entry, draft_size: int | None) -> Iterator[tuple[str, Picture]]:
        content = None
        try:
            if suffix_of(entry.path) in raster.SUFFIXES:
                content = entry.path.read_bytes()
                digest = hashlib.sha256(content).hexdigest()
            else:  # volumes may be large
                digest = sha256_of(entry.path)
        except OSError as error:
            raise DataError(
                f"Cannot read {entry.path}: {error.strerror}; correct its permissions or remove it."
            ) from None
        for picture in read_pictures(entry.path, self.formats, draft_size, content):
            image_digest = digest
            if picture.frame is not None:
                image_digest = hashlib.sha256(f"{digest} {picture.frame}".encode()).hexdigest()
            yield image_digest, picture


def with_suspicions(entries: Iterable[Entry], root: Path) -> tuple[Entry, ...]:
    """The entries, with a ``suspicion`` where their names suggest masks."""
    entries = tuple(entries)
    paths = [entry.path for entry in entries]
    suspicions = suspected_masks(paths, [stem_of(path) for path in paths], root)
    return tuple(
        replace(entry, suspicion=suspicions[entry.path]) if entry.path in suspicions else entry
        for entry in entries
    )


def root_of(source: Path) -> Path:
    """The folder that a source's files are relative to: a folder itself, or that of a file."""
    return source if source.is_dir() else source.parent


def relative_path(path: Path, root: Path) -> Path:
    """The path relative to the root; unchanged if it is not below the root."""
    return path.relative_to(root) if path.is_relative_to(root) else path


def name_below(path: Path, root: Path) -> str:
    """``str(relative_path(path, root))``, in a tenth of the time."""
    name, start = str(path), f"{root}".rstrip(os.sep) + os.sep
    return name[len(start) :] if name.startswith(start) else str(relative_path(path, root))


# Most bytes of a folder's name; file names add to it, and most systems allow 255.
_LONGEST_NAME = 150
# The percent sign, and characters that a common system refuses in a name.
_REFUSED = '%/\\:*?"<>|'
# Windows takes these names for devices, with any suffix.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³]|conin\$|conout\$) *(\.|$)", re.I)


def folder_name(label: str) -> str:
    """The name of a label's folder on any common system; the inverse of ``label_of_folder``.

    Refused characters are percent-encoded, such as ``%2E`` for a leading dot. These are
    ``% / \\ : * ? " < > |``, control characters, a leading dot, and a dot or a space at the end. Of
    a device name of Windows, such as ``CON``, the first letter is encoded.

    Args:
        label: the name of a class.
    """
    last = len(label) - 1
    is_device = _DEVICE.match(label) is not None

    def is_refused(position: int, character: str) -> bool:
        return (
            character in _REFUSED
            or character < " "
            or character == "\x7f"
            or (position == 0 and (character == "." or is_device))
            or (position == last and character in ". ")
        )

    return "".join(
        f"%{ord(character):02X}" if is_refused(position, character) else character
        for position, character in enumerate(label)
    )


def label_of_folder(name: str) -> str:
    """The label whose ``folder_name`` this is; the name itself if it is not such a name."""
    label = re.sub("%([0-7][0-9A-F])", lambda match: chr(int(match[1], 16)), name)
    return label if folder_name(label) == name else name


def checked_label(label: str, where: str) -> str:
    """The label, if it is one line that is short enough for the name of a folder.

    Raises:
        DataError: the label is empty, has several lines or is too long.
    """
    if not label or any(character in label for character in "\0\n\r"):
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
    """The sorted class names, and the entries sorted by class.

    Raises:
        DataError: there are fewer than ``least_classes`` classes.
    """
    names = tuple(sorted({entry.class_name for entry in entries}))
    if len(names) < least_classes:
        raise DataError(
            f"{path}: expected at least two classes, received {list(names)}; add images of another "
            "class."
        )
    return names, tuple(sorted(entries, key=lambda entry: entry.class_name))
