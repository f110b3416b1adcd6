"""One file to the images in it, at their own size, and from there to the size of the study.

Pillow reads pictures; DICOM and NIfTI files have modules of their own. Whatever the file, an image
leaves here as 8-bit RGB.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from kerasmed.errors import DataError, InputError, KerasmedError, MachineError

if TYPE_CHECKING:  # for the types alone: the engine reads pictures without pydantic
    from kerasmed.config import Formats

    Choices = Formats | Mapping[str, Any] | None

# Sizes are checked here, and told in one line.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# JPEG is decoded at the smallest scale that still has the wanted size, then everything is reduced
# (or enlarged) by Pillow's antialiased bicubic filter, without keeping the aspect ratio.
FILTER = "pillow-draft-bicubic"


@dataclass(frozen=True)
class Picture:
    """One image of a file.

    Attributes:
        image: mode RGB, at its own size.
        kind: format and pixel layout of the file, such as "JPEG L".
        part: the frame or slice, counted from 0, where the file holds several; else None.
        patient: whom the file names, in clear; never to be written anywhere.
    """

    image: Image.Image
    kind: str
    part: int | None = None
    patient: str | None = None


def read_pictures(
    path: Path, formats: "Choices" = None, draft_size: int | None = None
) -> Iterator[Picture]:
    """The images of a file, one by one.

    Args:
        path: a file whose name ends in one of SUFFIXES, or a DICOM file without a suffix.
        formats: choices for DICOM and NIfTI, also as plain values; their defaults if None.
        draft_size: lets a JPEG be decoded at a smaller scale that still has this size.

    Raises:
        DataError: the file cannot be read, or holds something else than images.
        MachineError: the library for its format is missing.
    """
    reader = _READERS[suffix_of(path)]
    try:
        yield from reader(path, formats, draft_size)
    except KerasmedError:
        raise
    except ModuleNotFoundError as error:  # the engine installed by itself
        raise MachineError(
            f"Cannot read {path}: {suffix_of(path)} files need the package {error.name}; "
            "install kerasmed[medical] with its dependencies."
        ) from None
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split()).replace(str(path), "the file")
        raise DataError(f"Cannot read {path}: {reason}; replace, mend or remove it.") from None
    except Exception as error:
        # Decoders meet broken files with exceptions of every kind (struct.error, IndexError,
        # zlib.error). Only the kind is told: a DICOM library's message may quote the header.
        raise DataError(
            f"Cannot read {path}: its content is broken or not what its name says "
            f"({type(error).__name__}); replace or remove it."
        ) from None


def read_image(path: Path, size: int, formats: "Choices" = None) -> np.ndarray:
    """The only image of a file, as the whole project sees it.

    Args:
        path: as for ``read_pictures``.
        size: height and width of the result.
        formats: as for ``read_pictures``.

    Returns:
        uint8 (size, size, 3), 0 to 255.

    Raises:
        DataError: the file cannot be read, or holds more than one image.
    """
    if suffix_of(path) not in _READERS:
        if not path.is_file():
            raise DataError(f"Cannot read {path}: No such file; mend the path.")
        raise DataError(f"{path} is no image by its name: expected {EXPECTED}; rename it.")
    pictures = iter(read_pictures(path, formats, draft_size=size))
    picture = next(pictures)
    if next(pictures, None) is not None:
        raise DataError(f"{path} holds several images: expected one; give them one by one.")
    return reduce_image(picture.image, size)


def reduce_image(image: Image.Image, size: int) -> np.ndarray:
    """The one way in which any image gets its size: uint8 (size, size, 3)."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def suffix_of(path: Path) -> str:
    """The ending that names the format, in small letters; ".dcm" for DICOM without a suffix."""
    suffix = path.suffix.lower()
    if suffix == ".gz" and path.name.lower().endswith(".nii.gz"):
        return ".nii.gz"
    return ".dcm" if suffix not in _READERS and _starts_as_dicom(path) else suffix


def _starts_as_dicom(path: Path) -> bool:
    """Scanners write DICOM files named by numbers and dots; the format marks its 129th byte."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except (OSError, ValueError):  # a name with a null byte is no file's
        return False


def _read_picture(path: Path, formats: "Choices", draft_size: int | None) -> Iterator[Picture]:
    """Grey is repeated to three channels, palettes are looked up, transparency lies on black.

    An EXIF orientation is applied. Grey of 9 to 16 bits keeps the range that its file states, which
    is never guessed from the pixels.
    """
    try:
        # From memory, since Pillow asks a file for some forty small pieces.
        with Image.open(io.BytesIO(path.read_bytes()), formats=PICTURE_FORMATS) as image:
            # A phone's JPEG may carry a second view (MPO), which is no second image of the patient.
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":
                raise DataError(
                    f"Cannot read {path}: expected one image, received {frames} frames; "
                    "save each as a file of its own."
                )
            # Pillow itself only warns, up to twice its limit.
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):
                raise Image.DecompressionBombError
            kind = f"{image.format} {image.mode}"
            if draft_size is not None:
                image.draft("RGB", (draft_size, draft_size))
            ImageOps.exif_transpose(image, in_place=True)
            yield Picture(_to_rgb(image, path), kind)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"Cannot read {path}: expected at most {Image.MAX_IMAGE_PIXELS:,} pixels, received "
            "more; cut it into fields or reduce it."
        ) from None
    except Image.UnidentifiedImageError:
        raise DataError(
            f"Cannot read {path}: expected an image, received a file of another kind or of "
            f"{path.stat().st_size} bytes; replace or remove it."
        ) from None


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        image.load()
        return image
    if image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", {})
        (bits,) = tags.get(258, (16,))[:1]  # BitsPerSample: Pillow hands over 12 bits as they are
        grey = (np.asarray(image, np.uint32) * 255 // (2**bits - 1)).astype(np.uint8)
        if tags.get(262) == 0:  # WhiteIsZero: Pillow inverts 8 bits only
            grey = 255 - grey
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(
            f"Cannot read {path}: expected 8 or 16 bits a channel, "
            f"received mode {image.mode!r} (32 bits), whose range is unknown; "
            "convert it to 8 or 16 bits."
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return image.convert("RGB")


def _read_dicom(path: Path, formats: "Choices", draft_size: int | None) -> Iterator[Picture]:
    from kerasmed.config import Formats
    from kerasmed.data.dicom import read_frames  # pydicom is optional

    for part, pixels, kind, patient in read_frames(
        path, Formats.model_validate(formats or {}).dicom
    ):
        yield Picture(Image.fromarray(pixels).convert("RGB"), kind, part, patient)


def _read_nifti(path: Path, formats: "Choices", draft_size: int | None) -> Iterator[Picture]:
    from kerasmed.config import Formats
    from kerasmed.data.nifti import read_slices  # nibabel is optional

    for part, pixels in read_slices(path, Formats.model_validate(formats or {}).nifti):
        yield Picture(Image.fromarray(pixels).convert("RGB"), "NIfTI", part)


Reader = Callable[[Path, "Choices", int | None], Iterator[Picture]]

PICTURE_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP")
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")
_READERS: dict[str, Reader] = {
    **dict.fromkeys(_PICTURES, _read_picture),
    **dict.fromkeys((".dcm", ".dicom"), _read_dicom),
    **dict.fromkeys((".nii", ".nii.gz"), _read_nifti),
}
SUFFIXES = frozenset(_READERS)
EXPECTED = "JPEG, PNG, BMP, TIFF, GIF, WebP, DICOM or NIfTI"


def check_images(images: np.ndarray, size: int | None = None) -> None:
    """Refuse an array that is not a batch of images in the project's one form.

    Args:
        images: expected uint8 (batch, height, width, 3).
        size: the height and width that it must have, if any.

    Raises:
        InputError: another dtype, rank, channel count or size.
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
