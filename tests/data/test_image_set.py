"""A folder of class folders becomes one memory map, decoded once."""

import hashlib
import os

import numpy as np
import pytest
from PIL import Image

from kerasmed.data import image_set as module
from kerasmed.data.image_set import ImageFile, ImageSet, concatenate, read_image_folder
from kerasmed.errors import DataError, StageError


def save_grey(path, value: int, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (value, value, value)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes: `cat` with 10 and 20, `ant` with 30."""
    directory = tmp_path / "images"
    save_grey(directory / "cat" / "b.png", 20)
    save_grey(directory / "cat" / "a.png", 10)
    save_grey(directory / "ant" / "c.bmp", 30)
    return directory


@pytest.fixture
def read(folder, tmp_path):
    def read(**options) -> ImageSet:
        return read_image_folder(
            folder, options.pop("size", 8), tmp_path / "cache" / "x", **options
        )

    return read


@pytest.fixture
def no_decoding(monkeypatch):
    def refuse(path, size):
        raise AssertionError(f"{path} was decoded again")

    return lambda: monkeypatch.setattr(module, "read_image", refuse)


def refusal(read, **options) -> str:
    with pytest.raises(DataError) as caught:
        read(**options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_and_files_are_sorted(read, folder):
    images = read()

    assert images.class_names == ("ant", "cat")
    assert [file.path.name for file in images.files] == ["c.bmp", "a.png", "b.png"]
    assert images.labels.tolist() == [0, 1, 1]
    assert images.labels.dtype == np.int32
    assert images.images[:, 0, 0, 0].tolist() == [30, 10, 20]
    assert images.images.dtype == np.uint8
    assert images.images.shape == (3, 8, 8, 3)


def test_files_carry_their_bytes_hash_and_class(read, folder):
    file = read().files[0]

    content = (folder / "ant" / "c.bmp").read_bytes()
    expected = hashlib.sha256(content).hexdigest()
    assert file == ImageFile(folder / "ant" / "c.bmp", expected, "ant")


def test_counts_length_and_size(read):
    images = read(size=16)

    assert images.counts() == {"ant": 1, "cat": 2}
    assert (len(images), images.image_size) == (3, 16)


def test_data_hash_follows_content_not_place(read, folder, tmp_path):
    before = read().data_hash
    folder.rename(tmp_path / "moved")

    moved = read_image_folder(tmp_path / "moved", 8, tmp_path / "other")

    assert moved.data_hash == before


def test_data_hash_follows_pixels_and_class(read, folder):
    before = read().data_hash
    (folder / "cat" / "a.png").rename(folder / "ant" / "a.png")
    moved = read().data_hash
    save_grey(folder / "cat" / "b.png", 21)

    assert len({before, moved, read().data_hash}) == 3


def test_subset_keeps_order_and_names(read):
    part = read().subset([2, 0])

    assert part.images[:, 0, 0, 0].tolist() == [20, 30]
    assert part.labels.tolist() == [1, 0]
    assert [file.path.name for file in part.files] == ["b.png", "c.bmp"]
    assert part.counts() == {"ant": 1, "cat": 1}


def test_subset_of_one_class_keeps_the_other_name(read):
    assert read().subset([0]).counts() == {"ant": 1, "cat": 0}


def test_second_read_comes_from_the_cache(read, no_decoding):
    first = read()
    no_decoding()

    second = read()

    np.testing.assert_array_equal(second.images, first.images)
    assert second.files == first.files
    assert second.labels.tolist() == first.labels.tolist()


def test_images_are_a_read_only_memory_map(read):
    images = read().images

    assert isinstance(images, np.memmap)
    assert not images.flags.writeable


def test_changed_file_is_decoded_again(read, folder):
    read()
    save_grey(folder / "cat" / "a.png", 99)

    assert read().images[:, 0, 0, 0].tolist() == [30, 99, 20]


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

    assert read().images[:, 0, 0, 0].tolist() == [30, 40, 20]


def test_another_size_is_decoded_again(read):
    read()

    assert read(size=4).images.shape == (3, 4, 4, 3)


def test_missing_half_of_the_cache_names_its_remedy(read, tmp_path):
    read()
    (tmp_path / "cache" / "x.npy").unlink()

    with pytest.raises(StageError, match=r"delete .*cache and start again"):
        read()


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"No folder at .*none.*mend the path"):
        read_image_folder(tmp_path / "none", 8, tmp_path / "x")


def test_file_instead_of_folder_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="No folder at"):
        read_image_folder(folder / "ant" / "c.bmp", 8, tmp_path / "x")


def test_one_class_is_refused(read, folder):
    (folder / "ant" / "c.bmp").unlink()
    (folder / "ant").rmdir()

    assert "has 1 class folder: expected" in refusal(read)


def test_no_class_is_refused(tmp_path):
    with pytest.raises(DataError, match="has 0 class folders"):
        read_image_folder(tmp_path, 8, tmp_path / "x")


def test_empty_class_is_refused(read, folder):
    (folder / "dog").mkdir()

    assert f"Class folder {folder / 'dog'} is empty" in refusal(read)


def test_foreign_file_is_refused(read, folder):
    (folder / "cat" / "notes.txt").write_text("mine")
    (folder / "cat" / "scan.dcm").write_text("mine")

    message = refusal(read)

    assert str(folder / "cat" / "notes.txt") in message
    assert "2 such" in message


def test_litter_and_hidden_files_are_ignored(read, folder):
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.png", ".git/config.png"):
        path = folder / "cat" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("litter")
    (folder / ".cache").mkdir()

    assert read().counts() == {"ant": 1, "cat": 2}


def test_nested_folders_belong_to_their_class(read, folder):
    save_grey(folder / "ant" / "patient 1" / "day.2" / "x.PNG", 50)

    images = read()

    assert images.counts() == {"ant": 2, "cat": 2}
    assert images.images[:, 0, 0, 0].tolist() == [30, 50, 10, 20]


def test_unreadable_image_stops_and_leaves_no_cache(read, folder, tmp_path):
    (folder / "cat" / "a.png").write_text("not a picture")

    message = refusal(read)

    assert str(folder / "cat" / "a.png") in message
    assert "set data.on_bad_image: skip" in message
    assert list((tmp_path / "cache").iterdir()) == []


def test_unreadable_images_are_counted(read, folder):
    for name in ("a.png", "b.png"):
        (folder / "cat" / name).write_text("not a picture")

    assert "(1 more unreadable)" in refusal(read)


def test_unreadable_image_is_skipped_and_listed(read, folder, no_decoding):
    (folder / "cat" / "a.png").write_text("not a picture")

    images = read(on_bad_image="skip")
    no_decoding()
    again = read(on_bad_image="skip")

    for each in (images, again):
        assert each.counts() == {"ant": 1, "cat": 1}
        assert each.images[:, 0, 0, 0].tolist() == [30, 20]
        assert len(each.skipped) == 1
        assert str(folder / "cat" / "a.png") in each.skipped[0]


def test_stopping_does_not_reuse_what_skipping_left(read, folder):
    (folder / "cat" / "a.png").write_text("not a picture")
    read(on_bad_image="skip")

    assert str(folder / "cat" / "a.png") in refusal(read, on_bad_image="stop")


def test_class_without_a_readable_image_is_refused(read, folder):
    (folder / "ant" / "c.bmp").write_text("not a picture")

    message = refusal(read, on_bad_image="skip")

    assert "No readable image left in class ['ant']" in message
    assert "c.bmp" in message


def test_class_without_a_readable_image_is_refused_with_one_of_its_own_files(read, folder):
    save_grey(folder / "bee" / "z.png", 1)
    save_grey(folder / "bee" / "y.png", 1)
    (folder / "bee" / "y.png").write_text("not a picture")
    for name in ("a.png", "b.png"):
        (folder / "cat" / name).write_text("not a picture")

    assert str(folder / "cat") in refusal(read, on_bad_image="skip")


def made_set(names=("ant", "cat"), size: int = 4, value: int = 0) -> ImageSet:
    images = np.full((2, size, size, 3), value, dtype=np.uint8)
    files = tuple(ImageFile(f"{name}-{value}", f"{name}{value}", name) for name in names)
    return ImageSet(images, np.array([0, 1], dtype=np.int32), names, files)


def test_concatenate_puts_one_after_the_other():
    both = concatenate(made_set(value=1), made_set(value=2))

    assert both.images[:, 0, 0, 0].tolist() == [1, 1, 2, 2]
    assert both.labels.tolist() == [0, 1, 0, 1]
    assert both.labels.dtype == np.int32
    assert [file.path for file in both.files] == ["ant-1", "cat-1", "ant-2", "cat-2"]


@pytest.mark.parametrize("other", [made_set(size=8), made_set(names=("ant", "dog"))])
def test_concatenate_refuses_what_does_not_fit(other):
    with pytest.raises(DataError, match=r"do not fit together.*`kerasmed sample`"):
        concatenate(made_set(), other)
