"""What an image is recognised by: its exact pixels, and 256 bits that survive small changes."""

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image
from scipy.fft import dctn

from kerasmed.config import DataConfig
from kerasmed.data.decoding import cache_key, in_parallel, pseudonym
from kerasmed.data.entries import Entry, relative_path
from kerasmed.data.image_set import ImageFile
from kerasmed.data.readers import Picture
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError
from kerasmed.files import make_folder, written_aside

BITS = 256
_EDGE = 16  # of the square of DCT coefficients; its area is BITS
_REDUCED = 64
_BORDER = 0.03  # of the edge, where the colour around a scan is looked at


@dataclass(frozen=True)
class Fingerprints:
    """One row an image that can be read.

    Attributes:
        names: (n,) the images' names, as ``ImageFile.name`` gives them, below the source.
        classes: (n,) their classes' names.
        hashes: bytes (n,) SHA-256 as in ``ImageFile.sha256``.
        pixel_hashes: bytes (n,) SHA-256 of size and RGB bytes, at the image's own size.
        bits: uint8 (n, 32), perceptual hashes as ``perceptual_bits`` makes them, packed.
        appearance: APPEARANCE (n,); brightness and border are means, 0 to 255.
        patients: (n,) equal for images of one patient, else without meaning; "" for nobody.
        unreadable: (m,) files that could not be read, with the reason.
    """

    names: np.ndarray
    classes: np.ndarray
    hashes: np.ndarray
    pixel_hashes: np.ndarray
    bits: np.ndarray
    appearance: np.ndarray
    patients: np.ndarray
    unreadable: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def of(self, files: tuple[ImageFile, ...], root: Path) -> "Fingerprints":
        """The rows of the given files, in their order.

        Raises:
            DataError: one of them could not be read this time.
        """
        row_of = {name: row for row, name in enumerate(self.names.tolist())}
        try:
            rows = np.array([row_of[_name(file.path, file.part, root)] for file in files])
        except KeyError as error:
            raise DataError(
                f"{error} was read once and not a second time; mend or remove the file."
            ) from None
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        return Fingerprints(**columns, unreadable=self.unreadable)


_COLUMNS = ("names", "classes", "hashes", "pixel_hashes", "bits", "appearance", "patients")
_ROWS = 8192  # that are kept as Python objects
APPEARANCE = np.dtype(
    [
        ("width", np.int32),
        ("height", np.int32),
        ("kind", "U40"),
        ("bytes", np.int64),
        ("brightness", np.float32),
        ("border", np.float32, 3),
    ]
)


_DTYPES: dict[str, Any] = {
    "hashes": np.bytes_,
    "pixel_hashes": np.bytes_,
    "bits": np.uint8,
    "appearance": APPEARANCE,
}


def perceptual_bits(grey: np.ndarray) -> np.ndarray:
    """Signs of the 16 x 16 lowest coefficients of the cosine transform.

    Recompression, noise, contrast and brightness change few of them. Mirroring an image changes the
    sign of every coefficient of odd frequency in that direction, and a quarter turn exchanges rows
    and columns beside, so the bits of all eight flips and turns follow from those of one.

    Args:
        grey: (..., 64, 64), any range.

    Returns:
        bool (..., 16, 16).

    Source: the DCT hash of Zauner, "Implementation and benchmarking of perceptual image hash
    functions" (2010), with signs in place of a comparison with the median.
    """
    return dctn(grey.astype(np.float32), axes=(-2, -1))[..., :_EDGE, :_EDGE] > 0


def read_fingerprints(data: DataConfig, cache: Path) -> Fingerprints:
    """Fingerprints of every image of ``data.source``, computed once.

    Args:
        data: source and choices of format; its image size plays no part.
        cache: path without suffix; ``.npz`` is written there.

    Raises:
        DataError: the source's layout. An unreadable image is listed instead.
    """
    source = open_source(data)
    # Whatever the size, the fingerprints are the same: one key serves all.
    key = cache_key(source, data.model_copy(update={"image_size": 0, "on_bad_image": "skip"}))
    path = cache.with_suffix(".npz")
    found = _read_cached(path, key)
    if found is not None:
        return found
    salt = secrets.token_bytes(16)
    parts: list[dict[str, np.ndarray]] = []
    rows: list[tuple] = []
    unreadable: list[str] = []
    make_folder(cache.parent)
    with source.opened(cache.parent) as read:

        def examine(entry: Entry) -> list[tuple] | str:
            try:
                return [
                    (
                        _name(entry.path, each.part, source.root),
                        entry.class_name,
                        digest,
                        *_examine(each, entry),
                        pseudonym(entry.patient or each.patient, salt) or "",
                    )
                    for digest, each in read(entry, None)
                ]
            except DataError as error:
                return str(error)

        for _, examined in in_parallel(examine, source.entries):
            if isinstance(examined, str):
                unreadable.append(examined)
            else:
                rows += examined
            if len(rows) >= _ROWS:
                parts.append(_as_columns(rows))
                rows = []
    if rows or not parts:
        parts.append(_as_columns(rows))
    arrays = {name: np.concatenate([part.pop(name) for part in parts]) for name in _COLUMNS}
    arrays["unreadable"] = np.array(unreadable, dtype=np.str_)
    with written_aside(path) as temporary:
        np.savez(temporary, allow_pickle=False, key=np.array(key), **arrays)
    return Fingerprints(**arrays)


def _as_columns(rows: list[tuple]) -> dict[str, np.ndarray]:
    """Rows as arrays, which take a tenth of their memory."""
    columns = zip(*rows, strict=True) if rows else [()] * len(_COLUMNS)
    return {
        name: np.array(list(column), dtype=_DTYPES.get(name, np.str_))
        for name, column in zip(_COLUMNS, columns, strict=True)
    }


def _name(path: Path, part: int | None, root: Path) -> str:
    return ImageFile(relative_path(path, root), "", "", part).name


def _examine(picture: Picture, entry: Entry) -> tuple[str, np.ndarray, tuple]:
    image = picture.image
    pixels = np.asarray(image)
    digest = hashlib.sha256(f"{image.size}".encode() + pixels.tobytes()).hexdigest()
    grey = image.convert("L")
    reduced = np.asarray(grey.resize((_REDUCED, _REDUCED), Image.Resampling.BICUBIC))
    rows, columns = (max(1, round(_BORDER * n)) for n in pixels.shape[:2])
    border = np.ones(pixels.shape[:2], dtype=bool)
    border[rows:-rows, columns:-columns] = False
    size = 0 if entry.row is not None else entry.path.stat().st_size
    row = (*image.size, picture.kind, size, reduced.mean(), tuple(pixels[border].mean(axis=0)))
    return digest, np.packbits(perceptual_bits(reduced)), row


def _read_cached(path: Path, key: str) -> Fingerprints | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return Fingerprints(**{name: stored[name] for name in (*_COLUMNS, "unreadable")})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
