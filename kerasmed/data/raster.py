"""Pictures that Pillow reads (PNG, JPEG, TIFF and others), of up to 16 bits per channel.

Broken or oversized text, colour profiles and EXIF blocks are left out: decoding does not need them.
"""

import io
import struct
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from kerasmed.data.deep_raster import (
    FORMATS,
    deep_picture,
    deep_values,
    is_misread,
    portable_map,
    read_tiff,
)
from kerasmed.data.marks import SYNTHETIC, is_marked
from kerasmed.data.picture import Choices, Picture
from kerasmed.errors import DataError

# Pillow warns of sizes, which are checked here, and of odd TIFF and EXIF tags, which are not used.
warnings.filterwarnings("ignore", module=r"PIL\.")

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".webp"),
    *(".pgm", ".ppm", ".pnm", ".pbm", ".jp2", ".j2k"),
)

_ORIENTATION = 0x0112

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Smallest size that a JPEG is decoded for, so that measurements do not depend on smaller sizes.
LEAST_DRAFT = 64

# Entries of Pillow's ``info`` that may hold an orientation in a JPEG.
_EXIF = frozenset({"exif", "xmp"})

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_PNG_START = b"\x89PNG\r\n\x1a\n"

_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")

# JFIF and Adobe's marker say how colours are stored; the others are metadata.
_JPEG_APPS = (0xE0, 0xEE)


def read_raster(
    path: Path, formats: Choices, draft_size: int | None, content: bytes | None = None
) -> Picture:
    """The image of a file.

    Palettes are looked up, transparency is put on black, and an EXIF orientation is applied. Values
    of more than 8 bits are shown from black to white by ``grey_range`` of the formats. Without one
    the picture ``needs_range``.

    Args:
        path: the file.
        formats: as for ``read_pictures``.
        draft_size: a JPEG may be decoded at a smaller scale that is still at least this size.
        content: the file's bytes, if they are at hand.

    Raises:
        DataError: the file has no image of these formats, several images, or too many pixels.
    """
    if content is None:
        # Read as a whole, since Pillow makes about forty small reads.
        content = path.read_bytes()
    try:
        return _decode(content, path, formats, draft_size)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"Cannot read {path}: expected at most {Image.MAX_IMAGE_PIXELS:,} pixels, received "
            "more; crop or reduce it."
        ) from None
    except Exception as error:  # decoders raise any kind of exception on broken files
        plain = _without_metadata(content)
        if plain is not None:
            # If this fails too, the image itself is broken, and the first error says how.
            with suppress(Exception):
                return _decode(plain, path, formats, draft_size)
        if isinstance(error, Image.UnidentifiedImageError):
            if content.startswith(_TIFF_STARTS):
                return deep_picture(read_tiff(content, path), "TIFF", False, formats)
            raise DataError(
                f"Cannot read {path}: expected an image, received a file of another kind or of "
                f"{len(content)} bytes; replace or remove it."
            ) from None
        raise


def count_pixels(path: Path) -> int:
    """Number of pixels of a file, as its header states it.

    Raises:
        PIL.UnidentifiedImageError: the file is not an image.
    """
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.width * image.height
    except Image.DecompressionBombError:
        raise
    except Exception:  # as in ``read_raster``
        plain = _without_metadata(content)
        if plain is None:
            raise
        with Image.open(io.BytesIO(plain), formats=FORMATS) as image:
            return image.width * image.height


def _decode(content: bytes, path: Path, formats: Choices, draft_size: int | None) -> Picture:
    draft_size = None if draft_size is None else max(draft_size, LEAST_DRAFT)
    if (values := portable_map(content)) is not None:
        return deep_picture(values, "PPM 16 bits", False, formats)
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        # A phone's JPEG may carry a second view (MPO), which is not a second image of the patient.
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise DataError(
                f"Cannot read {path}: expected one image, received {frames} frames; "
                "save each as a file of its own."
            )
        # Pillow itself only warns, up to twice its limit.
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):
            raise Image.DecompressionBombError
        kind, own_size = f"{image.format} {image.mode}", image.size
        if draft_size is not None:
            image.draft("RGB", (draft_size, draft_size))
        if image.format == "TIFF" and is_misread(getattr(image, "tag_v2", {})):
            return deep_picture(read_tiff(content, path), "TIFF", False, formats)
        deep = deep_values(image, content)
        image.load()  # a PNG's EXIF may follow its pixels
        orientation = _orientation(image)
        notes = (SYNTHETIC,) if is_marked(image.info) else ()
        if deep is not None:
            values, kind, inverted = deep
            if orientation in _TURNS:
                values = _turned(values, orientation)
            picture = deep_picture(values, kind, inverted, formats)
            return replace(picture, notes=(*picture.notes, *notes))
        shown = _to_grey_or_rgb(image)
    if orientation in _TURNS:
        shown = shown.transpose(_TURNS[orientation])
        own_size = own_size if orientation < 5 else own_size[::-1]
    return Picture(shown, kind, own_size=own_size, notes=notes)


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation; None if it is missing or unreadable."""
    if image.format == "JPEG" and not _EXIF.intersection(image.info):
        return None
    with suppress(Exception):  # broken EXIF raises any kind of exception
        value = image.getexif().get(_ORIENTATION)
        return value if isinstance(value, int) else None
    return None


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """An array in its EXIF orientation (EXIF 2.32, 4.6.4), as Pillow's transpose."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(values, flips)


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return image.convert("RGB")


def _without_metadata(content: bytes) -> bytes | None:
    """A PNG or JPEG reduced to what decoding needs; None for other formats."""
    with suppress(struct.error, IndexError):
        if content.startswith(_PNG_START):
            return _plain_png(content)
        if content.startswith(b"\xff\xd8"):
            return _plain_jpeg(content)
    return None


def _plain_png(content: bytes) -> bytes:
    chunks, offset = [_PNG_START], len(_PNG_START)
    while offset + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, offset)
        if content[offset + 4 : offset + 8] in _PNG_CHUNKS:
            chunks.append(content[offset : offset + 12 + length])
        offset += 12 + length
    return b"".join(chunks)


def _plain_jpeg(content: bytes) -> bytes:
    segments, offset = [content[:2]], 2
    while content[offset] == 0xFF and content[offset + 1] != 0xDA:  # up to the start of the scan
        marker = content[offset + 1]
        if marker == 0xFF:  # filler
            offset += 1
            continue
        (length,) = struct.unpack_from(">H", content, offset + 2)
        is_metadata = marker == 0xFE or (0xE0 <= marker <= 0xEF and marker not in _JPEG_APPS)
        if not is_metadata:
            segments.append(content[offset : offset + 2 + length])
        offset += 2 + length
    return b"".join([*segments, content[offset:]])
