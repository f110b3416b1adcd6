"""What an image is recognised by: its exact pixels, and 256 bits that survive small changes."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kerasmed.data.config import DataConfig
from kerasmed.data.entries import name_below
from kerasmed.data.image_file import ImageFile, numbered_name
from kerasmed.data.picture import levels_kept, pooled_range
from kerasmed.errors import DataError

COLUMNS = (
    *("names", "classes", "hashes", "pixel_hashes", "bits", "appearance", "patients"),
    *("frames", "official", "quantiles", "levels", "notes"),
)

LISTS = ("unreadable", "masks", "note_texts")


@dataclass(frozen=True)
class Measurements:
    """One row for each readable image.

    Attributes:
        names: (n,) the images' names, as in ``ImageFile.name``, relative to the source.
        classes: (n,) the names of their classes.
        hashes: bytes (n,), SHA-256 as in ``ImageFile.sha256``.
        pixel_hashes: bytes (n,), SHA-256 of size and RGB bytes, at the image's own size.
        bits: uint8 (n, 32), the packed perceptual hashes of ``perceptual_bits``.
        appearance: APPEARANCE (n,). Brightness and border are means, 0 to 255. For an image that
            needs a range they are in the file's own values, see ``in_range``.
        patients: (n,), equal for images of one patient, otherwise without meaning; "" if unnamed.
        frames: int32 (n,), the frame, slice or row in the file, or -1.
        official: (n,), the subset that the publishers gave the image, or "".
        quantiles: float32 (n, len(QUANTILE_LEVELS)) or (n, 0), those of the pixels of files of more
            than 8 bits, as in ``distribution``; NaN for other files.
        levels: the same for their distinct values.
        notes: int32 (n,), positions in ``note_texts``.
        note_texts: ignored faults of a file, one a line; the first text is empty.
        unreadable: (m,), files that could not be read, with the reason.
        masks: (k,), files left out because they mark regions of other images.
    """

    names: np.ndarray
    classes: np.ndarray
    hashes: np.ndarray
    pixel_hashes: np.ndarray
    bits: np.ndarray
    appearance: np.ndarray
    patients: np.ndarray
    frames: np.ndarray
    official: np.ndarray
    quantiles: np.ndarray
    levels: np.ndarray
    notes: np.ndarray
    note_texts: np.ndarray
    unreadable: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def files(self, root: Path) -> tuple[ImageFile, ...]:
        """The file of each image. Patients have pseudonyms that only this reading uses."""
        hashes, patients = self.hashes.astype(str), self.patients
        columns = (self.names, hashes, self.classes, self.frames, patients, self.notes)
        notes_of = [tuple(text.split("\n")) if text else () for text in self.note_texts.tolist()]
        return tuple(
            ImageFile(
                root / (name if frame < 0 else name.rpartition("#")[0]),
                digest,
                class_name,
                None if frame < 0 else frame,
                patient or None,
                notes_of[note],
            )
            for name, digest, class_name, frame, patient, note in zip(
                *(column.tolist() for column in columns), strict=True
            )
        )

    def subset(self, indices: np.ndarray) -> "Measurements":
        """The measurements of the images at the given positions, in that order."""
        return replace(self, **{name: getattr(self, name)[indices] for name in COLUMNS})

    def refuse_empty(self, data: DataConfig) -> None:
        """Refuse a set without images.

        Raises:
            DataError: no image is left; names the first unreadable file, or the setting for masks.
        """
        if len(self):
            return
        if len(self.unreadable):
            raise DataError(
                f"No image of {data.source} can be read ({len(self.unreadable)} files): "
                f"{self.unreadable[0]}"
            )
        raise DataError(
            f"{data.source}: expected images, received {len(self.masks)} files that look like "
            "masks; set data.masks: keep to use them as images."
        )

    @property
    def need_range(self) -> np.ndarray:
        """Whether no file or setting says which values are black and white: bool (n,)."""
        return self.appearance["kept"] < 0

    def common_range(self, chosen: np.ndarray | None = None) -> tuple[float, float] | None:
        """Black and white of the images that need a range, or None if no image needs one.

        Args:
            chosen: positions of the images whose values decide; all if None. Images that need no
                range do not count. If none of the chosen images needs one, all others decide.
        """
        if not self.need_range.any():
            return None
        rows = np.flatnonzero(self.need_range)
        deciding = rows if chosen is None else np.intersect1d(rows, chosen)
        return (
            pooled_range(self.quantiles[deciding]) or pooled_range(self.quantiles[rows]) or (0, 1)
        )

    def in_range(self, grey_range: tuple[float, float] | None) -> "Measurements":
        """The measurements of the images as they look in this range, if they need one."""
        if grey_range is None or not self.need_range.any():
            return self
        low, high = grey_range
        rows, appearance = self.need_range, self.appearance.copy()
        inverted = appearance["inverted"][rows]
        for name in ("brightness", "border"):
            grey = np.clip((appearance[name][rows] - low) / (high - low), 0, 1) * 255
            flipped = inverted.reshape(-1, *[1] * (grey.ndim - 1))
            appearance[name][rows] = np.where(flipped, 255 - grey, grey)
        appearance["kept"][rows] = levels_kept(
            self.levels[rows], appearance["held"][rows], low, high
        )
        return replace(self, appearance=appearance)


APPEARANCE = np.dtype(
    [
        ("width", np.int32),
        ("height", np.int32),
        ("kind", "U40"),
        ("bytes", np.int64),
        ("brightness", np.float32),
        ("border", np.float32, 3),
        # Distinct values in the file and distinct grey levels shown, for files of more than 8 bits,
        # otherwise 0. The levels are -1 while they depend on an unknown range.
        ("held", np.int32),
        ("kept", np.int32),
        ("inverted", np.bool_),  # low values are shown white
    ]
)


def name_in_set(path: Path, frame: int | None, root: Path) -> str:
    """The image's name as in ``ImageFile.name``, relative to the root."""
    return numbered_name(name_below(path, root), frame)
