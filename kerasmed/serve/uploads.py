"""Uploaded files, whose pixels are counted before they are decoded."""

import io
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

import numpy as np
from fastapi import HTTPException
from PIL import Image

from kerasmed.data.image_file import numbered_name
from kerasmed.data.raster import count_pixels
from kerasmed.data.readers import SUFFIXES, is_dicom_start, starts_as_dicom, suffix_of
from kerasmed.errors import DataError, MachineError
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.serve.limits import Limits

_BOMB = 10**12  # stands for the pixels of an image that Pillow refuses to open


def decode_upload(
    content: bytes, name: str, model: OnnxClassifier, limits: Limits, number: int | None
) -> list[tuple[int | None, np.ndarray]]:
    """The images of an uploaded file with their numbers: uint8 (input_size, input_size, 3).

    Args:
        content: bytes of the file.
        name: name of the file, whose suffix says the format.
        model: the model that is to predict them.
        limits: limits of pixels and slices.
        number: the only slice or frame wanted; all if None.

    Raises:
        DataError: the file cannot be read.
        HTTPException: it has too many pixels or slices.
    """
    file_name = PurePath(name).name.lower()
    suffix = next((suffix for suffix in sorted(SUFFIXES) if file_name.endswith(suffix)), ".png")
    if is_dicom_start(content[:132]):
        suffix = ".dcm"
    with TemporaryDirectory() as folder:  # Windows opens no file by its name while it is written
        path = Path(folder, f"upload{suffix}")
        path.write_bytes(content)
        pixels = _count_pixels(path, suffix_of(path))
        if pixels > limits.max_pixels:
            raise HTTPException(
                413,
                f"Image: expected at most {limits.max_pixels:,} pixels, received {pixels:,}; "
                "reduce it.",
            )
        wanted = Path(numbered_name(path, number))
        try:
            images = list(islice(model.read_all(wanted), limits.max_slices + 1))
        except (DataError, MachineError) as error:
            raise type(error)(str(error).replace(str(path), "the uploaded file")) from None
    if len(images) > limits.max_slices:
        raise HTTPException(
            413, f"Volume: expected at most {limits.max_slices:,} slices; ask for one by slice=."
        )
    return images


def _count_pixels(path: Path, suffix: str) -> int:
    """Number of pixels that the file's header states, before any is decoded.

    Raises:
        HTTPException: the header states none, or a DICOM file may decode to far more.
        MachineError: the package that reads such files is not installed.
    """
    try:
        if suffix in (".dcm", ".dicom", ".ima"):
            return _count_dicom_pixels(path)
        if suffix in (".nii", ".nii.gz"):
            from kerasmed.data.nifti import count_values

            return count_values(path)
        return count_pixels(path)
    except HTTPException:
        raise
    except Image.DecompressionBombError:
        return _BOMB
    except ModuleNotFoundError as error:
        raise MachineError(
            f"{suffix} files need {error.name}; run pip install 'kerasmed[medical]'."
        ) from None
    except Exception:  # decoders raise all kinds of exceptions for broken files
        raise HTTPException(
            415,
            "Cannot read the uploaded file: expected an image whose header states its size; "
            "replace it.",
        ) from None


def _count_dicom_pixels(path: Path) -> int:
    from pydicom import dcmread
    from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

    from kerasmed.data.dicom_grey import integer
    from kerasmed.data.dicom_header import read_syntax

    is_dicom = starts_as_dicom(path)
    syntax = read_syntax(path)
    if syntax == DeflatedExplicitVRLittleEndian:  # reading the header would inflate all of it
        raise HTTPException(415, "DICOM: expected a file that is not deflated; save it otherwise.")
    header = dcmread(path, stop_before_pixels=True, force=is_dicom)
    frames = max(1, integer(header, "NumberOfFrames", 1))
    pixels = integer(header, "Rows", 0) * integer(header, "Columns", 0) * frames
    if syntax == RLELossless:
        samples, bits = integer(header, "SamplesPerPixel", 3), integer(header, "BitsAllocated", 16)
        largest = pixels * samples * bits // 8
        if path.stat().st_size > 2 * largest + 2**20:
            raise HTTPException(415, "DICOM: expected RLE of the size that its header states.")
    elif syntax is None or syntax.is_encapsulated:
        pixels = max(pixels, _count_encoded_pixels(path, is_dicom))
    return pixels


def _count_encoded_pixels(path: Path, is_dicom: bool) -> int:
    """Number of pixels that the JPEG and JPEG 2000 streams of a DICOM file state; 0 without any."""
    from pydicom import dcmread
    from pydicom.encaps import generate_frames

    from kerasmed.data.dicom_grey import integer

    dataset = dcmread(path, force=is_dicom)
    if "PixelData" not in dataset or not dataset["PixelData"].is_undefined_length:
        return 0
    frames = max(1, integer(dataset, "NumberOfFrames", 1))
    pixels = 0
    for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
        with suppress(Image.UnidentifiedImageError), Image.open(io.BytesIO(frame)) as image:
            pixels += image.width * image.height
    return pixels
