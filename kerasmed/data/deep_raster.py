"""Values of more than 8 bits per channel, which Pillow reads wrongly or not at all."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasmed.data.picture import (
    Choices,
    Picture,
    choice,
    own_range,
    to_grey,
    to_rgb,
    without_missing,
)
from kerasmed.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000")

_PHOTOMETRIC = 262  # TIFF tag

_DEEP = ("RGB;16", "RGBA;16", "RGBX;16", "LA;16")  # Pillow's raw modes: layouts of bytes in a file

_MAP = re.compile(rb"(P[2356])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")


def deep_values(image: Image.Image, content: bytes) -> tuple[np.ndarray, str, bool] | None:
    """Values of more than 8 bits per channel, their kind, and whether low values are white.

    None if the image has at most 8 bits.
    """
    tags = getattr(image, "tag_v2", {})
    white_is_zero = tags.get(_PHOTOMETRIC) == 0  # Pillow inverts 8 bits only
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image), f"{image.format} {image.mode}", white_is_zero
    tiles = getattr(image, "tile", None)
    arguments = tiles[0].args if tiles else None
    raw_mode = arguments[0] if isinstance(arguments, tuple) else arguments
    if not isinstance(raw_mode, str) or not raw_mode.startswith(_DEEP):
        return None
    if image.mode not in ("RGB", "RGBA"):
        return None
    # Pillow keeps only the upper byte of a channel of 16 bits. Read in the opposite byte order, the
    # same file yields the lower byte.
    kind, order = f"{image.format} {image.mode} 16 bits", raw_mode[-1]
    if raw_mode.startswith("LA;16"):  # four bytes per pixel, like RGBA
        channels = np.asarray(_with_raw_mode(content, "RGBA")).astype(np.uint32)
        grey, alpha = (channels[..., i] * 256 + channels[..., i + 1] for i in (0, 2))
        return grey * alpha // 65535, kind, False
    swapped = raw_mode[:-1] + ("L" if order == "B" else "B")
    upper = np.asarray(image).astype(np.uint32)
    values = upper * 256 + np.asarray(_with_raw_mode(content, swapped))
    if values.shape[2] == 4 and image.mode == "RGBA":
        values = values[..., :3] * values[..., 3:] // 65535
    return values[..., :3], kind, white_is_zero


def _with_raw_mode(content: bytes, raw_mode: str) -> Image.Image:
    """The image with its bytes read in another layout."""
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    for index, tile in enumerate(image.tile):
        arguments = (raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode
        image.tile[index] = tile._replace(args=arguments)
    image.load()
    return image


def deep_picture(values: np.ndarray, kind: str, inverted: bool, formats: Choices) -> Picture:
    """A picture of values of more than 8 bits per channel."""
    notes: list[str] = []
    values = without_missing(values, formats, notes)
    grey_range = choice(formats, "grey_range")
    black, white = grey_range or own_range(values)
    return Picture(
        to_rgb(to_grey(values, black, white, inverted)),
        kind,
        values=values,
        needs_range=grey_range is None,
        inverted=inverted,
        notes=tuple(notes),
    )


def portable_map(content: bytes) -> np.ndarray | None:
    """Values of a PGM or PPM of more than 8 bits, which Pillow would scale; else None."""
    match = _MAP.match(content)
    if match is None or not 255 < int(match[4]) < 2**16:
        return None
    kind, width, height = match[1], int(match[2]), int(match[3])
    channels = 3 if kind in (b"P3", b"P6") else 1
    count = width * height * channels
    if count // channels > (Image.MAX_IMAGE_PIXELS or np.inf):
        raise Image.DecompressionBombError
    if kind in (b"P2", b"P3"):
        numbers = re.sub(rb"#[^\n]*", b"", content[match.end() :])
        values = np.array(numbers.split()[:count], dtype=np.uint16)
    else:
        values = np.frombuffer(content, ">u2", count, match.end()).astype(np.uint16)
    return values.reshape((height, width, 3) if channels == 3 else (height, width))


def is_misread(tags: Any) -> bool:
    """Whether Pillow 13 misreads the values of a TIFF (TIFF 6.0, tags 258, 284 and 339)."""
    bits, signs = (tags.get(tag, (default,))[0] for tag, default in ((258, 8), (339, 1)))
    planes_of_16_bits = tags.get(284) == 2 and bits == 16
    return planes_of_16_bits or (bits, signs) in ((8, 2), (32, 1))


def read_tiff(content: bytes, path: Path) -> np.ndarray:
    """Values of a TIFF in a layout that Pillow does not read, such as float64 or planes.

    Raises:
        DataError: the file is not one grey or RGB image.
    """
    import tifffile  # a dependency of scikit-image

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page: Any = file.pages[0]
        size = page.imagelength * page.imagewidth
        if len(file.pages) > 1 or size > (Image.MAX_IMAGE_PIXELS or np.inf):
            raise DataError(
                f"Cannot read {path}: expected one image of at most {Image.MAX_IMAGE_PIXELS:,} "
                f"pixels, received {len(file.pages)} of {size:,}; convert it."
            )
        values = page.asarray()
    if values.ndim == 3 and values.shape[0] == 3:
        values = np.moveaxis(values, 0, 2)
    if values.dtype.kind not in "iuf" or values.shape[2:] not in ((), (3,)):
        raise DataError(
            f"Cannot read {path}: expected a grey or RGB image, received {values.shape} of "
            f"{values.dtype}; convert it."
        )
    return values
