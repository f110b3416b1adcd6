"""The file of one image."""

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
