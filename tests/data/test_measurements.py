"""What an image is recognised by, and what survives recompression, resizing, flips and turns."""

import csv
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from kerasmed.data import measuring as module
from kerasmed.data.config import DataConfig
from kerasmed.data.duplicates import find_duplicates
from kerasmed.data.entries import root_of
from kerasmed.data.image_set import read_images
from kerasmed.data.measurements import Measurements, name_in_set
from kerasmed.data.measuring import perceptual_bits, read_measurements
from kerasmed.data.phantoms import FAMILIES, draw_phantom
from kerasmed.data.sources import open_source

# The default of split.near_duplicate_bits.
LIMIT = 32


def phantom(family: str, index: int, size: int = 128) -> np.ndarray:
    """Uint8 (size, size, 3); the families' classes take turns."""
    names = sorted(FAMILIES[family])
    return draw_phantom(family, names[index % len(names)], index, size, 0)[0]


def bits_of(image: Image.Image) -> np.ndarray:
    grey = image.convert("L").resize((64, 64), Image.Resampling.BICUBIC)
    return perceptual_bits(np.asarray(grey))


def all_versions(bits: np.ndarray) -> np.ndarray:
    """The bits of an image's eight flips and turns.

    Args:
        bits: bool (n, 16, 16), as ``perceptual_bits`` makes them.

    Returns:
        bool (8, n, 16, 16), the first as it is.
    """
    odd = np.arange(16) % 2 == 1
    versions = []
    for turned in (bits, bits.transpose(0, 2, 1)):
        for flip_rows in (False, True):
            for flip_columns in (False, True):
                flips = (flip_rows & odd[:, None]) ^ (flip_columns & odd[None, :])
                versions.append(turned ^ flips)
    return np.stack(versions)


def flips_and_turns(image: np.ndarray) -> list[np.ndarray]:
    """All eight, in the order of ``all_versions``: turned, then rows, then columns flipped."""
    versions = []
    for turned in (image, np.swapaxes(image, 0, 1)):
        for rows in (turned, turned[::-1]):
            versions += [rows, rows[:, ::-1]]
    return versions


def unpacked(measurements: Measurements) -> np.ndarray:
    return np.unpackbits(measurements.bits, axis=1).astype(bool)


def test_bits_are_the_signs_of_the_lowest_coefficients():
    # One cosine of the transform, of frequency 3 down and 5 across, has only that coefficient.
    at = np.arange(64) + 0.5
    grey = np.outer(np.cos(np.pi * 3 * at / 64), np.cos(np.pi * 5 * at / 64))

    negative = perceptual_bits(-1 - grey)

    assert perceptual_bits(grey).shape == (16, 16)
    assert perceptual_bits(grey)[3, 5]
    assert not negative[3, 5]
    assert not negative[0, 0]


def test_bits_of_a_batch_are_those_of_each():
    grey = np.random.default_rng(0).integers(0, 256, (5, 64, 64), dtype=np.uint8)

    together = perceptual_bits(grey)

    for bits, image in zip(together, grey, strict=True):
        np.testing.assert_array_equal(perceptual_bits(image), bits)


@pytest.mark.parametrize("version", range(8))
def test_versions_are_the_bits_of_the_really_flipped_and_turned_image(version):
    images = np.random.default_rng(1).integers(0, 256, (20, 64, 64), dtype=np.uint8)

    versions = all_versions(perceptual_bits(images))

    assert versions.shape == (8, 20, 16, 16)
    assert versions.dtype == bool
    for row, image in enumerate(images):
        real = perceptual_bits(flips_and_turns(image)[version])
        np.testing.assert_array_equal(versions[version, row], real)


def test_there_are_eight_versions_and_the_first_is_the_image_itself():
    bits = perceptual_bits(np.random.default_rng(2).random((64, 64)))[None]

    versions = all_versions(bits)

    np.testing.assert_array_equal(versions[0], bits)
    assert len({version.tobytes() for version in versions}) == 8


@pytest.mark.parametrize("family", FAMILIES)
def test_versions_hold_for_whole_pictures_at_their_own_size(family):
    for index in range(4):
        image = phantom(family, index)
        versions = all_versions(bits_of(Image.fromarray(image))[None])[:, 0]
        for version, real in zip(versions, flips_and_turns(image), strict=True):
            picture = Image.fromarray(np.ascontiguousarray(real))
            assert (bits_of(picture) != version).sum() <= 8


def _jpeg(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=40)
    return Image.open(stream)


def _noisy(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 8, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


CHANGES = {
    "JPEG of quality 40": _jpeg,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "noise": _noisy,
    "twice the size": lambda image: image.resize((256, 256), Image.Resampling.BICUBIC),
    "half the size": lambda image: image.resize((64, 64), Image.Resampling.BICUBIC),
    "another shape": lambda image: image.resize((150, 100), Image.Resampling.BICUBIC),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("family", FAMILIES)
def test_small_changes_of_an_image_change_few_bits(family, change):
    for index in range(6):
        image = Image.fromarray(phantom(family, index))
        assert (bits_of(CHANGES[change](image)) != bits_of(image)).sum() <= LIMIT


@pytest.mark.parametrize("family", FAMILIES)
def test_other_images_of_the_same_domain_differ_in_far_more_bits(family):
    bits = [bits_of(Image.fromarray(phantom(family, index))) for index in range(16)]

    for row, one in enumerate(bits):
        for other in bits[row + 1 :]:
            nearest = min((version != one).sum() for version in all_versions(other[None])[:, 0])
            assert nearest > 1.5 * LIMIT


def save(path: Path, image: np.ndarray | Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Two classes, `a` with a grey and a colour image, `b` with one that is neither square."""
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[1:3, 1:5] = [30, 60, 90]
    save(tmp_path / "set" / "a" / "1.png", np.full((8, 8), 100, dtype=np.uint8))
    save(tmp_path / "set" / "a" / "2.png", np.full((8, 8, 3), [200, 100, 50], dtype=np.uint8))
    save(tmp_path / "set" / "b" / "3.bmp", pixels)
    return tmp_path / "set"


def read(source: Path, cache: Path, **options) -> Measurements:
    return read_measurements(DataConfig(source=source, **options), cache / "measurements")


def test_one_row_an_image_by_hand(folder, tmp_path):
    measurements = read(folder, tmp_path)

    assert len(measurements) == 3
    assert measurements.names.tolist() == ["a/1.png", "a/2.png", "b/3.bmp"]
    assert measurements.classes.tolist() == ["a", "a", "b"]
    assert measurements.patients.tolist() == ["", "", ""]
    assert measurements.unreadable.tolist() == []
    content = (folder / "b" / "3.bmp").read_bytes()
    assert measurements.hashes[2].decode() == hashlib.sha256(content).hexdigest()
    assert (measurements.bits.shape, measurements.bits.dtype) == ((3, 256 // 8), np.uint8)
    appearance = measurements.appearance
    assert appearance["width"].tolist() == [8, 8, 6]
    assert appearance["height"].tolist() == [8, 8, 4]
    assert appearance["kind"].tolist() == ["PNG L", "PNG RGB", "BMP RGB"]
    assert appearance["bytes"][2] == len(content)
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    assert appearance["brightness"][:2].tolist() == [100, 124]
    # Only the outermost pixels are the border: 3 in a hundred, but at least one.
    np.testing.assert_allclose(appearance["border"], [[100, 100, 100], [200, 100, 50], [0, 0, 0]])


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_rows_that_are_stored_in_chunks_are_the_same(at_once, folder, tmp_path, monkeypatch):
    whole = read(folder, tmp_path / "whole")
    monkeypatch.setattr(module, "_ROWS", at_once)
    in_chunks = read(folder, tmp_path / "chunks")
    for name in ("names", "classes", "hashes", "pixel_hashes", "bits", "appearance"):
        np.testing.assert_array_equal(getattr(in_chunks, name), getattr(whole, name))


def test_border_is_the_mean_of_the_outer_pixels(tmp_path):
    # 100 pixels wide: a border of three. Outside 10 everywhere, 40 on the left three columns.
    image = np.full((100, 100), 200, dtype=np.uint8)
    image[:3], image[-3:], image[:, -3:] = 10, 10, 10
    image[:, :3] = 40
    save(tmp_path / "set" / "a" / "1.png", image)
    save(tmp_path / "set" / "b" / "1.png", image)

    border = read(tmp_path / "set", tmp_path).appearance["border"][0]

    left, all_of_it = 300, 100 * 100 - 94 * 94
    expected = (40 * left + 10 * (all_of_it - left)) / all_of_it
    np.testing.assert_allclose(border, [expected] * 3, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_very_small_images_have_measurements(tmp_path, shape):
    for name in "ab":
        save(tmp_path / "set" / name / "1.png", np.full(shape, 7, dtype=np.uint8))

    measurements = read(tmp_path / "set", tmp_path)

    assert measurements.appearance["border"].tolist() == [[7, 7, 7]] * 2


def test_pixel_hash_follows_pixels_and_size_not_bytes(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    save(tmp_path / "set" / "a" / "1.png", image)
    save(tmp_path / "set" / "a" / "2.png", image, compress_level=0)
    save(tmp_path / "set" / "a" / "3.bmp", image)
    save(tmp_path / "set" / "b" / "1.png", image.reshape(4, 16, 3))
    save(tmp_path / "set" / "b" / "2.png", image ^ 1)

    measurements = read(tmp_path / "set", tmp_path)

    assert len(set(measurements.hashes.tolist())) == 5
    assert len(set(measurements.pixel_hashes[:3].tolist())) == 1
    assert len(set(measurements.pixel_hashes.tolist())) == 3


def test_grey_repeated_in_three_channels_has_the_same_pixels(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    save(tmp_path / "set" / "a" / "1.png", grey)
    save(tmp_path / "set" / "b" / "1.png", np.repeat(grey[..., None], 3, axis=2))

    measurements = read(tmp_path / "set", tmp_path)

    assert measurements.pixel_hashes[0] == measurements.pixel_hashes[1]
    assert measurements.hashes[0] != measurements.hashes[1]


def test_blank_images_have_the_bit_of_brightness_alone(tmp_path):
    for value in (0, 1, 128, 255):
        save(tmp_path / "set" / f"c{value}" / "1.png", np.full((100, 80), value, dtype=np.uint8))

    measurements = read(tmp_path / "set", tmp_path)

    assert unpacked(measurements).sum(axis=1).tolist() == [0, 1, 1, 1]


def test_measurements_are_read_from_the_cache(folder, tmp_path, monkeypatch):
    first = read(folder, tmp_path)

    def refuse(image):
        raise AssertionError(f"{image.entry.path} was examined again")

    monkeypatch.setattr(module, "_examine", refuse)
    second = read(folder, tmp_path)

    for name in Measurements.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))
        assert getattr(second, name).dtype == getattr(first, name).dtype


def test_measurements_do_not_depend_on_sizes_up_to_64(folder, tmp_path, monkeypatch):
    save(folder / "b" / "4.jpg", phantom("ct", 0, 512))
    first = read(folder, tmp_path, image_size=16)
    other = read(folder, tmp_path / "other", image_size=64)
    monkeypatch.setattr(module, "_examine", lambda *_: pytest.fail("examined again"))

    again = read(folder, tmp_path, image_size=32, symmetry="dihedral", on_bad_image="skip")

    for measurements in (other, again):
        np.testing.assert_array_equal(measurements.bits, first.bits)
        np.testing.assert_array_equal(measurements.pixel_hashes, first.pixel_hashes)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scale_that_a_jpeg_is_decoded_at_changes_few_bits(family, tmp_path):
    for index in range(6):
        save(tmp_path / "set" / "ab"[index % 2] / f"{index}.jpg", phantom(family, index, 256))

    small, large = (
        read(tmp_path / "set", tmp_path / str(size), image_size=size) for size in (64, 256)
    )

    assert (unpacked(small) != unpacked(large)).sum(axis=1).max() <= LIMIT // 4
    for name in ("width", "height", "bytes", "kind"):
        np.testing.assert_array_equal(small.appearance[name], large.appearance[name])
    for name in ("brightness", "border"):
        np.testing.assert_allclose(small.appearance[name], large.appearance[name], atol=3)


def test_a_jpeg_and_its_copy_without_loss_are_duplicates(tmp_path):
    for index in range(4):
        path = tmp_path / "set" / "a" / f"{index}.jpg"
        save(path, phantom("ct", index, 256))
        save(tmp_path / "set" / "b" / f"{index}.png", Image.open(path))
        # The same pixels in other bytes.
        path.with_suffix(".jpeg").write_bytes(path.read_bytes() + b"\0")

    measurements = read(tmp_path / "set", tmp_path)
    pairs = find_duplicates(measurements, LIMIT).pairs

    names = measurements.names
    assert len(np.unique(measurements.pixel_hashes)) == 8
    groups = {frozenset(Path(name).stem for name in names[pair]) for pair in pairs}
    assert groups == {frozenset(str(index)) for index in range(4)}
    assert len(pairs) >= 8


@pytest.mark.parametrize("change", ["content", "new", "gone"])
def test_changed_files_are_examined_again(folder, tmp_path, change):
    before = read(folder, tmp_path)
    path = folder / "a" / "2.png"
    if change == "content":
        stat = path.stat()
        save(path, np.full((8, 8, 3), 9, dtype=np.uint8))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    elif change == "new":
        save(folder / "a" / "4.png", np.zeros((8, 8), dtype=np.uint8))
    else:
        path.unlink()

    after = read(folder, tmp_path)

    assert after.pixel_hashes.tolist() != before.pixel_hashes.tolist()
    assert len(after) == {"content": 3, "new": 4, "gone": 2}[change]


# NumPy 2.4 leaves a file open that starts as a zip archive and is none.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04broken"])
def test_broken_cache_is_made_anew(folder, tmp_path, content):
    (tmp_path / "measurements.npz").write_bytes(content)

    measurements = read(folder, tmp_path)

    assert len(measurements) == 3
    assert not list(tmp_path.glob("*.tmp*"))
    assert len(read(folder, tmp_path)) == 3


def test_unreadable_files_are_listed_with_the_reason(folder, tmp_path):
    (folder / "a" / "0.png").write_bytes(b"no image")
    (folder / "b" / "4.jpg").write_bytes(b"")

    measurements = read(folder, tmp_path)

    assert measurements.names.tolist() == ["a/1.png", "a/2.png", "b/3.bmp"]
    assert len(measurements.unreadable) == 2
    assert "0.png" in measurements.unreadable[0]
    assert "4.jpg" in measurements.unreadable[1]


def test_a_set_without_a_readable_image_has_no_rows(tmp_path):
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "0.png").write_bytes(b"no image")

    measurements = read(tmp_path / "set", tmp_path)

    assert len(measurements) == 0
    assert len(measurements.unreadable) == 2
    assert len(read(tmp_path / "set", tmp_path).unreadable) == 2


def check_rows_are_those_of(measurements: Measurements, files: tuple, root: Path) -> None:
    """Assert that measurements and images name the same files, in the same order."""
    assert measurements.names.tolist() == [
        name_in_set(file.path, file.frame, root) for file in files
    ]
    assert measurements.hashes.astype(str).tolist() == [file.sha256 for file in files]


def test_rows_have_the_order_of_the_images(folder, tmp_path):
    data = DataConfig(source=folder, image_size=16)
    files = read_images(data, tmp_path / "images").files

    measurements = read_measurements(data, tmp_path / "measurements")

    check_rows_are_those_of(measurements, files, root_of(folder))


def test_rows_of_an_archive_have_its_name_and_their_number(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    path = tmp_path / "set.npz"
    np.savez(path, train_images=images, train_labels=np.array([1, 0, 1, 0]))
    data = DataConfig(source=path, image_size=16)

    measurements = read_measurements(data, tmp_path / "measurements")
    files = read_images(data, tmp_path / "images").files

    assert measurements.names.tolist() == ["set.npz#1", "set.npz#3", "set.npz#0", "set.npz#2"]
    assert measurements.classes.tolist() == ["0", "0", "1", "1"]
    assert measurements.appearance["kind"].tolist() == ["npz L"] * 4
    check_rows_are_those_of(measurements, files, tmp_path)


def write_table(path: Path, rows: list[tuple[str, ...]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "patient")[: len(rows[0])], *rows])
    return path


def test_patients_of_a_table_are_distinguished_but_not_named(folder, tmp_path):
    rows = [("set/a/1.png", "a", "Ann"), ("set/a/2.png", "a", "Bob"), ("set/b/3.bmp", "b", "Ann")]
    table = write_table(tmp_path / "set.csv", rows)

    measurements = read(table, tmp_path / "cache")

    assert measurements.patients[0] == measurements.patients[2]
    assert len(set(measurements.patients.tolist())) == 2
    assert b"Ann" not in (tmp_path / "cache" / "measurements.npz").read_bytes()


@pytest.mark.parametrize("spelling", ["set/{}", "./set/{}", "{absolute}/set/{}", "table/../set/{}"])
def test_every_spelling_of_a_path_in_a_table_finds_its_row(folder, tmp_path, spelling):
    (tmp_path / "table").mkdir()
    names = (("a/1.png", "a"), ("a/2.png", "a"), ("b/3.bmp", "b"))
    rows = [(spelling.format(name, absolute=tmp_path), label) for name, label in names]
    data = DataConfig(source=write_table(tmp_path / "set.csv", rows), image_size=16)

    measurements = read_measurements(data, tmp_path / "measurements")
    files = read_images(data, tmp_path / "images").files

    check_rows_are_those_of(measurements, files, open_source(data).root)


def test_absolute_paths_outside_the_folder_of_the_table_find_their_rows(folder, tmp_path):
    names = (("a/1.png", "a"), ("a/2.png", "a"), ("b/3.bmp", "b"))
    rows = [(str(folder / name), label) for name, label in names]
    table = write_table(tmp_path / "tables" / "set.csv", rows)
    data = DataConfig(source=table, image_size=16)

    measurements = read_measurements(data, tmp_path / "measurements")
    files = read_images(data, tmp_path / "images").files

    check_rows_are_those_of(measurements, files, open_source(data).root)
