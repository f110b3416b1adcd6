"""What an image is recognised by: its exact pixels, and 256 bits that survive small changes."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kerasmed.data.config import DataConfig
from kerasmed.data.entries import relative_path
from kerasmed.data.image_set import ImageFile
from kerasmed.data.picture import levels_kept, pooled_range
from kerasmed.errors import DataError

BITS = 256
COLUMNS = (
    *("names", "classes", "hashes", "pixel_hashes", "bits", "appearance", "patients"),
    *("parts", "official", "quantiles", "levels", "notes"),
)

LISTS = ("unreadable", "masks", "note_texts")


@dataclass(frozen=True)
class Fingerprints:
    """One row an image that can be read.

    Attributes:
        names: (n,) the images' names, as ``ImageFile.name`` gives them, below the source.
        classes: (n,) their classes' names.
        hashes: bytes (n,) SHA-256 as in ``ImageFile.sha256``.
        pixel_hashes: bytes (n,) SHA-256 of size and RGB bytes, at the image's own size.
        bits: uint8 (n, 32), perceptual hashes as ``perceptual_bits`` makes them, packed.
        appearance: APPEARANCE (n,); brightness and border are means, 0 to 255; of an image that
            needs a range they are in the file's own values, see ``in_range``.
        patients: (n,) equal for images of one patient, else without meaning; "" for nobody.
        parts: int32 (n,) the frame, slice or row in the file, or -1.
        official: (n,) the part of the set to which its publishers gave the image, or "".
        quantiles: float32 (n, len(SHARES)) or (n, 0) of the pixels of files of more than 8 bits, as
            ``distribution`` gives them; NaN for others.
        levels: the same of their different values.
        notes: int32 (n,) positions in ``note_texts``.
        note_texts: faults of a file that were ignored, a line each; the first text is empty.
        unreadable: (m,) files that could not be read, with the reason.
        masks: (k,) files that were left out since they mark regions of other images.
    """

    names: np.ndarray
    classes: np.ndarray
    hashes: np.ndarray
    pixel_hashes: np.ndarray
    bits: np.ndarray
    appearance: np.ndarray
    patients: np.ndarray
    parts: np.ndarray
    official: np.ndarray
    quantiles: np.ndarray
    levels: np.ndarray
    notes: np.ndarray
    note_texts: np.ndarray
    unreadable: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def of(self, files: tuple[ImageFile, ...], root: Path) -> "Fingerprints":
        """The rows of the given files, in their order.

        Raises:
            DataError: one of them could not be read this time.
        """
        row_of = {name: row for row, name in enumerate(self.names.tolist())}
        try:
            rows = np.array([row_of[name_in_set(file.path, file.part, root)] for file in files])
        except KeyError as error:
            raise DataError(
                f"{error} was read once and not a second time; mend or remove the file."
            ) from None
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        return replace(self, **columns)

    def files(self, root: Path) -> tuple[ImageFile, ...]:
        """Where each image came from. Names of patients are pseudonyms of this reading alone."""
        columns = (self.names, self.hashes.astype(str), self.classes, self.parts, self.patients)
        return tuple(
            ImageFile(
                root / (name if part < 0 else name.rpartition("#")[0]),
                digest,
                class_name,
                None if part < 0 else part,
                patient or None,
            )
            for name, digest, class_name, part, patient in zip(
                *(column.tolist() for column in columns), strict=True
            )
        )

    def refuse_empty(self, data: DataConfig) -> None:
        """Refuse a set of which no image is left.

        Raises:
            DataError: naming the first unreadable file, or the setting that keeps masks.
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
        """Whether nothing says which values of an image are black and white: bool (n,)."""
        return self.appearance["kept"] < 0

    def common_range(self, chosen: np.ndarray | None = None) -> tuple[float, float] | None:
        """Black and white of the images that need a range, by their values.

        Args:
            chosen: positions of the images whose values decide, of which those that need none
                do not count; all if None.

        Returns:
            None where no image needs one. Where none of those chosen does, all others decide.
        """
        if not self.need_range.any():
            return None
        rows = np.flatnonzero(self.need_range)
        some = rows if chosen is None else np.intersect1d(rows, chosen)
        return pooled_range(self.quantiles[some]) or pooled_range(self.quantiles[rows]) or (0, 1)

    def in_range(self, grey_range: tuple[float, float] | None) -> "Fingerprints":
        """As the images look once those that need a range are shown in this one."""
        if grey_range is None or not self.need_range.any():
            return self
        low, high = grey_range
        rows, seen = self.need_range, self.appearance.copy()
        inverted = seen["inverted"][rows]
        for name in ("brightness", "border"):
            grey = np.clip((seen[name][rows] - low) / (high - low), 0, 1) * 255
            flipped = inverted.reshape(-1, *[1] * (grey.ndim - 1))
            seen[name][rows] = np.where(flipped, 255 - grey, grey)
        seen["kept"][rows] = levels_kept(self.levels[rows], seen["held"][rows], low, high)
        return replace(self, appearance=seen)


APPEARANCE = np.dtype(
    [
        ("width", np.int32),
        ("height", np.int32),
        ("kind", "U40"),
        ("bytes", np.int64),
        ("brightness", np.float32),
        ("border", np.float32, 3),
        # Of files of more than 8 bits, else 0: different values in the file, and different grey
        # levels shown; -1 where that depends on a range that is not known yet.
        ("held", np.int32),
        ("kept", np.int32),
        ("inverted", np.bool_),  # low values are shown white
    ]
)


def name_in_set(path: Path, part: int | None, root: Path) -> str:
    """The image's name, as ``ImageFile.name`` gives it."""
    return ImageFile(relative_path(path, root), "", "", part).name
