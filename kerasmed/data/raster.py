"""Pictures that Pillow reads (PNG, JPEG, TIFF and others), of up to 16 bits a channel.

What decoding does not need is never a reason to refuse a file: text, colour profiles and EXIF
blocks that are broken or too large are left out.
"""

import io
import re
import struct
import warnings
from contextlib import suppress
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

# Sizes are checked here; odd TIFF and EXIF tags are not needed.
warnings.filterwarnings("ignore", module=r"PIL\.")

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000")
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
_PHOTOMETRIC = 262  # TIFF tag
_DEEP = ("RGB;16", "RGBA;16", "RGBX;16", "LA;16")  # Pillow's names of bytes in a file
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAP = re.compile(rb"(P[2356])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# JFIF and Adobe's marker, which says how colours are stored; the others are metadata.
_JPEG_APPS = (0xE0, 0xEE)


def read_raster(path: Path, formats: Choices, draft_size: int | None) -> Picture:
    """The image of a file.

    Grey is repeated to three channels, palettes are looked up, transparency lies on black, and an
    EXIF orientation is applied. Values of more than 8 bits are shown from black to white by
    ``grey_range`` of the formats; without one the picture says that it needs a range.

    Args:
        path: the file.
        formats: as for ``read_pictures``.
        draft_size: lets a JPEG be decoded at a smaller scale that still has this size.

    Raises:
        DataError: no image of these formats, several in one file, or too many pixels.
    """
    # From memory, since Pillow asks a file for some forty small pieces.
    content = path.read_bytes()
    try:
        return _decode(content, path, formats, draft_size)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"Cannot read {path}: expected at most {Image.MAX_IMAGE_PIXELS:,} pixels, received "
            "more; cut it into fields or reduce it."
        ) from None
    except Exception as error:  # decoders meet broken files with exceptions of every kind
        plain = _without_metadata(content)
        if plain is not None:
            # What is then still broken is the image, and the first error says how.
            with suppress(Exception):
                return _decode(plain, path, formats, draft_size)
        if isinstance(error, Image.UnidentifiedImageError):
            if content.startswith(_TIFF_STARTS):
                return _deep_picture(_read_tiff(content, path), "TIFF", False, formats)
            raise DataError(
                f"Cannot read {path}: expected an image, received a file of another kind or of "
                f"{len(content)} bytes; replace or remove it."
            ) from None
        raise


def count_pixels(path: Path) -> int:
    """Pixels of a file as its header states them, without decoding any.

    Raises:
        PIL.UnidentifiedImageError: it is no image.
    """
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.width * image.height
    except Image.DecompressionBombError:
        raise
    except Exception:  # as above
        plain = _without_metadata(content)
        if plain is None:
            raise
        with Image.open(io.BytesIO(plain), formats=FORMATS) as image:
            return image.width * image.height


def _decode(content: bytes, path: Path, formats: Choices, draft_size: int | None) -> Picture:
    if (values := _portable_map(content)) is not None:
        return _deep_picture(values, "PPM 16 bits", False, formats)
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
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
        if image.format == "TIFF" and _is_misread(getattr(image, "tag_v2", {})):
            return _deep_picture(_read_tiff(content, path), "TIFF", False, formats)
        deep = _deep_values(image, content)
        image.load()  # a PNG's EXIF may follow its pixels
        orientation = _orientation(image)
        if deep is not None:
            values, kind, inverted = deep
            if orientation in _TURNS:
                values = _turned(values, orientation)
            return _deep_picture(values, kind, inverted, formats)
        rgb = _to_rgb(image)
    if orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
    return Picture(rgb, kind)


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation; None where there is none that can be understood."""
    with suppress(Exception):  # broken EXIF comes as exceptions of every kind
        value = image.getexif().get(_ORIENTATION)
        return value if isinstance(value, int) else None
    return None


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """As Pillow's transpose, for arrays: EXIF 2.32, 4.6.4."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(values, flips)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        image.load()
        return image
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return image.convert("RGB")


def _deep_values(image: Image.Image, content: bytes) -> tuple[np.ndarray, str, bool] | None:
    """Values of more than 8 bits a channel, their kind, and whether low ones are white.

    None where the image has no more than 8 bits.
    """
    tags = getattr(image, "tag_v2", {})
    white_is_zero = tags.get(_PHOTOMETRIC) == 0  # Pillow inverts 8 bits only
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image), f"{image.format} {image.mode}", white_is_zero
    tiles = getattr(image, "tile", None)
    arguments = tiles[0].args if tiles else None
    raw = arguments[0] if isinstance(arguments, tuple) else arguments
    if not isinstance(raw, str) or not raw.startswith(_DEEP) or image.mode not in ("RGB", "RGBA"):
        return None
    # Pillow keeps the upper byte of each of several channels of 16 bits. The lower one comes from
    # reading the other of each two bytes.
    kind, order = f"{image.format} {image.mode} 16 bits", raw[-1]
    if raw.startswith("LA;16"):  # four bytes a pixel, as RGBA has
        channels = np.asarray(_with_raw_mode(content, "RGBA")).astype(np.uint32)
        grey, alpha = (channels[..., i] * 256 + channels[..., i + 1] for i in (0, 2))
        return grey * alpha // 65535, kind, False
    other = raw[:-1] + ("L" if order == "B" else "B")
    upper = np.asarray(image).astype(np.uint32)
    values = upper * 256 + np.asarray(_with_raw_mode(content, other))
    if values.shape[2] == 4 and image.mode == "RGBA":
        values = values[..., :3] * values[..., 3:] // 65535
    return values[..., :3], kind, white_is_zero


def _with_raw_mode(content: bytes, raw: str) -> Image.Image:
    """The image with its bytes read in another layout."""
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    for index, tile in enumerate(image.tile):
        arguments = (raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw
        image.tile[index] = tile._replace(args=arguments)
    image.load()
    return image


def _deep_picture(values: np.ndarray, kind: str, inverted: bool, formats: Choices) -> Picture:
    notes: list[str] = []
    values = without_missing(values, formats, notes)
    chosen = choice(formats, "grey_range")
    black, white = chosen or own_range(values)
    return Picture(
        to_rgb(to_grey(values, black, white, inverted)),
        kind,
        values=values,
        needs_range=chosen is None,
        inverted=inverted,
        notes=tuple(notes),
    )


def _portable_map(content: bytes) -> np.ndarray | None:
    """Values of a PGM or PPM whose largest is above 255, which Pillow scales; else None."""
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


def _is_misread(tags: Any) -> bool:
    """Whether Pillow 13 takes the values of a TIFF for others: TIFF 6.0, tags 258, 284 and 339."""
    bits, signs = (tags.get(tag, (default,))[0] for tag, default in ((258, 8), (339, 1)))
    planes_of_16_bits = tags.get(284) == 2 and bits == 16
    return planes_of_16_bits or (bits, signs) in ((8, 2), (32, 1))


def _read_tiff(content: bytes, path: Path) -> np.ndarray:
    """Values of a TIFF in a layout that Pillow does not read, such as float64 or planes.

    Raises:
        DataError: it is not one grey or RGB image.
    """
    import tifffile  # which scikit-image brings

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


def _without_metadata(content: bytes) -> bytes | None:
    """A PNG or JPEG with nothing but what decoding needs; None for other formats."""
    with suppress(struct.error, IndexError):
        if content.startswith(_PNG_START):
            return _plain_png(content)
        if content.startswith(b"\xff\xd8"):
            return _plain_jpeg(content)
    return None


def _plain_png(content: bytes) -> bytes:
    kept, at = [_PNG_START], len(_PNG_START)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        if content[at + 4 : at + 8] in _PNG_CHUNKS:
            kept.append(content[at : at + 12 + length])
        at += 12 + length
    return b"".join(kept)


def _plain_jpeg(content: bytes) -> bytes:
    kept, at = [content[:2]], 2
    while content[at] == 0xFF and content[at + 1] != 0xDA:  # up to the start of the scan
        marker = content[at + 1]
        if marker == 0xFF:  # filler
            at += 1
            continue
        (length,) = struct.unpack_from(">H", content, at + 2)
        is_metadata = marker == 0xFE or (0xE0 <= marker <= 0xEF and marker not in _JPEG_APPS)
        if not is_metadata:
            kept.append(content[at : at + 2 + length])
        at += 2 + length
    return b"".join([*kept, content[at:]])
