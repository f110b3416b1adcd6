"""What an image is recognised by: its exact pixels, and 256 bits that survive small changes."""

import hashlib
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image
from scipy.fft import dctn

from kerasmed.config import DataConfig
from kerasmed.data.decoding import cache_key, in_parallel, pseudonym
from kerasmed.data.entries import Entry, Source, relative_path
from kerasmed.data.image_set import ImageFile
from kerasmed.data.picture import SHARES, Picture, distribution, levels_kept, pooled_range
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
            rows = np.array([row_of[_name(file.path, file.part, root)] for file in files])
        except KeyError as error:
            raise DataError(
                f"{error} was read once and not a second time; mend or remove the file."
            ) from None
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
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


_COLUMNS = (
    *("names", "classes", "hashes", "pixel_hashes", "bits", "appearance", "patients"),
    *("parts", "official", "quantiles", "levels", "notes"),
)
_WIDE = ("quantiles", "levels")
_LISTS = ("unreadable", "masks", "note_texts")
_ROWS = 8192  # that are kept as Python objects
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


_DTYPES: dict[str, Any] = {
    "hashes": np.bytes_,
    "pixel_hashes": np.bytes_,
    "bits": np.uint8,
    "appearance": APPEARANCE,
    "parts": np.int32,
    "notes": np.int32,
    "quantiles": np.float32,
    "levels": np.float32,
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
    masks: list[str] = []
    note_texts = {"": 0}
    make_folder(cache.parent)
    with source.opened(cache.parent) as read:

        def examine(entry: Entry) -> list[tuple] | str:
            try:
                return [
                    _row(digest, picture, entry, source, salt)
                    for digest, picture in source.images_of(entry, read, None)
                ]
            except DataError as error:
                return str(error)

        for entry, examined in in_parallel(examine, source.entries):
            if isinstance(examined, str):
                unreadable.append(examined)
            elif examined:
                rows += [
                    (*row, note_texts.setdefault(text, len(note_texts))) for *row, text in examined
                ]
            else:
                masks.append(_name(entry.path, None, source.root))
            if len(rows) >= _ROWS:
                parts.append(_as_columns(rows))
                rows = []
    if rows or not parts:
        parts.append(_as_columns(rows))
    _fill_quantiles(parts)
    arrays = {name: np.concatenate([part.pop(name) for part in parts]) for name in _COLUMNS}
    lists = {"unreadable": unreadable, "masks": masks, "note_texts": list(note_texts)}
    arrays |= {name: np.array(values, dtype=np.str_) for name, values in lists.items()}
    with written_aside(path) as temporary:
        np.savez(temporary, allow_pickle=False, key=np.array(key), **arrays)
    return Fingerprints(**arrays)


def _row(digest: str, picture: Picture, entry: Entry, source: Source, salt: bytes) -> tuple:
    """What is kept of an image, in the order of _COLUMNS."""
    pixel_hash, bits, seen, quantiles, levels = _examine(picture, entry)
    return (
        _name(entry.path, picture.part, source.root),
        entry.class_name,
        digest,
        pixel_hash,
        bits,
        seen,
        pseudonym(entry.patient or picture.patient, salt) or "",
        -1 if picture.part is None else picture.part,
        entry.part or "",
        quantiles,
        levels,
        "\n".join(picture.notes),
    )


def _as_columns(rows: list[tuple]) -> dict[str, np.ndarray]:
    """Rows as arrays, which take a tenth of their memory."""
    transposed = zip(*rows, strict=True) if rows else [()] * len(_COLUMNS)
    columns = dict(zip(_COLUMNS, transposed, strict=True))
    arrays = {
        name: np.array(list(column), dtype=_DTYPES.get(name, np.str_))
        for name, column in columns.items()
    }
    for name in _WIDE:
        values = arrays[name].reshape(len(rows), len(SHARES))
        arrays[name] = values[:, :0] if np.isnan(values).all() else values
    return arrays


def _fill_quantiles(parts: list[dict[str, np.ndarray]]) -> None:
    """Rows of NaN where some images of the set have quantiles and those of a part have none."""
    width = max(part["quantiles"].shape[1] for part in parts)
    for part in parts:
        for name in _WIDE:
            if part[name].shape[1] < width:
                part[name] = np.full((len(part["names"]), width), np.nan, np.float32)


def _name(path: Path, part: int | None, root: Path) -> str:
    return ImageFile(relative_path(path, root), "", "", part).name


def _examine(picture: Picture, entry: Entry) -> tuple:
    """Hash of the pixels, perceptual bits, a row of APPEARANCE, and quantiles as kept."""
    image = picture.image
    shown = np.asarray(image)
    pixels = shown
    if picture.needs_range and picture.values is not None:
        pixels = picture.values if picture.values.ndim == 3 else picture.values[..., None]
        finite = pixels[np.isfinite(pixels)]
        # What the file has no values for is shown black.
        black = (finite.max() if picture.inverted else finite.min()) if finite.size else 0
        pixels = np.where(np.isfinite(pixels), pixels, black)
    digest = hashlib.sha256(f"{image.size}".encode() + pixels.tobytes()).hexdigest()
    reduced = np.asarray(image.convert("L").resize((_REDUCED, _REDUCED), Image.Resampling.BICUBIC))
    size = 0 if entry.row is not None else entry.path.stat().st_size
    quantiles = levels = np.full(len(SHARES), np.nan, np.float32)
    held, kept = 0, 0
    brightness = float(reduced.mean())
    if picture.values is not None:
        quantiles, levels, held = distribution(picture.values)
        kept = -1 if picture.needs_range else len(np.unique(shown))
    if picture.needs_range:
        brightness = float(pixels.mean())
    border = np.broadcast_to(_border_of(pixels), 3).tolist()
    row = (*image.size, picture.kind, size, brightness, tuple(border), held, kept, picture.inverted)
    return digest, np.packbits(perceptual_bits(reduced)), row, quantiles, levels


def _border_of(pixels: np.ndarray) -> np.ndarray:
    """Mean of each channel of (height, width, channels) along the edge."""
    rows, columns = (max(1, round(_BORDER * n)) for n in pixels.shape[:2])
    border = np.ones(pixels.shape[:2], dtype=bool)
    border[rows:-rows, columns:-columns] = False
    return pixels[border].mean(axis=0)


def _read_cached(path: Path, key: str) -> Fingerprints | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            return Fingerprints(**{name: stored[name] for name in (*_COLUMNS, *_LISTS)})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
