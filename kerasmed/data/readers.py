"""One image file to uint8 RGB at the size of the study. Needs Pillow and NumPy alone."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kerasmed.errors import DataError, InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})

# JPEG is decoded at the smallest scale that still has twice the wanted size, then everything is
# reduced (or enlarged) by Pillow's antialiased bicubic filter, without keeping the aspect ratio.
FILTER = "pillow-draft2-bicubic"


def read_image(path: Path, size: int) -> np.ndarray:
    """An image file as the whole project sees it.

    Grey is repeated to three channels, palettes are looked up, transparency lies on black, an
    EXIF orientation is applied. 16 bits of grey are divided by 257 over their full range: the range
    is never guessed from the pixels.

    Args:
        path: JPEG, PNG, BMP or TIFF.
        size: height and width of the result.

    Returns:
        uint8 (size, size, 3), 0 to 255.

    Raises:
        DataError: the file is no image that Pillow reads, or holds floating-point pixels.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * size, 2 * size))
            rgb = _to_rgb(ImageOps.exif_transpose(image), path)
            return np.asarray(rgb.resize((size, size), Image.Resampling.BICUBIC))
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).replace(str(path), "the file")
        raise DataError(
            f"Cannot read {path}: expected a JPEG, PNG, BMP or TIFF image, received: {reason}; "
            "replace or remove it."
        ) from None


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
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
