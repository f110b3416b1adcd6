"""Every kind of image file ends as the same uint8 RGB."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from kerasmed.data.readers import (
    SUFFIXES,
    check_images,
    read_image,
    read_pictures,
    reduce_image,
    suffix_of,
)
from kerasmed.errors import DataError, InputError

CORNERS = np.array(
    [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [200, 100, 50]]], dtype=np.uint8
)  # red, green / blue, brown


@pytest.fixture
def save(tmp_path):
    def save(image: Image.Image | np.ndarray, name: str, **options):
        path = tmp_path / name
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(path, **options)
        return path

    return save


@pytest.fixture
def write(tmp_path):
    def write(content: bytes, name: str):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def refusal(path, size: int = 8) -> str:
    with pytest.raises(DataError) as caught:
        read_image(path, size)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.bmp", {}),
        ("a.tif", {}),
        ("a.TIFF", {"compression": "tiff_lzw"}),
        ("a.gif", {}),
        ("a.webp", {"lossless": True}),
    ],
)
def test_lossless_formats_are_read_pixel_for_pixel(save, name, options):
    image = read_image(save(CORNERS, name, **options), 2)

    np.testing.assert_array_equal(image, CORNERS)
    assert image.dtype == np.uint8


def test_grey_is_repeated_to_three_channels(save):
    grey = np.array([[0, 80], [160, 255]], dtype=np.uint8)

    image = read_image(save(grey, "a.png"), 2)

    np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=2))


def test_black_and_white_becomes_0_and_255(save):
    image = read_image(save(np.array([[True, False], [False, True]]), "a.png"), 2)

    np.testing.assert_array_equal(image[..., 0], [[255, 0], [0, 255]])


def test_transparency_lies_on_black(save):
    alpha = np.array([[255, 0], [128, 255]], dtype=np.uint8)

    image = read_image(save(np.dstack([CORNERS, alpha]), "a.png"), 2)

    np.testing.assert_array_equal(image, [[[255, 0, 0], [0, 0, 0]], [[0, 0, 128], [200, 100, 50]]])


def test_grey_with_transparency_lies_on_black(save):
    pixels = np.array([[[200, 255], [200, 0]]], dtype=np.uint8).repeat(2, axis=0)

    image = read_image(save(Image.fromarray(pixels, "LA"), "a.png"), 2)

    np.testing.assert_array_equal(image[0], [[200] * 3, [0] * 3])


@pytest.fixture
def palette():
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30, 250, 150, 50, 0, 99, 0])
    image.putdata([0, 1, 2, 0])
    return image


def test_palette_is_looked_up(save, palette):
    image = read_image(save(palette, "a.png"), 2)

    np.testing.assert_array_equal(
        image, [[[10, 20, 30], [250, 150, 50]], [[0, 99, 0], [10, 20, 30]]]
    )


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"], ids=["index", "bytes"])
def test_palette_with_transparency_lies_on_black(save, palette, transparency):
    image = read_image(save(palette, "a.png", transparency=transparency), 2)

    np.testing.assert_array_equal(image, [[[10, 20, 30], [0, 0, 0]], [[0, 99, 0], [10, 20, 30]]])


DEEP = np.array([[0, 819], [2457, 4095]], dtype=np.uint16)  # fifths of 12 bits


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2", "a.pgm"])
def test_16_bits_are_shown_in_the_range_of_the_settings(save, name):
    image = read_image(save(DEEP, name), 2, {"grey_range": (0, 4095)})

    np.testing.assert_array_equal(image[..., 0], [[0, 51], [153, 255]])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_without_a_range_values_of_more_than_8_bits_are_refused_by_the_setting(save, dtype):
    message = refusal(save(DEEP.astype(dtype), "a.tif"))

    assert "its grey range is unknown" in message
    assert "data.grey_range: [LOW, HIGH]" in message


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_file_alone_is_shown_by_its_own_percentiles_and_says_so(save, dtype):
    [picture] = pictures_of(save(np.arange(1024, 2048).reshape(32, 32).astype(dtype), "a.tif"))

    assert picture.needs_range
    assert len(np.unique(picture.image)) == 256
    np.testing.assert_array_equal(picture.values, np.arange(1024, 2048).reshape(32, 32))


def deep_png(values: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write: PNG 3rd edition, 11.2.2."""
    height, width = values.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0),
        b"IDAT": zlib.compress(lines),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(png_chunk, chunks, chunks.values()))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


NOISE = np.random.default_rng(0).integers(0, 4096, (5, 7, 4), dtype=np.uint16)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_png_of_16_bits_a_channel_keeps_all_of_them(write, colour, channels):
    values = NOISE[..., :channels].copy()
    if channels != 3:
        values[..., -1] = 65535  # opaque

    [picture] = pictures_of(write(deep_png(values, colour), "a.png"), {"grey_range": (0, 4095)})

    wanted = values[..., :3] if channels > 2 else values[..., :1].repeat(3, axis=2)
    np.testing.assert_array_equal(np.asarray(picture.image), np.rint(wanted / 4095 * 255))
    assert not picture.needs_range


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"planarconfig": "separate"}],
    ids=str,
)
def test_tiff_of_16_bits_a_channel_keeps_all_of_them(tmp_path, options):
    values = NOISE[..., :3]
    if "planarconfig" in options:
        values = np.moveaxis(values, 2, 0)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", **options)

    [picture] = pictures_of(tmp_path / "a.tif", {"grey_range": (0, 4095)})

    wanted = np.rint(NOISE[..., :3] / 4095 * 255)
    np.testing.assert_array_equal(np.asarray(picture.image), wanted)


@pytest.mark.parametrize("dtype", ["i1", "u4", "i4", "f2", "f4", "f8"])
def test_every_type_of_number_in_a_tiff(tmp_path, dtype):
    values = np.array([[-100, 0], [20, 100]] if dtype == "i1" else [[0, 9], [20, 3e4]], dtype)
    tifffile.imwrite(tmp_path / "a.tif", values)

    [picture] = pictures_of(tmp_path / "a.tif", {"grey_range": (0, 100)})

    np.testing.assert_array_equal(picture.values, values)
    grey = np.rint(np.clip(values.astype(float) / 100, 0, 1) * 255)
    np.testing.assert_array_equal(np.asarray(picture.image)[..., 0], grey)


def test_bmp_of_5_and_6_bits_is_no_deep_image(write):
    # BITMAPINFOHEADER of 16 bits a pixel: red of 5 bits, green of 6, blue of 5.
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    header = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    pixels = struct.pack("<HH", 0xF800, 0x07E0)
    start = struct.pack("<2sIHHI", b"BM", 70, 0, 0, 66)

    image = read_image(write(start + header + masks + pixels, "a.bmp"), 2)

    assert image[0].tolist() == [[255, 0, 0], [0, 255, 0]]


@pytest.mark.parametrize(("kind", "channels"), [(b"P5", 1), (b"P6", 3), (b"P2", 1), (b"P3", 3)])
@pytest.mark.parametrize("most", [900, 4095, 65535])
def test_portable_maps_of_more_than_8_bits_keep_their_values(write, kind, channels, most):
    values = np.minimum(NOISE[..., :channels], np.uint16(most))
    if kind in (b"P2", b"P3"):
        content = " ".join(map(str, values.ravel().tolist())).encode()
    else:
        content = values.astype(">u2").tobytes()

    [picture] = pictures_of(write(kind + b"\n# by hand\n7 5\n%d\n" % most + content, "a.pnm"))

    np.testing.assert_array_equal(picture.values.reshape(values.shape), values)
    assert picture.needs_range


@pytest.mark.parametrize(("nan_value", "grey"), [(None, 0), (50, 128)])
def test_nan_in_a_tiff_is_black_or_what_the_settings_say(save, nan_value, grey):
    path = save(np.array([[np.nan, 100], [0, 25]], dtype=np.float32), "a.tif")

    [picture] = pictures_of(path, {"grey_range": (0, 100), "nan_value": nan_value})

    np.testing.assert_array_equal(np.asarray(picture.image)[..., 0], [[grey, 255], [0, 64]])
    assert bool(picture.notes) == (nan_value is None)


# Metadata that decoding does not need


def with_chunk(kind: bytes, content: bytes) -> bytes:
    """CORNERS as PNG, with a chunk before its pixels."""
    stream = io.BytesIO()
    Image.fromarray(CORNERS).save(stream, "PNG")
    png = stream.getvalue()
    return png[:33] + png_chunk(kind, content) + png[33:]


CHUNKS = {
    "large text": (b"zTXt", b"key\0\0" + zlib.compress(b"x" * 2**21)),
    "broken text": (b"zTXt", b"key\0\0no zlib"),
    "text of an unknown compression": (b"zTXt", b"key\0\7" + zlib.compress(b"x")),
    "broken international text": (b"iTXt", b"key\0\1\0\0\0no zlib"),
    "large profile": (b"iCCP", b"name\0\0" + zlib.compress(bytes(2**26))),
    "broken profile": (b"iCCP", b"name\0\0no zlib"),
    "broken EXIF": (b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    "resolution cut short": (b"pHYs", b"\0"),
    "gamma cut short": (b"gAMA", b""),
    "chromaticities cut short": (b"cHRM", b"\1\2"),
    "not in ASCII": (b"tEXt", b"\xff\xfe\0\xff"),
}


@pytest.mark.parametrize("kind", CHUNKS)
def test_png_is_not_refused_for_its_metadata(write, kind):
    image = read_image(write(with_chunk(*CHUNKS[kind]), "a.png"), 2)

    np.testing.assert_array_equal(image, CORNERS)


def exif_of(tag: int, kind: int, count: int, value: bytes) -> bytes:
    """An EXIF block of one entry; TIFF 6.0, section 2."""
    entry = struct.pack(">HHI", tag, kind, count) + value
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)


BYTE, ASCII, SHORT, LONG, RATIONAL = 1, 2, 3, 4, 5
EXIF = {
    "orientation as text": exif_of(0x0112, ASCII, 2, b"6\0\0\0"),
    "orientation 0": exif_of(0x0112, SHORT, 1, b"\0\0\0\0"),
    "orientation 99": exif_of(0x0112, SHORT, 1, b"\0\x63\0\0"),
    "no orientation": exif_of(0x0112, SHORT, 0, bytes(4)),
    "many orientations": exif_of(0x0112, SHORT, 10**9, bytes(4)),
    "orientation of an unknown type": exif_of(0x0112, 77, 1, bytes(4)),
    "resolution outside the block": exif_of(0x011A, RATIONAL, 1, b"\xff\xff\xff\xff"),
    "directory outside the block": exif_of(0x8769, LONG, 1, b"\xff\xff\xff\xff"),
    "directory that is itself": exif_of(0x8769, LONG, 1, b"\0\0\0\x08"),
    "maker's note cut short": exif_of(0x927C, BYTE, 9999, b"\0\0\0\x09"),
    "no directory": b"Exif\0\0MM\0*\0\0\0\x08",
    "no TIFF": b"Exif\0\0rubbish",
}


@pytest.mark.parametrize("kind", EXIF)
@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_pictures_are_not_refused_for_odd_exif_values(save, name, kind):
    image = read_image(save(np.full((8, 8), 100, np.uint8), name, exif=EXIF[kind]), 8)

    assert np.abs(image.astype(int) - 100).max() < 2


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe1\0\x10Exif\0\0MM\0*\xff\xff\xff\xff",
        b"\xff\xe2\0\x14ICC_PROFILE\0\x07\x01\0\0\0",
        b"\xff\xe2\0\x0eMPF\0MM\0*\xff\xff\xff\xff",
        b"\xff\xed\0\x18Photoshop 3.0\08BIM\xff\xff\xff",
        b"\xff\xfe\0\x06\xff\xfe\xfd\xfc",
    ],
)
def test_jpeg_is_not_refused_for_its_metadata(write, segment):
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(stream, "JPEG")
    content = stream.getvalue()

    image = read_image(write(content[:2] + segment + content[2:], "a.jpg"), 8)

    assert np.abs(image.astype(int) - 100).max() < 2


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.JPG"])
def test_other_endings_of_jpeg(save, tmp_path, name):
    save(np.full((8, 8), 100, np.uint8), "x.jpg").rename(tmp_path / name)

    assert np.abs(read_image(tmp_path / name, 8).astype(int) - 100).max() < 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pgm", b"P2 2 2 255\n0 80\n160 255\n"),
        ("a.pgm", b"P5 2 2 255\n" + bytes([0, 80, 160, 255])),
        ("a.pnm", b"P5\n# a comment\n2 2 255\n" + bytes([0, 80, 160, 255])),
    ],
)
def test_portable_grey_maps(write, name, content):
    image = read_image(write(content, name), 2)

    np.testing.assert_array_equal(image[..., 0], [[0, 80], [160, 255]])


# (row, column) of CORNERS' red pixel once a viewer has applied the orientation; EXIF 2.32, 4.6.4.
@pytest.mark.parametrize(
    ("orientation", "red"),
    [(1, (0, 0)), (2, (0, 1)), (3, (1, 1)), (4, (1, 0)), (6, (0, 1)), (8, (1, 0))],
)
def test_exif_orientation_is_applied(save, orientation, red):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(CORNERS.repeat(16, axis=0).repeat(16, axis=1), "a.jpg", exif=exif, quality=95)

    quarters = read_image(path, 32)[8::16, 8::16].astype(int)

    redness = quarters[..., 0] - quarters[..., 1:].max(axis=2)
    assert np.unravel_index(redness.argmax(), (2, 2)) == red


def test_jpeg_far_larger_than_wanted_agrees_with_the_full_decode(save):
    ramp = np.linspace(0, 255, 512).round().astype(np.uint8)
    picture = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(90)), axis=2)

    from_jpeg = read_image(save(picture, "a.jpg", quality=95), 16)
    from_png = read_image(save(picture, "a.png"), 16)

    assert from_jpeg.shape == (16, 16, 3)
    np.testing.assert_allclose(from_jpeg.astype(int), from_png, atol=4)


def test_jpeg_below_twice_the_wanted_size_is_decoded_in_full(save):
    noise = np.random.default_rng(0).integers(0, 256, (31, 31, 3), dtype=np.uint8)
    path = save(noise, "a.jpg")
    decoded = save(Image.open(path), "a.png")

    np.testing.assert_array_equal(read_image(path, 16), read_image(decoded, 16))


def test_grey_jpeg_is_read(save):
    image = read_image(save(np.full((40, 40), 130, dtype=np.uint8), "a.jpg"), 8)

    np.testing.assert_allclose(image.astype(int), 130, atol=1)


def test_cmyk_jpeg_is_read(save):
    image = read_image(save(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "a.jpg"), 8)

    np.testing.assert_allclose(image[4, 4].astype(int), [255, 0, 0], atol=4)


def test_single_pixel_fills_the_image(save):
    image = read_image(save(np.array([[[1, 2, 3]]], dtype=np.uint8), "a.png"), 16)

    assert (image == [1, 2, 3]).all()
    assert image.shape == (16, 16, 3)


def test_aspect_ratio_is_not_kept(save):
    wide = np.zeros((10, 40, 3), dtype=np.uint8)
    wide[:, 20:] = 255

    image = read_image(save(wide, "a.png"), 8)

    assert (image[:, :2] == 0).all()
    assert (image[:, -2:] == 255).all()


def test_suffix_does_not_decide_the_format(save, tmp_path):
    save(CORNERS, "a.png").rename(tmp_path / "a.jpg")

    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg", 2), CORNERS)


@pytest.mark.parametrize("content", [b"", b"patient,label\n1,2\n", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(write, content):
    message = refusal(write(content, "a.png"))

    assert f"received a file of another kind or of {len(content)} bytes" in message


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.gif", "a.webp"])
@pytest.mark.parametrize("kept", [0.2, 0.9])
def test_truncated_image_is_refused(save, write, name, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = save(noise, name).read_bytes()

    refusal(write(whole[: int(len(whole) * kept)], name))


def test_missing_file_is_refused(tmp_path):
    assert "No such file or directory; replace or remove it" in refusal(tmp_path / "none.png")


def test_missing_file_without_suffix_is_refused(tmp_path):
    assert "No such file; correct the path" in refusal(tmp_path / "none")


def test_image_beyond_pillows_limit_is_refused(save, monkeypatch):
    path = save(CORNERS, "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)

    assert "expected at most 1 pixels, received more" in refusal(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_image_beyond_pillows_limit_is_refused_where_warnings_are_no_errors(save, monkeypatch):
    path = save(CORNERS, "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)

    assert "expected at most 3 pixels, received more" in refusal(path)


def test_file_that_is_no_image_by_its_name_is_refused(write):
    message = refusal(write(b"", "a.txt"))

    assert "has an unsupported file extension (supported: JPEG, PNG, " in message


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.tif", "a.webp"])
def test_several_frames_are_refused(save, name):
    others = [Image.fromarray(CORNERS[::-1]), Image.fromarray(255 - CORNERS)]
    path = save(CORNERS, name, save_all=True, append_images=others)

    assert "expected one image, received 3 frames; save each as a file of its own" in refusal(path)


def test_only_the_first_view_of_a_phones_photograph_is_read(save):
    first, second = (Image.new("L", (16, 16), grey) for grey in (200, 20))

    image = read_image(save(first, "a.jpg", format="MPO", append_images=[second], save_all=True), 8)

    np.testing.assert_allclose(image.astype(int), 200, atol=1)


def pictures_of(path, formats=None, draft_size=None):
    return list(read_pictures(path, formats, draft_size))


@pytest.mark.parametrize(
    ("mode", "name", "kind"),
    [
        ("L", "a.jpg", "JPEG L"),
        ("RGB", "a.jpg", "JPEG RGB"),
        ("RGBA", "a.png", "PNG RGBA"),
        ("I;16", "a.png", "PNG I;16"),
        ("1", "a.bmp", "BMP 1"),
        ("P", "a.gif", "GIF P"),
    ],
)
def test_picture_tells_the_files_own_kind(save, mode, name, kind):
    [picture] = pictures_of(save(Image.new(mode, (5, 3)), name))

    assert (picture.kind, picture.image.size, picture.size) == (kind, (5, 3), (5, 3))
    assert picture.image.mode == ("L" if mode == "L" else "RGB")
    assert (picture.frame, picture.patient) == (None, None)


def test_kind_follows_the_content_and_not_the_name(save):
    [picture] = pictures_of(save(CORNERS, "a.jpg", format="PNG"))

    assert picture.kind == "PNG RGB"


# libjpeg scales by 1/2, 1/4 or 1/8.
@pytest.mark.parametrize(
    ("size", "decoded"),
    [(None, 512), (600, 512), (257, 512), (256, 256), (129, 256), (65, 128), (16, 64)],
)
def test_draft_leaves_at_least_the_size(save, size, decoded):
    [picture] = pictures_of(save(Image.new("L", (512, 512)), "a.jpg"), draft_size=size)

    assert picture.image.size == (decoded, decoded)


def test_reading_is_drafting_and_reducing(save):
    noise = np.random.default_rng(0).integers(0, 256, (200, 100, 3), dtype=np.uint8)
    path = save(noise, "a.jpg")

    [picture] = pictures_of(path, draft_size=16)

    np.testing.assert_array_equal(reduce_image(picture.image, 16), read_image(path, 16))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("A.PNG", ".png"),
        ("a.b.JPeG", ".jpeg"),
        ("a.nii.gz", ".nii.gz"),
        ("a.gz", ".gz"),
        ("a", ""),
        (".png", ""),
    ],
)
def test_suffix_is_in_small_letters(write, name, suffix):
    assert suffix_of(write(b"", name)) == suffix


def test_suffix_of_a_missing_file_is_that_of_its_name(tmp_path):
    assert suffix_of(tmp_path / "a.TXT") == ".txt"


def test_formats_are_those_of_the_manual():
    assert sorted(SUFFIXES) == [
        *(".bmp", ".dcm", ".dib", ".dicom", ".gif", ".ima", ".j2k", ".jfif", ".jp2", ".jpe"),
        *(".jpeg", ".jpg", ".nii", ".nii.gz", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
        *(".tif", ".tiff", ".webp"),
    ]


def test_batch_of_images_passes():
    check_images(np.zeros((2, 8, 8, 3), dtype=np.uint8))
    check_images(np.zeros((1, 8, 8, 3), dtype=np.uint8), size=8)


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (np.zeros((1, 8, 8, 3), dtype=np.float32), "received float32 (1, 8, 8, 3)"),
        (np.zeros((1, 3, 8, 8), dtype=np.uint8), "received uint8 (1, 3, 8, 8)"),
        (np.zeros((1, 8, 8, 1), dtype=np.uint8), "received uint8 (1, 8, 8, 1)"),
        (np.zeros((1, 8, 8, 4), dtype=np.uint8), "received uint8 (1, 8, 8, 4)"),
        (np.zeros((8, 8, 3), dtype=np.uint8), "received uint8 (8, 8, 3)"),
        (np.zeros((0, 8, 8, 3), dtype=np.uint8), "received an empty batch"),
        ([[0]], "received list None"),
    ],
    ids=["float", "NCHW", "grey", "RGBA", "single", "empty", "list"],
)
def test_other_arrays_are_refused(images, received):
    with pytest.raises(InputError) as caught:
        check_images(images)

    assert received in str(caught.value)
    assert "expected uint8 (batch, height, width, 3), 0 to 255" in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 16, 16, 3), (1, 8, 16, 3), (1, 16, 8, 3)])
def test_another_size_is_refused_with_its_remedy(shape):
    with pytest.raises(InputError, match=r"read_image\(path, 8\)"):
        check_images(np.zeros(shape, dtype=np.uint8), size=8)
