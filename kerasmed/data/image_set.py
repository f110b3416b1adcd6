"""Labelled images: their uint8 array, usually a memory map, and the file of each image."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed.errors import DataError
from kerasmed.files import nameless_file

# Bytes above which a subset is copied into a file and not into memory.
_MAX_BYTES_IN_MEMORY = 2**28


@dataclass(frozen=True, slots=True)
class ImageFile:
    """Where one image of a set came from.

    Attributes:
        path: the file.
        sha256: hash of the file's bytes; of these and the frame's number if the file holds several
            images; of the pixels' bytes in an .npz.
        class_name: its class.
        frame: frame, slice or row in the file, counted from 0; None if the file holds one image.
        patient: equal for images of one patient, otherwise without meaning; None if unnamed.
    """

    path: Path
    sha256: str
    class_name: str
    frame: int | None = None
    patient: str | None = None

    @property
    def name(self) -> str:
        """The path, followed by the frame if the file holds several images."""
        return str(self.path) if self.frame is None else f"{self.path}#{self.frame}"


@dataclass(frozen=True)
class ImageSet:
    """Labelled images, real or synthetic.

    Attributes:
        images: uint8 (n, size, size, 3), 0 to 255; usually a memory map.
        labels: int32 (n,), indices into ``class_names``.
        class_names: sorted names of the classes.
        files: where each image came from, in the same order.
        skipped: unreadable files that were left out, with the reason.
        masks: number of files left out because they mark regions of other images.
        notes: ignored faults of files, and the number of images that have each.
        formats: the choices of format that differ from the default; they change the images.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    files: tuple[ImageFile, ...]
    skipped: tuple[str, ...] = ()
    masks: int = 0
    notes: dict[str, int] = field(default_factory=dict)
    formats: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.images.shape[1]

    @property
    def data_hash(self) -> str:
        """SHA-256 of every file's hash and class, in order, and of the choices of format."""
        digest = hashlib.sha256()
        if self.formats:
            digest.update(json.dumps(self.formats, sort_keys=True).encode())
        for file in self.files:
            line = f"{file.sha256} {file.class_name}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images at the given positions, in that order, copied.

        The copy is in memory, or for many images in an unnamed file in the memory map's folder.
        """
        return replace(
            self,
            images=_rows(self.images, np.asarray(indices, np.int64)),
            labels=self.labels[indices],
            files=tuple(self.files[i] for i in indices),
            skipped=(),
        )

    def counts(self, indices: np.ndarray | None = None) -> dict[str, int]:
        """Number of images of each class, among all or among those at the given positions."""
        labels = self.labels if indices is None else self.labels[indices]
        numbers = np.bincount(labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, numbers.tolist(), strict=True))


def _rows(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    map_path = getattr(images, "filename", None)
    if map_path is None or images[:1].nbytes * len(indices) <= _MAX_BYTES_IN_MEMORY:
        return np.asarray(images[indices])
    rows_at_once = max(1, _MAX_BYTES_IN_MEMORY // images[:1].nbytes)
    with nameless_file(Path(map_path).parent) as file:
        for start in range(0, len(indices), rows_at_once):
            file.write(images[indices[start : start + rows_at_once]].tobytes())
        file.flush()
        return np.memmap(file, images.dtype, "c", shape=(len(indices), *images.shape[1:]))


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
        formats=first.formats,
    )
