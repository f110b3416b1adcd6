"""The frames of a DICOM file as 8-bit pixels. Needs pydicom (`pip install 'kerasmed[medical]'`).

Of the header, nothing but the grey-value chain and the patient's ID is looked at.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kerasmed.config import DicomConfig
from kerasmed.errors import DataError, MachineError

if TYPE_CHECKING:
    from pydicom import Dataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
# The functional groups of an enhanced file that hold the grey-value chain (PS3.3 C.7.6.16.2).
_GREY_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


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
    dataset = pydicom.dcmread(path)
    _check_decodable(dataset, path)
    count = int(dataset.get("NumberOfFrames") or 1)
    if count > 1 and settings.frames == "refuse":
        raise DataError(
            f"Cannot read {path}: expected one frame, received {count}; "
            "set data.dicom.frames: split to take each as an image."
        )
    named = (str(dataset.get(tag) or "").strip() for tag in ("PatientID", "StudyInstanceUID"))
    patient = next(filter(None, named), None)
    kind = f"DICOM {dataset.PhotometricInterpretation} {dataset.BitsStored} bits"
    for index in range(count):
        frame = pixels.pixel_array(dataset, index=index)
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
        raise DataError(
            f"Cannot read {path}: no installed library decodes its compression ({syntax.name}); "
            "install one that pydicom lists for it, such as pylibjpeg with pylibjpeg-libjpeg, or "
            "decompress the files."
        )


def _with_frame_settings(dataset: "Dataset", index: int) -> "Dataset":
    """The grey-value chain of one frame, which enhanced files keep in functional groups."""
    from pydicom import Dataset

    frame = Dataset()
    for element in dataset:
        if element.tag.group == 0x0028:
            frame.add(element)
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for groups in (*shared[:1], *per_frame[index : index + 1]):
        for name in _GREY_GROUPS:
            for item in groups.get(name) or []:
                frame.update(item)
    return frame


def _shown(values: np.ndarray, dataset: "Dataset", settings: DicomConfig, path: Path) -> np.ndarray:
    """Stored values as they are shown: uint8."""
    from pydicom import pixels

    interpretation = dataset.PhotometricInterpretation
    if interpretation == "PALETTE COLOR":
        values = pixels.apply_color_lut(values, dataset)
        return (values // 257).astype(np.uint8) if values.dtype == np.uint16 else values
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
    if "WindowCenter" in dataset and "WindowWidth" in dataset:
        shown = pixels.apply_windowing(pixels.apply_modality_lut(values, dataset), dataset)
        black, white = _window_ends(dataset, ends)
    elif dataset.get("VOILUTSequence"):
        shown = pixels.apply_voi(pixels.apply_modality_lut(values, dataset), dataset)
        black, white = 0, 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    else:
        shown = pixels.apply_modality_lut(values, dataset)
        black, white = pixels.apply_modality_lut(ends, dataset)
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
