"""Every file is read and decoded once, for all that is taken from it, in order."""

import shutil
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmed.data import entries, reading
from kerasmed.data.config import DataConfig
from kerasmed.data.image_set import read_images
from kerasmed.data.measurements import Measurements
from kerasmed.data.measuring import read_measurements
from kerasmed.data.reading import comparable_patients, in_parallel, made_from, new_salt, pseudonym
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError


def save_as(folder: Path, mode: str, suffix: str) -> Path:
    """The images of a folder in another mode and format, in a new folder."""
    new = folder.with_name(f"{mode}{suffix}")
    for path in sorted(folder.rglob("*.png")):
        grey = np.asarray(Image.open(path).convert("L"))
        deep = Image.fromarray(grey.astype(np.uint16) * 9)
        target = new / path.relative_to(folder).with_suffix(suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        (deep if mode == "I;16" else Image.fromarray(grey).convert(mode)).save(target)
    return new


@pytest.mark.parametrize(("mode", "suffix"), [("RGB", ".png"), ("L", ".jpg"), ("RGB", ".jpg")])
def test_one_pass_gives_images_and_measurements(image_folder, tmp_path, decodes, mode, suffix):
    data = DataConfig(source=save_as(image_folder, mode, suffix), image_size=16)

    measurements = read_measurements(data, tmp_path / "prints", tmp_path / "images")
    images = read_images(data, tmp_path / "images")

    assert set(decodes.values()) == {1}
    assert len(decodes) == len(images) == len(measurements) == 24
    assert measurements.hashes.astype(str).tolist() == [file.sha256 for file in images.files]


@pytest.mark.parametrize("settings", [{}, {"image_size": 16}, {"image_size": 100}])
def test_one_pass_gives_what_two_give(image_folder, tmp_path, settings):
    data = DataConfig(source=save_as(image_folder, "RGB", ".jpg"), **settings)
    once = read_measurements(data, tmp_path / "prints", tmp_path / "images")
    alone = read_measurements(data, tmp_path / "other")

    for name in Measurements.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(once, name), getattr(alone, name))
    np.testing.assert_array_equal(
        read_images(data, tmp_path / "images").images, read_images(data, tmp_path / "second").images
    )


def test_images_of_unknown_range_wait_for_it(image_folder, tmp_path, decodes):
    source = save_as(image_folder, "I;16", ".png")
    # One image that needs no range is no reason to keep the others.
    shutil.copy(next(image_folder.rglob("*.png")), next(source.iterdir()) / "a.png")
    data = DataConfig(source=source, image_size=16)

    measurements = read_measurements(data, tmp_path / "prints", tmp_path / "images")

    assert not list(tmp_path.glob("images.*"))
    grey_range = measurements.common_range()
    assert grey_range is not None
    with_range = data.model_copy(update={"grey_range": grey_range})
    assert len(read_images(with_range, tmp_path / "images")) == len(measurements) == 25
    assert set(decodes.values()) == {2}


def test_a_range_in_the_settings_needs_one_reading(image_folder, tmp_path, decodes):
    source = save_as(image_folder, "I;16", ".png")
    data = DataConfig(source=source, image_size=16, grey_range=(0, 2000))

    read_measurements(data, tmp_path / "prints", tmp_path / "images")

    assert len(read_images(data, tmp_path / "images")) == 24
    assert set(decodes.values()) == {1}


def test_unreadable_file_leaves_measurements_and_no_images(image_folder, tmp_path):
    next(image_folder.rglob("*.png")).write_bytes(b"no image")
    data = DataConfig(source=image_folder, image_size=16)

    measurements = read_measurements(data, tmp_path / "prints", tmp_path / "cache")

    assert (len(measurements), len(measurements.unreadable)) == (23, 1)
    assert not list(tmp_path.glob("cache*"))
    with pytest.raises(DataError, match=r"Cannot read .* Or set data.on_bad_image: skip"):
        read_images(data, tmp_path / "cache")


def test_skipped_file_is_listed_with_the_images(image_folder, tmp_path, decodes):
    next(image_folder.rglob("*.png")).write_bytes(b"no image")
    data = DataConfig(source=image_folder, image_size=16, on_bad_image="skip")

    measurements = read_measurements(data, tmp_path / "prints", tmp_path / "cache")
    images = read_images(data, tmp_path / "cache")

    assert images.skipped == tuple(measurements.unreadable.tolist())
    assert len(images) == len(measurements) == 23
    assert set(decodes.values()) == {1}


def test_only_what_is_missing_is_read_again(image_folder, tmp_path, decodes):
    data = DataConfig(source=image_folder, image_size=16)
    images = read_images(data, tmp_path / "images")
    written = (tmp_path / "images.npy").stat().st_mtime_ns

    read_measurements(data, tmp_path / "prints", tmp_path / "images")
    read_measurements(data, tmp_path / "prints", tmp_path / "images")

    assert set(decodes.values()) == {2}
    assert (tmp_path / "images.npy").stat().st_mtime_ns == written
    assert read_images(data, tmp_path / "images").files == images.files


def test_each_file_is_opened_once(image_folder, tmp_path, monkeypatch):
    data = DataConfig(source=save_as(image_folder, "RGB", ".jpg"), image_size=16)
    opened: Counter = Counter()
    read_bytes = Path.read_bytes

    def count(path):
        opened[path] += 1
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", count)
    monkeypatch.setattr(entries, "sha256_of", lambda path: pytest.fail(f"{path} is opened again"))

    read_measurements(data, tmp_path / "prints", tmp_path / "images")

    assert set(opened.values()) == {1}


@pytest.mark.parametrize(("number", "cores"), [(0, 2), (1, 2), (5, 2), (6, 9), (23, 9)])
def test_never_more_than_a_batch_is_under_way(monkeypatch, number, cores):
    monkeypatch.setattr(reading, "_BATCH", 5)
    monkeypatch.setattr(reading, "cpu_cores", lambda: cores)
    lock, begun, done, most = threading.Lock(), 0, 0, 0

    def work(entry: int) -> int:
        nonlocal begun, most
        with lock:
            begun += 1
            most = max(most, begun - done)
        return entry * entry

    for entry, result in in_parallel(work, range(number)):
        assert (entry, result) == (done, done * done)
        with lock:
            done += 1

    assert begun == done == number
    assert most <= 5


def test_error_of_the_work_comes_out_of_the_loop():
    def work(entry: int) -> int:
        if entry == 3:
            raise DataError("three")
        return entry

    results = in_parallel(work, range(9))

    assert [next(results)[1] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="three"):
        next(results)


def test_fingerprint_follows_every_setting_that_changes_images(image_folder):
    changes = [
        {},
        {"image_size": 17},
        {"on_bad_image": "skip"},
        {"dicom": {"frames": "split"}},
        {"nifti": {"axis": "sagittal"}},
    ]
    measurements = set()
    for change in changes:
        data = DataConfig(source=image_folder, **change)
        measurements.add(made_from(open_source(data), data).digest())

    assert len(measurements) == 5


def test_patients_of_several_sets_can_be_compared_where_that_is_asked_for():
    assert new_salt() != new_salt()
    with comparable_patients():
        first = new_salt()
        assert new_salt() == first
    with comparable_patients():
        assert new_salt() != first


def test_pseudonym_needs_its_salt():
    assert pseudonym(None, b"salt") is None
    assert pseudonym("Jane", b"salt") == pseudonym("Jane", b"salt")
    assert len({pseudonym(who, salt) for who in ("Jane", "John") for salt in (b"1", b"2")}) == 4
