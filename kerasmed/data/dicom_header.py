"""What a DICOM header leaves out and the pixels say by themselves."""

from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerasmed.data.dicom_grey import integer

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # pydicom makes RGB of these

# Compressed streams by how they begin, for files that do not name their compression.
_STREAMS = {
    b"\xff\xd8\xff": "1.2.840.10008.1.2.4.50",  # JPEG baseline
    b"\xff\x4f\xff\x51": "1.2.840.10008.1.2.4.91",  # JPEG 2000
}


def read_syntax(path: Path) -> "UID | None":
    """The transfer syntax that a file names, without reading anything behind its meta header."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    try:
        return read_file_meta_info(path).get("TransferSyntaxUID")
    except InvalidDicomError:  # no preamble
        return None


def complete_header(dataset: "Dataset") -> tuple[tuple[str, ...], int]:
    """Fill in what the header leaves out and what follows from the rest.

    Returns:
        Notes, and by how many bits the values lie above the lowest one.
    """
    lacking: list[str] = []

    def fill(name: str, value: object, is_valid: bool) -> None:
        if not is_valid:
            lacking.append(name)
            setattr(dataset, name, value)

    _name_transfer_syntax(dataset)
    rows, columns = (integer(dataset, name, 0) for name in ("Rows", "Columns"))
    interpretation = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    samples = integer(dataset, "SamplesPerPixel", 0)
    data = dataset.get("PixelData") or b""
    frames = max(1, integer(dataset, "NumberOfFrames", 1))
    if "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = frames
    values = max(1, rows * columns * frames)
    is_coded = bool(dataset.file_meta.TransferSyntaxUID.is_encapsulated)
    allocated = integer(dataset, "BitsAllocated", 0)
    is_threefold = not is_coded and len(data) * 8 // values == 3 * (allocated or 8)
    is_colour = interpretation in COLOUR or (not interpretation and is_threefold)
    is_wrong = samples == 1 and is_threefold and interpretation in COLOUR
    fill("SamplesPerPixel", 3 if is_colour else 1, samples in (1, 3, 4) and not is_wrong)
    samples = dataset.SamplesPerPixel
    fill(
        "PhotometricInterpretation", "RGB" if samples == 3 else "MONOCHROME2", interpretation != ""
    )
    dataset.PhotometricInterpretation = str(dataset.PhotometricInterpretation).strip().upper()
    if not data:
        return (), 0  # refused, or of floating point, whose header has no more to say
    size = len(data) * 8 // (values * samples)
    fill("BitsAllocated", 8 if size < 16 else 16 if size < 32 else 32, allocated > 0)
    allocated = dataset.BitsAllocated
    native = None if is_coded or allocated not in (8, 16) else _native(dataset, values * samples)
    planar = samples == 1 or integer(dataset, "PlanarConfiguration", -1) >= 0
    fill("PlanarConfiguration", _planar(native, rows, columns, samples), planar)
    is_known = integer(dataset, "PixelRepresentation", -1) in (0, 1)
    fill("PixelRepresentation", int(samples == 1 and _looks_signed(native)), is_known)
    stored, high = (integer(dataset, name, -1) for name in ("BitsStored", "HighBit"))
    whole = high + 1 if 0 < high < allocated else allocated
    fill("BitsStored", whole, 0 < stored <= allocated)
    stored = dataset.BitsStored
    notes = [f"the header lacks {', '.join(lacking)}; derived from the pixels"] if lacking else []
    shift = high + 1 - stored if stored <= high < allocated else 0
    # Many files name another HighBit, and have their values in the lowest bits all the same.
    if native is None or (native & (2**shift - 1)).any():
        shift = 0
    dataset.BitsStored = stored + shift
    if not shift and native is not None and _exceeds(native, dataset):
        notes.append("values have more bits than BitsStored states; all of them are used")
        dataset.BitsStored = allocated
    dataset.HighBit = dataset.BitsStored - 1
    return tuple(notes), shift


def _native(dataset: "Dataset", count: int) -> np.ndarray | None:
    """The values of a file without compression as they are stored, without a sign."""
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    dtype = np.dtype(f"{order}u{dataset.BitsAllocated // 8}")
    if len(dataset.PixelData) < count * dtype.itemsize:
        return None
    return np.frombuffer(dataset.PixelData, dtype, count)


def _planar(native: np.ndarray | None, rows: int, columns: int, samples: int) -> int:
    """Whether colours lie one plane after the other: then the rows of a plane are more alike."""
    if native is None or samples != 3 or rows < 2:
        return 0
    pixels = native[: rows * columns * 3].astype(np.int32)
    by_pixel = np.abs(np.diff(pixels.reshape(rows, columns, 3), axis=0)).mean()
    by_plane = np.abs(np.diff(pixels.reshape(3, rows, columns), axis=1)).mean()
    return int(by_plane < by_pixel)


def _looks_signed(native: np.ndarray | None) -> bool:
    """Whether values of 16 bits would lie at both ends of their range and nowhere between."""
    if native is None or native.itemsize != 2:
        return False
    quarter = native >> 14
    return bool((quarter == 0).any() and (quarter == 3).any() and (quarter % 3 == 0).all())


def _exceeds(native: np.ndarray, dataset: "Dataset") -> bool:
    """Whether unsigned values have bits above those stored, which are no overlays (PS3.5 8.1.2)."""
    if dataset.PixelRepresentation or not 0 < dataset.BitsStored < dataset.BitsAllocated:
        return False
    has_overlays = any(element.tag.group >> 8 == 0x60 for element in dataset)
    # Single ones are what is left of an overlay.
    return not has_overlays and float((native >> dataset.BitsStored > 0).mean()) > 0.01


def _name_transfer_syntax(dataset: "Dataset") -> None:
    """Name how elements and pixels are written, where the file has no meta header."""
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
            fragments = [each for each in generate_fragments(BytesIO(dataset.PixelData)) if each]
            found = [s for f in fragments for begins, s in _STREAMS.items() if f.startswith(begins)]
            syntax = UID(found[0]) if found else syntax
    dataset.file_meta.TransferSyntaxUID = syntax
