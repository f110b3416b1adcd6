"""The frames of a DICOM file as pictures. Needs pydicom (`pip install 'kerasmed[medical]'`).

Of the header, nothing but what the pixels need and the patient's ID is looked at. What a header
leaves out and the pixels say by themselves does not reject a file.
"""

import warnings
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerasmed.config import Formats
from kerasmed.data.dicom_grey import GREY, integer, shown, true_bits
from kerasmed.data.picture import Picture, own_range, to_grey, to_rgb
from kerasmed.errors import DataError, MachineError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

# A header that breaks a rule is not our business, and a warning would quote it.
warnings.filterwarnings("ignore", module=r"pydicom\.")

_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # pydicom makes RGB of these
_PALETTE = "PALETTE COLOR"
# The functional groups of an enhanced file that hold the grey-value chain (PS3.3 C.7.6.16.2).
_GREY_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
# Compressed streams by how they begin, for files that do not name their compression.
_STREAMS = {
    b"\xff\xd8\xff": "1.2.840.10008.1.2.4.50",  # JPEG baseline
    b"\xff\x4f\xff\x51": "1.2.840.10008.1.2.4.91",  # JPEG 2000
}


def read_frames(path: Path, formats: Formats, is_dicom: bool) -> Iterator[Picture]:
    """The frames of a file.

    Args:
        path: the file.
        formats: window, range and missing values, and what to do with several frames.
        is_dicom: whether its first bytes say so; pydicom itself refuses files without a preamble.

    Raises:
        DataError: no image in it, several that were not asked for, or a compression that no
            installed library decodes.
        MachineError: pydicom is missing.
    """
    try:
        import pydicom
        from pydicom import pixels
    except ImportError:
        raise MachineError(
            f"{path} is DICOM: expected the package pydicom, received none; "
            "pip install 'kerasmed[medical]'."
        ) from None
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    dataset = pydicom.dcmread(path, force=is_dicom)
    notes, shift = _complete(dataset)
    _check_decodable(dataset, path)
    count = max(1, integer(dataset, "NumberOfFrames", 1))
    is_mask = str(dataset.get("SOPClassUID") or "") == _SEGMENTATION
    if count > 1 and formats.dicom.frames == "refuse" and not is_mask:
        raise DataError(
            f"Cannot read {path}: expected one frame, received {count}; "
            "set data.dicom.frames: split to take each as an image."
        )
    named = (str(dataset.get(tag) or "").strip() for tag in ("PatientID", "StudyInstanceUID"))
    patient = next(filter(None, named), None)
    for index in range(count):
        try:
            frame = pixels.pixel_array(dataset, index=index)
        except RuntimeError:  # every library failed, such as Pillow with JPEG of 12 bits
            raise _undecodable(dataset, path) from None
        except ValueError:
            if dataset.file_meta.TransferSyntaxUID.is_encapsulated or not _is_cut(dataset, count):
                raise
            raise DataError(
                f"Cannot read {path}: expected as many pixels as its header states, received "
                "fewer; the file is cut off, so replace or remove it."
            ) from None
        settings = _with_frame_settings(dataset, index)
        if shift:
            frame = frame >> shift
            settings.BitsStored = dataset.BitsStored - shift
        picture = _picture(frame, settings, formats, path)
        yield Picture(
            **{
                **vars(picture),
                "part": index if count > 1 else None,
                "patient": patient,
                "is_mask": is_mask,
                "notes": (*notes, *picture.notes),
            }
        )


def read_syntax(path: Path) -> "UID | None":
    """The transfer syntax that a file names, without reading anything behind its meta header."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    try:
        return read_file_meta_info(path).get("TransferSyntaxUID")
    except InvalidDicomError:  # no preamble
        return None


def _complete(dataset: "Dataset") -> tuple[tuple[str, ...], int]:
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
    is_colour = interpretation in _COLOUR or (not interpretation and is_threefold)
    is_wrong = samples == 1 and is_threefold and interpretation in _COLOUR
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


def _check_decodable(dataset: "Dataset", path: Path) -> None:
    from pydicom.pixels import get_decoder

    if not any(dataset.get(name) for name in _PIXELS):
        raise DataError(
            f"Cannot read {path}: expected pixels, received a DICOM file without them; remove it."
        )
    if integer(dataset, "Rows", 0) < 1 or integer(dataset, "Columns", 0) < 1:
        raise DataError(
            f"Cannot read {path}: expected the numbers of rows and columns in its header, received "
            "none; replace or remove it."
        )
    bits = integer(dataset, "BitsAllocated", 8)
    if bits not in (1, 8, 16, 32, 64):
        raise DataError(
            f"Cannot read {path}: expected 1, 8, 16, 32 or 64 bits allocated a value, received "
            f"{bits}; convert it."
        )
    try:
        available = get_decoder(dataset.file_meta.TransferSyntaxUID).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise _undecodable(dataset, path)


def _undecodable(dataset: "Dataset", path: Path) -> DataError:
    syntax = dataset.file_meta.TransferSyntaxUID
    return DataError(
        f"Cannot read {path}: no installed library decodes its compression "
        f"({syntax.name if syntax.is_valid and syntax.name != syntax else 'unknown'}); "
        "install one that pydicom lists for it, such as pylibjpeg with pylibjpeg-libjpeg, or "
        "decompress the files."
    )


def _is_cut(dataset: "Dataset", frames: int) -> bool:
    pixels = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * frames
    return "PixelData" in dataset and len(dataset.PixelData) < pixels * dataset.BitsAllocated // 8


def _with_frame_settings(dataset: "Dataset", index: int) -> "Dataset":
    """The grey-value chain of one frame, which enhanced files keep in functional groups."""
    from pydicom import Dataset

    frame = Dataset()
    frame.file_meta = dataset.file_meta
    frame.update(dataset.group_dataset(0x0028))
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (*shared[:1], *per_frame[index : index + 1]):
        for name in _GREY_GROUPS:
            for item in groups.get(name) or []:
                frame.update(item)
    return frame


def _picture(stored: np.ndarray, dataset: "Dataset", formats: Formats, path: Path) -> Picture:
    interpretation = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2").strip().upper()
    if (
        interpretation in _COLOUR and stored.ndim == 2
    ):  # one sample a pixel is grey, whatever its name
        interpretation = "MONOCHROME2"
    bits = integer(dataset, "BitsStored", stored.dtype.itemsize * 8)
    kind = f"DICOM {interpretation} {bits} bits"
    if interpretation == _PALETTE:
        return Picture(to_rgb(_through_palette(stored, dataset)), kind)
    if interpretation not in (*GREY, *_COLOUR):
        raise DataError(f"Cannot read {path}: expected grey, RGB, YBR or a palette; convert it.")
    if interpretation in GREY:
        return shown(stored, dataset, formats, kind)
    if stored.dtype == np.uint8:
        return Picture(to_rgb(stored[..., :3]), kind)
    values = stored[..., :3]
    black, white = formats.grey_range or own_range(values)
    rgb = to_rgb(to_grey(values, black, white))
    return Picture(rgb, kind, values=values, needs_range=formats.grey_range is None)


def _through_palette(stored: np.ndarray, dataset: "Dataset") -> np.ndarray:
    from pydicom import pixels

    _widen_palette(dataset)
    values = pixels.apply_color_lut(stored, dataset).astype(np.int64)
    bits = true_bits(int(values.max()), int(dataset.RedPaletteColorLookupTableDescriptor[2]))
    return (values * 255 // (2**bits - 1)).astype(np.uint8)


def _widen_palette(dataset: "Dataset") -> None:
    """Entries of one byte as two, since pydicom 3.0.2 keeps positions as wide as the entries."""
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTableData"
        count = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value[0] or 2**16
        data = dataset.get(name)
        if data and len(data) < 2 * count:
            setattr(dataset, name, np.frombuffer(data, np.uint8)[:count].astype("<u2").tobytes())
