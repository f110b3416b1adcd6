"""Every image is decoded once, in order, and kept as a memory map with a manifest."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmed.data import decoding, entries, reading
from kerasmed.data.config import DataConfig
from kerasmed.data.image_file import ImageFile
from kerasmed.data.image_set import ImageSet, read_images
from kerasmed.data.readers import read_image
from kerasmed.errors import DataError, StageError
from kerasmed.files import sha256_of


def save_grey(path: Path, value: int, size: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (value, value, value)).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes: `cat` with 10 and 20, `ant` with 30."""
    directory = tmp_path / "images"
    save_grey(directory / "cat" / "b.png", 20)
    save_grey(directory / "cat" / "a.png", 10)
    save_grey(directory / "ant" / "c.bmp", 30)
    return directory


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache" / "x"


@pytest.fixture
def read(folder, cache):
    def read(source: Path = folder, image_size: int = 16, **options) -> ImageSet:
        return read_images(DataConfig(source=source, image_size=image_size, **options), cache)

    return read


@pytest.fixture
def no_decoding(monkeypatch):
    def refuse(path, *_):
        raise AssertionError(f"{path} was decoded again")

    return lambda: monkeypatch.setattr(entries, "read_pictures", refuse)


def values(images: ImageSet) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def refusal(read, *args, **options) -> str:
    with pytest.raises(DataError) as caught:
        read(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def spoil(path: Path) -> None:
    path.write_text("not a picture")


def test_images_labels_and_files_stand_in_one_order(read):
    images = read()

    assert images.class_names == ("ant", "cat")
    assert [file.path.name for file in images.files] == ["c.bmp", "a.png", "b.png"]
    assert images.labels.tolist() == [0, 1, 1]
    assert images.labels.dtype == np.int32
    assert values(images) == [30, 10, 20]
    assert images.images.dtype == np.uint8
    assert images.images.shape == (3, 16, 16, 3)
    assert images.skipped == ()


def test_files_carry_their_bytes_hash_and_class(read, folder):
    path = folder / "ant" / "c.bmp"

    assert read().files[0] == ImageFile(path, sha256_of(path), "ant", frame=None, patient=None)


def test_images_are_a_read_only_memory_map(read):
    images = read().images

    assert isinstance(images, np.memmap)
    assert not images.flags.writeable


def test_images_are_what_reading_each_file_gives(read, folder):
    rng = np.random.default_rng(0)
    for i, name in enumerate(["a.jpg", "b.png", "c.tif", "d.webp", "e.bmp", "f.jpeg"]):
        shape = (int(rng.integers(1, 90)), int(rng.integers(1, 90)), 3)
        noise = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(noise).save(folder / ("ant" if i % 2 else "cat") / f"x{name}")

    images = read(image_size=24)

    assert len(images) == 9
    one_by_one = b"".join(read_image(file.path, 24).tobytes() for file in images.files)
    assert images.images.tobytes() == one_by_one


def test_file_of_the_cache_is_what_numpy_reads(read, cache):
    images = read()

    np.testing.assert_array_equal(np.load(cache.with_suffix(".npy")), images.images)
    assert sorted(path.name for path in cache.parent.iterdir()) == ["x.json", "x.npy"]


@pytest.mark.parametrize("cores", [1, 7])
def test_order_does_not_depend_on_threads(folder, tmp_path, monkeypatch, cores):
    for i in range(20):
        save_grey(folder / "cat" / f"x{i:02d}.png", 100 + i)
    reduce_image = reading.reduce_image

    def dawdle(image, size):
        time.sleep((image.getpixel((0, 0))[0] % 3) / 500)
        return reduce_image(image, size)

    monkeypatch.setattr(reading, "reduce_image", dawdle)
    monkeypatch.setattr(reading, "cpu_cores", lambda: cores)
    monkeypatch.setattr(reading, "_BATCH", 6)

    images = read_images(DataConfig(source=folder, image_size=16), tmp_path / str(cores))

    assert values(images) == [30, 10, 20, *range(100, 120)]


def test_second_read_comes_from_the_cache(read, no_decoding):
    first = read()
    no_decoding()

    second = read()

    np.testing.assert_array_equal(second.images, first.images)
    assert second.files == first.files
    assert second.labels.tolist() == first.labels.tolist()


def test_symmetry_is_no_reason_to_decode_again(read, no_decoding):
    read()
    no_decoding()

    assert len(read(symmetry="dihedral")) == 3


def test_changed_file_is_decoded_again(read, folder):
    read()
    save_grey(folder / "cat" / "a.png", 99)

    assert values(read()) == [30, 99, 20]


def test_touched_file_is_decoded_again(read, folder, no_decoding):
    read()
    os.utime(folder / "cat" / "a.png", ns=(1, 1))
    no_decoding()

    with pytest.raises(AssertionError, match="decoded again"):
        read()


def test_new_and_removed_files_are_noticed(read, folder):
    read()
    save_grey(folder / "ant" / "d.png", 40)
    (folder / "cat" / "a.png").unlink()

    assert values(read()) == [30, 40, 20]


def test_another_size_is_decoded_again(read):
    read()

    assert read(image_size=20).images.shape == (3, 20, 20, 3)


def test_data_hash_follows_content_not_place(read, folder, tmp_path):
    before = read().data_hash
    folder.rename(tmp_path / "moved")

    assert read(tmp_path / "moved").data_hash == before


def test_data_hash_follows_pixels_and_class(read, folder):
    before = read().data_hash
    (folder / "cat" / "a.png").rename(folder / "ant" / "a.png")
    moved = read().data_hash
    save_grey(folder / "cat" / "b.png", 21)

    assert len({before, moved, read().data_hash}) == 3


def test_missing_half_of_the_cache_names_its_remedy(read, cache):
    read()
    cache.with_suffix(".npy").unlink()

    with pytest.raises(StageError, match=r"delete .*cache and start again"):
        read()


# An .npy begins with 128 bytes of header; three images of 16 x 16 x 3 bytes follow.
@pytest.mark.parametrize(
    "kept",
    [0, 3, 9, 60, 128, 200, 128 + 3 * 768 - 1],
)
def test_truncated_images_of_the_cache_name_their_remedy(read, cache, kept):
    read()
    path = cache.with_suffix(".npy")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:kept])

    with pytest.raises(StageError, match=r"x\.npy: .*; delete .*cache and start again") as caught:
        read()
    assert "\n" not in str(caught.value)


def test_images_know_the_choices_of_format_that_are_not_the_defaults(folder, cache):
    def formats(**choices) -> dict:
        return read_images(DataConfig(source=folder, image_size=16, **choices), cache).formats

    assert formats() == formats(nifti={"axis": "axial"}) == {}
    assert formats(nifti={"axis": "coronal"}) == {"nifti": {"axis": "coronal"}}
    assert formats(dicom={"window": [40, 80]}) == {"dicom": {"window": [40.0, 80.0]}}


def test_caches_whose_names_differ_behind_a_dot_are_two(folder, tmp_path):
    for size in (16, 32):
        data = DataConfig(source=folder, image_size=size)
        read_images(data, tmp_path / "cache" / f"variant-{size / 10}")

    assert len(list((tmp_path / "cache").iterdir())) == 4


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"fingerprint": "other"}', b"\xff\xfe{"]
)
def test_corrupt_manifest_is_made_anew(read, cache, content):
    first = read()
    cache.with_suffix(".json").write_bytes(content)

    again = read()

    assert again.files == first.files
    assert json.loads(cache.with_suffix(".json").read_text())["skipped"] == []


def test_unreadable_image_stops_and_leaves_no_cache(read, folder, cache):
    spoil(folder / "cat" / "a.png")

    message = refusal(read)

    assert str(folder / "cat" / "a.png") in message
    assert message.endswith(
        "replace or remove it. Or set data.on_bad_image: skip to continue without it."
    )
    assert list(cache.parent.iterdir()) == []


def test_unreadable_images_are_counted(read, folder):
    for name in ("a.png", "b.png"):
        spoil(folder / "cat" / name)

    assert "(1 more unreadable)" in refusal(read)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_nothing_half_written_is_left_after_a_break(read, cache, monkeypatch, error):
    def fail(image, size):
        raise error

    monkeypatch.setattr(reading, "reduce_image", fail)
    with pytest.raises(type(error)):
        read()

    assert list(cache.parent.iterdir()) == []


def test_earlier_cache_outlives_a_failed_decoding(read, folder, no_decoding):
    read()
    path = folder / "cat" / "a.png"
    content, stat = path.read_bytes(), path.stat()
    spoil(path)
    refusal(read)
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    no_decoding()

    assert values(read()) == [30, 10, 20]


def test_break_between_images_and_manifest_mixes_no_decodings(read, folder, monkeypatch):
    read()
    path = folder / "cat" / "a.png"
    content, stat = path.read_bytes(), path.stat()
    save_grey(path, 99)
    with monkeypatch.context() as broken:
        broken.setattr(decoding, "write_json", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            read()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert values(read()) == [30, 10, 20]


def test_unreadable_image_is_skipped_and_listed(read, folder, no_decoding):
    spoil(folder / "cat" / "a.png")

    images = read(on_bad_image="skip")
    no_decoding()
    again = read(on_bad_image="skip")

    for image_set in (images, again):
        assert image_set.counts() == {"ant": 1, "cat": 1}
        assert values(image_set) == [30, 20]
        assert len(image_set.skipped) == 1
        assert str(folder / "cat" / "a.png") in image_set.skipped[0]


def test_stopping_does_not_reuse_what_skipping_left(read, folder):
    spoil(folder / "cat" / "a.png")
    read(on_bad_image="skip")

    assert str(folder / "cat" / "a.png") in refusal(read, on_bad_image="stop")


def test_class_without_a_readable_image_is_refused(read, folder):
    spoil(folder / "ant" / "c.bmp")

    message = refusal(read, on_bad_image="skip")

    assert "No image left in class 'ant'" in message
    assert "c.bmp" in message
    assert refusal(read, on_bad_image="skip") == message


def test_class_without_a_readable_image_is_refused_with_one_of_its_own_files(read, folder):
    save_grey(folder / "bee" / "z.png", 1)
    spoil(folder / "bee" / "y.png")
    for name in ("a.png", "b.png"):
        spoil(folder / "cat" / name)

    assert str(folder / "cat") in refusal(read, on_bad_image="skip")


@pytest.fixture
def table(folder) -> Path:
    """In the folder of the images, with Jane twice and John once."""
    path = folder / "table.csv"
    path.write_text(
        "path,label,patient\ncat/a.png,cat,Jane Doe\ncat/b.png,cat,John\nant/c.bmp,ant,Jane Doe\n"
    )
    return path


def test_patients_are_equal_where_they_were_equal(read, table):
    ant, first, second = (file.patient for file in read(table).files)

    assert ant == first
    assert first != second
    assert len(ant) == len(second) == 16


def test_patients_get_other_names_in_every_decoding(table, tmp_path):
    data = DataConfig(source=table, image_size=16)
    first = read_images(data, tmp_path / "first").files
    second = read_images(data, tmp_path / "second").files

    assert not {file.patient for file in first} & {file.patient for file in second}
    assert [file.sha256 for file in first] == [file.sha256 for file in second]


def test_patients_keep_their_names_in_the_cache(read, table, no_decoding):
    first = read(table).files
    no_decoding()

    assert read(table).files == first


def test_no_patient_is_named_in_the_cache(read, table, cache):
    spoil(table.parent / "cat" / "b.png")
    images = read(table.parent, on_bad_image="skip")
    assert [file.patient for file in images.files] == [None, None]
    save_grey(table.parent / "cat" / "b.png", 20)
    read(table)

    written = [path.read_bytes() for path in cache.parent.iterdir()]
    assert len(written) == 2
    for content in written:
        assert b"Jane" not in content
        assert b"John" not in content


def test_changed_patient_is_noticed(read, table):
    read(table)
    table.write_text(table.read_text().replace("John", "Jane Doe"))

    assert len({file.patient for file in read(table).files}) == 1


def test_files_of_a_table_lie_where_they_lay(read, table, folder, tmp_path):
    far = tmp_path / "far.png"
    save_grey(far, 50)
    table.write_text(f"path,label\n{far},ant\ncat/../cat/a.png,cat\n")

    images = read(table)

    assert values(images) == [50, 10]
    assert [file.path.resolve() for file in images.files] == [far, folder / "cat" / "a.png"]


def test_files_of_a_table_behind_a_link_lie_where_they_lay(read, folder, tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    ant, cat = folder / "ant" / "c.bmp", folder / "cat" / "a.png"
    (deep / "table.csv").write_text(f"path,label\n{ant},ant\n{cat},cat\n")
    (tmp_path / "link").symlink_to(deep, target_is_directory=True)

    images = read(tmp_path / "link" / "table.csv")

    assert [file.path.resolve() for file in images.files] == [ant, cat]


def test_rows_of_an_npz_are_parts_of_it(read, tmp_path, cache, no_decoding):
    path = tmp_path / "set.npz"
    grey = np.repeat(np.arange(4, dtype=np.uint8) * 50, 256).reshape(4, 16, 16)
    np.savez(path, train_images=grey, train_labels=[1, 0, 1, 0])

    images = read(path, class_names=["big", "small"])

    assert values(images) == [50, 150, 0, 100]
    assert images.counts() == {"big": 2, "small": 2}
    assert [file.name for file in images.files] == [f"{path}#{row}" for row in (1, 3, 0, 2)]
    assert len({file.sha256 for file in images.files}) == 4
    assert sorted(entry.name for entry in cache.parent.iterdir()) == ["x.json", "x.npy"]
    os.utime(path, ns=(1, 1))
    assert read(path).class_names == ("0", "1")
