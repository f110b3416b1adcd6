"""The frames of a DICOM file as pictures. Needs pydicom (`pip install 'kerasmed[medical]'`).

Of the header, only what the pixels need and the patient's ID are read. A missing element that the
pixels themselves reveal does not reject a file.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerasmed.data.config import Formats
from kerasmed.data.dicom_grey import GREY, grey_picture, integer, true_bits
from kerasmed.data.dicom_header import COLOUR, complete_header
from kerasmed.data.marks import SYNTHETIC
from kerasmed.data.picture import Picture, own_range, to_grey, to_rgb
from kerasmed.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

# Headers that break a rule are accepted, and a warning would quote them.
warnings.filterwarnings("ignore", module=r"pydicom\.")

_PALETTE = "PALETTE COLOR"

# The functional groups of an enhanced file that hold the grey-value chain (PS3.3 C.7.6.16.2).
_GREY_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def read_frames(path: Path, formats: Formats, is_dicom: bool) -> Iterator[Picture]:
    """The frames of a file.

    Args:
        path: DICOM file.
        formats: window, range and missing values, and whether several frames are accepted.
        is_dicom: whether its first bytes are those of DICOM; pydicom itself refuses files without a
            preamble.

    Raises:
        DataError: the file has no image, more frames than the settings accept, or a compression
            that no installed library decodes.
        ModuleNotFoundError: pydicom is missing.
    """
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    dataset = pydicom.dcmread(path, force=is_dicom)
    notes, shift = complete_header(dataset)
    if str(dataset.get("SyntheticData") or "").strip().upper() == "YES":
        notes = (*notes, SYNTHETIC)
    _check_decodable(dataset, path)
    count = max(1, integer(dataset, "NumberOfFrames", 1))
    is_mask = str(dataset.get("SOPClassUID") or "") == _SEGMENTATION
    if count > 1 and formats.dicom.frames == "refuse" and not is_mask:
        raise DataError(
            f"Cannot read {path}: expected one frame, received {count}; "
            "set data.dicom.frames: split to take each as an image."
        )
    identifiers = (str(dataset.get(tag) or "").strip() for tag in ("PatientID", "StudyInstanceUID"))
    patient = next(filter(None, identifiers), None)
    for index in range(count):
        frame = _decode_frame(dataset, index, count, path)
        settings = _with_frame_settings(dataset, index)
        if shift:
            frame = frame >> shift
            settings.BitsStored = dataset.BitsStored - shift
        picture = _picture(frame, settings, formats, path)
        yield Picture(
            **{
                **vars(picture),
                "frame": index if count > 1 else None,
                "patient": patient,
                "is_mask": is_mask,
                "notes": (*notes, *picture.notes),
            }
        )


def _decode_frame(dataset: "Dataset", index: int, count: int, path: Path) -> np.ndarray:
    """The stored values of one frame of ``count``."""
    from pydicom import pixels

    try:
        return pixels.pixel_array(dataset, index=index)
    except RuntimeError:  # every library failed, such as Pillow with JPEG of 12 bits
        raise _undecodable(dataset, path) from None
    except ValueError:
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated or not _is_cut(dataset, count):
            raise
        raise DataError(
            f"Cannot read {path}: expected as many pixels as its header states, received "
            "fewer; the file is cut off, so replace or remove it."
        ) from None


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
            f"Cannot read {path}: expected 1, 8, 16, 32 or 64 allocated bits per value, received "
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
    if interpretation in COLOUR and stored.ndim == 2:
        interpretation = "MONOCHROME2"  # one sample per pixel is grey, whatever the header says
    bits = integer(dataset, "BitsStored", stored.dtype.itemsize * 8)
    kind = f"DICOM {interpretation} {bits} bits"
    if interpretation == _PALETTE:
        return Picture(to_rgb(_through_palette(stored, dataset)), kind)
    if interpretation not in (*GREY, *COLOUR):
        raise DataError(f"Cannot read {path}: expected grey, RGB, YBR or a palette; convert it.")
    if interpretation in GREY:
        return grey_picture(stored, dataset, formats, kind)
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
    """Store 8-bit entries as 16-bit ones: pydicom 3.0.2 stores positions in the entries' dtype."""
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTableData"
        count = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value[0] or 2**16
        data = dataset.get(name)
        if data and len(data) < 2 * count:
            setattr(dataset, name, np.frombuffer(data, np.uint8)[:count].astype("<u2").tobytes())
