"""Reads the images of one file and reduces them to the size of the study.

Pillow's formats, DICOM and NIfTI have modules of their own. Images of every format come out as
8-bit RGB.
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasmed.data import raster
from kerasmed.data.marks import SYNTHETIC
from kerasmed.data.picture import Choices, Picture
from kerasmed.errors import DataError, DataWarning, InputError, KerasmedError, MachineError

# A JPEG is decoded at the smallest scale that still has the wanted size. Then every image is
# reduced (or enlarged) by Pillow's antialiased bicubic filter, without keeping the aspect ratio.
FILTER = "pillow-draft-bicubic"

# Files and folders that operating systems and archivers leave among images.
_LITTER = frozenset(
    {
        *("thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"),
        *("system volume information", "__pycache__"),
    }
)


def read_pictures(
    path: Path,
    formats: Choices = None,
    draft_size: int | None = None,
    content: bytes | None = None,
) -> Iterator[Picture]:
    """The images of a file, one by one.

    Values of more than 8 bits are shown as the file says, or else by the formats' ``grey_range``.
    If neither exists, the picture ``needs_range`` and is shown by the percentiles of its own file.

    Args:
        path: a file whose name ends in one of SUFFIXES, or a DICOM file without a suffix.
        formats: choices of ``kerasmed.data.config.Formats``, also as plain values; their
            defaults if None.
        draft_size: a JPEG may be decoded at a smaller scale that is still at least this size.
        content: the file's bytes, if they are at hand and the format is one of Pillow's.

    Raises:
        DataError: the file cannot be read, or does not hold images.
        MachineError: the library for its format is missing.
    """
    suffix = suffix_of(path)
    if suffix not in _READERS:
        raise DataError(
            f"Cannot read {path}: unsupported file extension (supported: {EXPECTED}); convert or "
            "remove it."
        )
    try:
        yield from _READERS[suffix](path, formats, draft_size, content)
    except KerasmedError:
        raise
    except ModuleNotFoundError as error:  # only the inference engine is installed
        raise MachineError(
            f"Cannot read {path}: {suffix} files need the package {error.name}; "
            "run pip install 'kerasmed[medical]'."
        ) from None
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split()).replace(str(path), "the file")
        raise DataError(f"Cannot read {path}: {reason}; replace or remove it.") from None
    except Exception as error:
        # Decoders raise any kind of exception on broken files (struct.error, IndexError,
        # zlib.error). Only its type is named: a DICOM library's message may quote the header.
        raise DataError(
            f"Cannot read {path}: its content is broken or not what its name says "
            f"({type(error).__name__}); replace or remove it."
        ) from None


def split_name(path: Path) -> tuple[Path, int | None]:
    """A file, and the number of the slice or frame in a name such as "scan.nii.gz#12"."""
    stem, sign, number = path.name.rpartition("#")
    if sign and stem and number.isdecimal() and not path.exists():
        return path.with_name(stem), int(number)
    return path, None


def read_images_of(
    path: Path, size: int, formats: Choices = None
) -> Iterator[tuple[int | None, np.ndarray]]:
    """Every image of a file, with the number of its slice or frame if there are several.

    Args:
        path: as for ``read_pictures``. The number of one slice or frame may follow, as in
            "scan.nii.gz#12".
        size: height and width of the results.
        formats: as for ``read_pictures``.

    Yields:
        The number or None, and uint8 (size, size, 3), 0 to 255.

    Raises:
        DataError: the file cannot be read, or its grey range is unknown.
    """
    path, wanted = split_name(path)
    if suffix_of(path) not in _READERS:
        if not path.is_file():
            raise DataError(f"Cannot read {path}: No such file; correct the path.")
        raise DataError(
            f"{path} has an unsupported file extension (supported: {EXPECTED}); convert or rename "
            "it."
        )
    last = None
    for picture in read_pictures(path, formats, draft_size=size):
        last = picture.frame
        if wanted is not None and (picture.frame or 0) != wanted:
            continue
        check_range(picture, path)
        for note in picture.notes:
            if note != SYNTHETIC:  # a network may look at a drawn image too
                warnings.warn(f"Some files: {note}.", DataWarning, stacklevel=2)
        yield picture.frame, reduce_image(picture.image, size)
        if wanted is not None:
            return
    if wanted is not None:
        raise DataError(
            f"Cannot read {path}#{wanted}: expected the number of one of its slices, up to "
            f"{last or 0}; correct the number."
        )


def read_image(path: Path, size: int, formats: Choices = None) -> np.ndarray:
    """The only image of a file, in the form that all of kerasmed uses.

    Args:
        path: as for ``read_images_of``.
        size: height and width of the result.
        formats: as for ``read_pictures``.

    Returns:
        uint8 (size, size, 3), 0 to 255.

    Raises:
        DataError: the file cannot be read, holds more than one image, or its grey range is unknown.
    """
    images = read_images_of(path, size, formats)
    _, image = next(images)
    if next(images, None) is not None:
        raise DataError(
            f"{path} holds several images: expected one; name one, such as {path.name}#0."
        )
    return image


def check_range(picture: Picture, path: Path) -> None:
    """Refuse a picture whose black and white are unknown.

    Raises:
        DataError: with the setting that gives the range.
    """
    if picture.needs_range:
        raise DataError(
            f"Cannot read {path}: its grey range is unknown. The file has no window, and neither "
            "the model nor the settings have a range; pass --grey-range LOW,HIGH with a model, or "
            "set data.grey_range: [LOW, HIGH]."
        )


def reduce_image(image: Image.Image, size: int) -> np.ndarray:
    """An image at the size of the study: uint8 (size, size, 3). Nothing else resizes images."""
    reduced = image.resize((size, size), Image.Resampling.BICUBIC)
    # Grey becomes RGB here, since the filter treats each channel alike.
    return np.asarray(reduced if reduced.mode == "RGB" else reduced.convert("RGB"))


def suffix_of(path: Path) -> str:
    """The lower-case suffix that names the format; ".dcm" for DICOM without a known suffix."""
    name = path.name.lower()
    dot = name.rfind(".")  # as ``Path.suffix``, in a fifth of the time
    suffix = name[dot:] if 0 < dot < len(name) - 1 else ""
    if suffix == ".gz" and name.endswith(".nii.gz"):
        return ".nii.gz"
    return ".dcm" if suffix not in _READERS and starts_as_dicom(path) else suffix


def is_hidden(path: Path) -> bool:
    """Whether a file or folder has a hidden name, or was left by an operating system."""
    return path.name.startswith(".") or path.name.lower() in _LITTER


def stem_of(path: Path) -> str:
    """The name without the suffix of its format, if it has one: DICOM files may be called IM.1."""
    name = path.name.lower()
    suffixes = [suffix for suffix in SUFFIXES if name.endswith(suffix)]
    return path.name[: -len(max(suffixes, key=len))] if suffixes else path.name


def starts_as_dicom(path: Path) -> bool:
    """Whether a file's first bytes are those of DICOM: scanners name files by numbers and dots."""
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except (OSError, ValueError):  # ValueError: the name has a null byte
        return False
    return is_dicom_start(start)


def is_dicom_start(start: bytes) -> bool:
    """Whether these are the first 132 bytes of a DICOM file."""
    # Files without a preamble begin with group 2 or 8 and one of its first elements; no text does.
    # The last of these is big-endian.
    groups = {b"\x02\x00": 3, b"\x08\x00": 3, b"\x00\x08": 2}
    has_no_preamble = len(start) == 132 and start[:2] in groups and start[groups[start[:2]]] <= 1
    return start[128:] == b"DICM" or has_no_preamble


def _read_raster(
    path: Path, formats: Choices, draft_size: int | None, content: bytes | None
) -> Iterator[Picture]:
    try:
        picture = raster.read_raster(path, formats, draft_size, content)
    except DataError:
        if not starts_as_dicom(path):  # whatever its name says
            raise
        yield from _read_dicom(path, formats)
    else:
        yield picture


def _read_dicom(path: Path, formats: Choices, *_: Any) -> Iterator[Picture]:
    from kerasmed.data.config import Formats
    from kerasmed.data.dicom import read_frames  # pydicom is optional

    yield from read_frames(path, Formats.model_validate(formats or {}), starts_as_dicom(path))


def _read_nifti(path: Path, formats: Choices, *_: Any) -> Iterator[Picture]:
    from kerasmed.data.config import Formats
    from kerasmed.data.nifti import read_slices  # nibabel is optional

    yield from read_slices(path, Formats.model_validate(formats or {}))


Reader = Callable[[Path, Choices, int | None, bytes | None], Iterator[Picture]]

_READERS: dict[str, Reader] = {
    **dict.fromkeys(raster.SUFFIXES, _read_raster),
    **dict.fromkeys((".dcm", ".dicom", ".ima"), _read_dicom),
    **dict.fromkeys((".nii", ".nii.gz"), _read_nifti),
}
SUFFIXES = frozenset(_READERS)
EXPECTED = "JPEG, PNG, BMP, TIFF, GIF, WebP, JPEG 2000, PGM, DICOM or NIfTI"


def check_images(images: np.ndarray, size: int | None = None) -> None:
    """Refuse an array that is not a batch of images: uint8 (batch, height, width, 3).

    Args:
        images: the array.
        size: height and width that it must have; any if None.

    Raises:
        InputError: it has another dtype, rank, number of channels or size.
    """
    wanted = f"uint8 (batch, {size or 'height'}, {size or 'width'}, 3), 0 to 255"
    shape = getattr(images, "shape", None)
    dtype = getattr(images, "dtype", None)
    if shape is None or dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
        raise InputError(
            f"Images: expected {wanted}, received {dtype or type(images).__name__} {shape}; "
            "kerasmed.data.readers.read_image makes such arrays from files."
        )
    if shape[0] == 0:
        raise InputError(f"Images: expected {wanted}, received an empty batch; give at least one.")
    if size is not None and shape[1:3] != (size, size):
        raise InputError(
            f"Images: expected {wanted}, received {shape}; "
            f"reduce them with kerasmed.data.readers.read_image(path, {size})."
        )
