"""Every kind of image file ends as the same uint8 RGB."""

import numpy as np
import pytest
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


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_divided_by_257_over_the_full_range(save, name):
    deep = np.array([[0, 256], [25700, 65535]], dtype=np.uint16)

    image = read_image(save(deep, name), 2)

    np.testing.assert_array_equal(image[..., 0], [[0, 0], [100, 255]])


def test_16_bit_range_is_not_guessed_from_the_pixels(save):
    twelve_bits = np.full((2, 2), 4095, dtype=np.uint16)

    assert (read_image(save(twelve_bits, "a.png"), 2) == 15).all()


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


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bits_are_refused(save, dtype):
    message = refusal(save(np.ones((4, 4), dtype=dtype), "a.tif"))

    assert "(32 bits), whose range is unknown; convert it to 8 or 16 bits" in message


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
    assert "No such file or directory; replace, mend or remove it" in refusal(tmp_path / "none.png")


def test_missing_file_without_suffix_is_refused(tmp_path):
    assert "No such file; mend the path" in refusal(tmp_path / "none")


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

    assert "expected JPEG, PNG, BMP, TIFF, GIF, WebP, DICOM or NIfTI; rename it" in message


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.tif", "a.webp"])
def test_several_frames_are_refused(save, name):
    others = [Image.fromarray(CORNERS[::-1]), Image.fromarray(255 - CORNERS)]
    path = save(CORNERS, name, save_all=True, append_images=others)

    assert "expected one image, received 3 frames; save each as a file of its own" in refusal(path)


def test_only_the_first_view_of_a_phones_photograph_is_read(save):
    first, second = (Image.new("L", (16, 16), grey) for grey in (200, 20))

    image = read_image(save(first, "a.jpg", format="MPO", append_images=[second], save_all=True), 8)

    np.testing.assert_allclose(image.astype(int), 200, atol=1)


def pictures_of(path, draft_size=None):
    return list(read_pictures(path, draft_size=draft_size))


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

    assert (picture.kind, picture.image.mode, picture.image.size) == (kind, "RGB", (5, 3))
    assert (picture.part, picture.patient) == (None, None)


def test_kind_follows_the_content_and_not_the_name(save):
    [picture] = pictures_of(save(CORNERS, "a.jpg", format="PNG"))

    assert picture.kind == "PNG RGB"


# libjpeg scales by 1/2, 1/4 or 1/8.
@pytest.mark.parametrize(
    ("size", "decoded"),
    [(None, 512), (600, 512), (257, 512), (256, 256), (129, 256), (65, 128), (16, 64)],
)
def test_draft_leaves_at_least_the_size(save, size, decoded):
    [picture] = pictures_of(save(Image.new("L", (512, 512)), "a.jpg"), size)

    assert picture.image.size == (decoded, decoded)


def test_reading_is_drafting_and_reducing(save):
    noise = np.random.default_rng(0).integers(0, 256, (200, 100, 3), dtype=np.uint8)
    path = save(noise, "a.jpg")

    [picture] = pictures_of(path, 16)

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
        *(".bmp", ".dcm", ".dicom", ".gif", ".jpeg", ".jpg", ".nii", ".nii.gz"),
        *(".png", ".tif", ".tiff", ".webp"),
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
