"""Completes a DICOM header with the elements that can be derived from the pixels."""

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from kerasmed.data.dicom_grey import integer

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # pydicom converts these to RGB

# Compressions by the first bytes of their streams, for files that do not name theirs.
_STREAMS = {
    b"\xff\xd8\xff": "1.2.840.10008.1.2.4.50",  # JPEG baseline
    b"\xff\x4f\xff\x51": "1.2.840.10008.1.2.4.91",  # JPEG 2000
}


def read_syntax(path: Path) -> "UID | None":
    """The transfer syntax that a file names; nothing after its meta header is read."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    try:
        return read_file_meta_info(path).get("TransferSyntaxUID")
    except InvalidDicomError:  # no preamble
        return None


# Sets an element (name, value) unless the third argument says that the header's own is valid.
FillMissing: TypeAlias = Callable[[str, object, bool], None]


def complete_header(dataset: "Dataset") -> tuple[tuple[str, ...], int]:
    """Fill in the missing elements that follow from the others and from the pixels.

    Returns:
        Notes, and the number of unused low bits by which the values must be shifted right.
    """
    missing: list[str] = []

    def fill(name: str, value: object, is_valid: bool) -> None:
        if not is_valid:
            missing.append(name)
            setattr(dataset, name, value)

    _name_transfer_syntax(dataset)
    rows, columns = (integer(dataset, name, 0) for name in ("Rows", "Columns"))
    interpretation = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    samples = integer(dataset, "SamplesPerPixel", 0)
    data = dataset.get("PixelData") or b""
    frames = max(1, integer(dataset, "NumberOfFrames", 1))
    if "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = frames
    pixels = max(1, rows * columns * frames)
    is_compressed = bool(dataset.file_meta.TransferSyntaxUID.is_encapsulated)
    allocated = integer(dataset, "BitsAllocated", 0)
    has_three_samples = not is_compressed and len(data) * 8 // pixels == 3 * (allocated or 8)
    is_colour = interpretation in COLOUR or (not interpretation and has_three_samples)
    is_wrong = samples == 1 and has_three_samples and interpretation in COLOUR
    fill("SamplesPerPixel", 3 if is_colour else 1, samples in (1, 3, 4) and not is_wrong)
    samples = dataset.SamplesPerPixel
    fill(
        "PhotometricInterpretation", "RGB" if samples == 3 else "MONOCHROME2", interpretation != ""
    )
    dataset.PhotometricInterpretation = str(dataset.PhotometricInterpretation).strip().upper()
    if not data:
        return (), 0  # refused, or of floating point, which needs no further elements
    bits = len(data) * 8 // (pixels * samples)
    fill("BitsAllocated", 8 if bits < 16 else 16 if bits < 32 else 32, allocated > 0)
    allocated = dataset.BitsAllocated
    is_readable = not is_compressed and allocated in (8, 16)
    values = _unsigned_values(dataset, pixels * samples) if is_readable else None
    planar = samples == 1 or integer(dataset, "PlanarConfiguration", -1) >= 0
    fill("PlanarConfiguration", _planar(values, rows, columns, samples), planar)
    is_known = integer(dataset, "PixelRepresentation", -1) in (0, 1)
    fill("PixelRepresentation", int(samples == 1 and _looks_signed(values)), is_known)
    notes, shift = _complete_bits(dataset, values, allocated, fill)
    if missing:
        notes.insert(0, f"the header lacks {', '.join(missing)}; derived from the pixels")
    return tuple(notes), shift


def _complete_bits(
    dataset: "Dataset",
    values: np.ndarray | None,
    allocated: int,
    fill: FillMissing,
) -> tuple[list[str], int]:
    """Set BitsStored and HighBit to what the values use.

    Args:
        dataset: the header, complete but for these two.
        values: as stored, without a sign; None if they are compressed or cut off.
        allocated: bits allocated per value.
        fill: sets a missing element.

    Returns:
        Notes, and the number of unused low bits by which the values must be shifted right.
    """
    stored, high = (integer(dataset, name, -1) for name in ("BitsStored", "HighBit"))
    default = high + 1 if 0 < high < allocated else allocated
    fill("BitsStored", default, 0 < stored <= allocated)
    stored = dataset.BitsStored
    shift = high + 1 - stored if stored <= high < allocated else 0
    # Many files state a HighBit that would shift the values, and have them in the lowest bits.
    if values is None or (values & (2**shift - 1)).any():
        shift = 0
    dataset.BitsStored = stored + shift
    notes = []
    if not shift and values is not None and _exceeds(values, dataset):
        notes.append("values have more bits than BitsStored states; all of them are used")
        dataset.BitsStored = allocated
    dataset.HighBit = dataset.BitsStored - 1
    return notes, shift


def _unsigned_values(dataset: "Dataset", count: int) -> np.ndarray | None:
    """The stored values of an uncompressed file, as unsigned integers; None if it is cut off."""
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    dtype = np.dtype(f"{order}u{dataset.BitsAllocated // 8}")
    if len(dataset.PixelData) < count * dtype.itemsize:
        return None
    return np.frombuffer(dataset.PixelData, dtype, count)


def _planar(values: np.ndarray | None, rows: int, columns: int, samples: int) -> int:
    """1 if colours are stored plane by plane: rows then differ less when read that way."""
    if values is None or samples != 3 or rows < 2:
        return 0
    pixels = values[: rows * columns * 3].astype(np.int32)
    by_pixel = np.abs(np.diff(pixels.reshape(rows, columns, 3), axis=0)).mean()
    by_plane = np.abs(np.diff(pixels.reshape(3, rows, columns), axis=1)).mean()
    return int(by_plane < by_pixel)


def _looks_signed(values: np.ndarray | None) -> bool:
    """Whether unsigned 16-bit values lie at both ends of their range and nowhere between."""
    if values is None or values.itemsize != 2:
        return False
    quarter = values >> 14
    return bool((quarter == 0).any() and (quarter == 3).any() and (quarter % 3 == 0).all())


def _exceeds(values: np.ndarray, dataset: "Dataset") -> bool:
    """Whether unsigned values exceed BitsStored, and not because of overlays (PS3.5 8.1.2)."""
    if dataset.PixelRepresentation or not 0 < dataset.BitsStored < dataset.BitsAllocated:
        return False
    has_overlays = any(element.tag.group >> 8 == 0x60 for element in dataset)
    # A few such values are remains of an overlay.
    return not has_overlays and float((values >> dataset.BitsStored > 0).mean()) > 0.01


def _name_transfer_syntax(dataset: "Dataset") -> None:
    """Set the transfer syntax where the file has no meta header that names it."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import generate_fragments
    from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if getattr(dataset, "file_meta", None) is None:
        dataset.file_meta = FileMetaDataset()
    if dataset.file_meta.get("TransferSyntaxUID"):
        return
    implicit, little = dataset.original_encoding
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    if little is False:
        syntax = ExplicitVRBigEndian
    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
        with suppress(Exception):  # a stream that cannot be followed is refused when it is decoded
            fragments = [f for f in generate_fragments(BytesIO(dataset.PixelData)) if f]
            syntaxes = [
                _STREAMS[start] for f in fragments for start in _STREAMS if f.startswith(start)
            ]
            syntax = UID(syntaxes[0]) if syntaxes else syntax
    dataset.file_meta.TransferSyntaxUID = syntax
