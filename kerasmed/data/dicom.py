"""The frames of a DICOM file as 8-bit pixels. Needs pydicom (`pip install 'kerasmed[medical]'`).

Of the header, nothing but the grey-value chain and the patient's ID is looked at.
"""

import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerasmed.config import DicomConfig
from kerasmed.errors import DataError, MachineError

if TYPE_CHECKING:
    from pydicom import Dataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # pydicom makes RGB of these
# The functional groups of an enhanced file that hold the grey-value chain (PS3.3 C.7.6.16.2).
_GREY_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
# An element without a value says as little as one that is not there.
_MAY_BE_EMPTY = (
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleSlope",
    "RescaleIntercept",
)


def read_frames(
    path: Path, settings: DicomConfig
) -> Iterator[tuple[int | None, np.ndarray, str, str | None]]:
    """Frame number, pixels, kind and patient of each frame.

    Grey values go through the modality transform (rescale slope and intercept, or its table) and
    the window (PS3.3 C.11.2): the one asked for, else the file's first, else its stored range.
    MONOCHROME1 is inverted, so that air is dark in every file.

    Args:
        path: the file.
        settings: window, and what to do with several frames.

    Yields:
        The frame's number or None where it is the only one; uint8 (height, width) or
        (height, width, 3); the kind, such as "DICOM MONOCHROME2 12 bits"; the patient's ID, or the
        study's where the file has none, or None.

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
    # A header that breaks a rule is not our business, and a warning would quote it.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    dataset = pydicom.dcmread(path)
    _check_decodable(dataset, path)
    count = int(dataset.get("NumberOfFrames") or 1)
    if count < 1:
        raise DataError(
            f"Cannot read {path}: expected one frame or more, received {count}; mend the header."
        )
    if count > 1 and settings.frames == "refuse":
        raise DataError(
            f"Cannot read {path}: expected one frame, received {count}; "
            "set data.dicom.frames: split to take each as an image."
        )
    named = (str(dataset.get(tag) or "").strip() for tag in ("PatientID", "StudyInstanceUID"))
    patient = next(filter(None, named), None)
    kind = f"DICOM {dataset.PhotometricInterpretation} {dataset.BitsStored} bits"
    for index in range(count):
        try:
            frame = pixels.pixel_array(dataset, index=index)
        except RuntimeError:  # every library failed, such as Pillow with JPEG of 12 bits
            raise _undecodable(dataset, path) from None
        shown = _shown(frame, _with_frame_settings(dataset, index), settings, path)
        yield (index if count > 1 else None), shown, kind, patient


def _check_decodable(dataset: "Dataset", path: Path) -> None:
    from pydicom.pixels import get_decoder

    if "PixelData" not in dataset:
        raise DataError(
            f"Cannot read {path}: expected integer pixels, received a DICOM file without them; "
            "remove it."
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise _undecodable(dataset, path)


def _undecodable(dataset: "Dataset", path: Path) -> DataError:
    syntax = dataset.file_meta.TransferSyntaxUID
    return DataError(
        f"Cannot read {path}: no installed library decodes its compression "
        f"({syntax.name if syntax.is_valid else 'unknown'}); "
        "install one that pydicom lists for it, such as pylibjpeg with pylibjpeg-libjpeg, or "
        "decompress the files."
    )


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
    for name in _MAY_BE_EMPTY:
        if name in frame and frame[name].is_empty:
            del frame[name]
    return frame


def _shown(values: np.ndarray, dataset: "Dataset", settings: DicomConfig, path: Path) -> np.ndarray:
    """Stored values as they are shown: uint8."""
    from pydicom import pixels

    interpretation = dataset.PhotometricInterpretation
    if interpretation == "PALETTE COLOR":
        _widen_palette(dataset)
        values = pixels.apply_color_lut(values, dataset)
        bits = dataset.RedPaletteColorLookupTableDescriptor[2]
        return (values // 257 if bits == 16 else values).astype(np.uint8)
    if interpretation not in (*_GREY, *_COLOUR):
        raise DataError(f"Cannot read {path}: expected grey, RGB, YBR or a palette; convert it.")
    if interpretation not in _GREY:
        if values.dtype != np.uint8:
            raise DataError(
                f"Cannot read {path}: expected colour of 8 bits a channel, "
                f"received {dataset.BitsStored}; convert it."
            )
        return values
    # The range that the stored bits span, taken through the same transform as the pixels.
    bits, signed = dataset.BitsStored, dataset.PixelRepresentation == 1
    low = -(2 ** (bits - 1)) if signed else 0
    ends = np.array([low, low + 2**bits - 1])
    if settings.window is not None:
        dataset.WindowCenter, dataset.WindowWidth = settings.window
        # The file's own function may be a sigmoid; LINEAR has no widths below 1.
        dataset.VOILUTFunction = "LINEAR" if settings.window[1] >= 1 else "LINEAR_EXACT"
    if "WindowCenter" in dataset and "WindowWidth" in dataset:
        shown = pixels.apply_windowing(pixels.apply_modality_lut(values, dataset), dataset)
        black, white = _window_ends(dataset, ends)
    elif dataset.get("VOILUTSequence"):
        # pydicom 3.0.2 looks up positions modulo 256 in tables of 8 bits; as 16 bits it does not.
        item = deepcopy(dataset.VOILUTSequence[0])
        count, first, bits = item.LUTDescriptor
        item.LUTDescriptor = [count, first, 16]
        dataset.VOILUTSequence = [item]
        rescaled = np.rint(pixels.apply_modality_lut(values, dataset)).astype(np.int64)
        shown = pixels.apply_voi(np.clip(rescaled, first, first + (count or 2**16) - 1), dataset)
        black, white = 0, 2**bits - 1
    else:
        shown = pixels.apply_modality_lut(values, dataset)
        black, white = sorted(_window_ends(dataset, ends))
    if black == white or not np.isfinite([black, white]).all():
        raise DataError(f"Cannot read {path}: its window or rescaling is no number; mend it.")
    grey = np.clip((shown.astype(np.float64) - black) / (white - black), 0, 1)
    if not np.isfinite(grey).all():
        raise DataError(f"Cannot read {path}: its window or rescaling is no number; mend it.")
    if interpretation == "MONOCHROME1":
        grey = 1 - grey
    return np.rint(grey * 255).astype(np.uint8)


def _window_ends(dataset: "Dataset", ends: np.ndarray) -> tuple[float, float]:
    """What pydicom's windowing makes of black and of white: the ends of its own output range."""
    from pydicom import pixels

    if dataset.get("ModalityLUTSequence"):
        return 0, 2 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    black, white = pixels.apply_rescale(ends, dataset)
    return black, white


def _widen_palette(dataset: "Dataset") -> None:
    """Entries of one byte as two, since pydicom 3.0.2 keeps positions as wide as the entries."""
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTableData"
        count = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value[0] or 2**16
        data = dataset.get(name)
        if data and len(data) < 2 * count:
            setattr(dataset, name, np.frombuffer(data, np.uint8)[:count].astype("<u2").tobytes())
