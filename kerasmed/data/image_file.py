"""The file of one image."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


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
        notes: ignored faults of the file, and SYNTHETIC if it is marked so.
    """

    path: Path
    sha256: str
    class_name: str
    frame: int | None = None
    patient: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """See ``numbered_name``."""
        return numbered_name(self.path, self.frame)


def numbered_name(path: Path | str, frame: int | None) -> str:
    """The path, followed by the number of the frame, slice or row if the file holds several."""
    return str(path) if frame is None else f"{path}#{frame}"


def common_folder(files: Iterable[ImageFile]) -> Path:
    """The folder that holds all files; ``Path()`` if their paths have no beginning in common."""
    try:
        return Path(os.path.commonpath([file.path.parent for file in files]))
    except ValueError:  # some are absolute and some relative, or they are on several drives
        return Path()
