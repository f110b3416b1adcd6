"""Labelled images in memory: their names, counts, subsets and what fits together."""

import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kerasmed.data import image_set
from kerasmed.data.image_set import ImageFile, ImageSet, concatenate
from kerasmed.errors import DataError, StageError


def made_set(names=("ant", "cat"), size: int = 4, value: int = 0) -> ImageSet:
    images = np.full((2, size, size, 3), value, dtype=np.uint8)
    files = tuple(
        ImageFile(Path(f"{name}-{value}"), f"{name}{value}", name, frame, f"who{value}")
        for frame, name in enumerate(names)
    )
    return ImageSet(images, np.array([0, 1], dtype=np.int32), names, files)


@pytest.fixture
def three() -> ImageSet:
    """One `ant` of grey 30, then two `cat` of 10 and 20."""
    values = np.array([30, 10, 20], dtype=np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (3, 8, 8, 3))
    classes = ("ant", "cat", "cat")
    names = ("c.bmp", "a.png", "b.png")
    files = tuple(ImageFile(Path(n), f"sha {n}", c) for n, c in zip(names, classes, strict=True))
    return ImageSet(images, np.array([0, 1, 1], dtype=np.int32), ("ant", "cat"), files)


def test_length_size_and_counts(three):
    assert (len(three), three.image_size) == (3, 8)
    assert three.counts() == {"ant": 1, "cat": 2}


@pytest.mark.parametrize(
    ("indices", "counts"),
    [
        ([1, 2], {"ant": 0, "cat": 2}),
        ([2, 0], {"ant": 1, "cat": 1}),
        ([0, 0, 0], {"ant": 3, "cat": 0}),
        ([], {"ant": 0, "cat": 0}),
    ],
)
def test_counts_of_some_images(three, indices, counts):
    assert three.counts(np.array(indices, dtype=np.int64)) == counts


def test_subset_keeps_order_and_names(three):
    subset = three.subset([2, 0])

    assert subset.images[:, 0, 0, 0].tolist() == [20, 30]
    assert subset.labels.tolist() == [1, 0]
    assert [file.path.name for file in subset.files] == ["b.png", "c.bmp"]
    assert subset.counts() == {"ant": 1, "cat": 1}


def test_subset_of_one_class_keeps_the_other_name(three):
    assert three.subset([0]).counts() == {"ant": 1, "cat": 0}


def test_large_subset_lies_in_a_nameless_file(three, tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", three.images)
    mapped = replace(three, images=np.load(tmp_path / "images.npy", mmap_mode="r"))
    monkeypatch.setattr(image_set, "_MAX_BYTES_IN_MEMORY", 1)
    subset = mapped.subset([2, 0])
    assert isinstance(subset.images, np.memmap)
    np.testing.assert_array_equal(subset.images, three.images[[2, 0]])
    np.testing.assert_array_equal(subset.subset([1]).images, three.images[[0]])
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


def test_no_room_for_a_large_subset_is_said(three, tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", three.images)
    mapped = replace(three, images=np.load(tmp_path / "images.npy", mmap_mode="r"))
    monkeypatch.setattr(image_set, "_MAX_BYTES_IN_MEMORY", 1)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
    try:
        with pytest.raises(StageError, match="make room"):
            mapped.subset([0, 1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_subset_of_nothing_is_empty(three):
    assert len(three.subset([])) == 0


def test_subset_is_a_copy_in_memory(three):
    subset = three.subset([0])
    subset.images[:] = 7

    assert three.images[0, 0, 0, 0] == 30


def test_nobody_and_no_part_unless_said():
    file = ImageFile(Path("a.png"), "0f", "ant")

    assert (file.frame, file.patient) == (None, None)


@pytest.mark.parametrize(
    ("frame", "name"), [(None, "ant/a.npz"), (0, "ant/a.npz#0"), (12, "ant/a.npz#12")]
)
def test_name_tells_the_frame_where_there_are_several(frame, name):
    assert ImageFile(Path("ant/a.npz"), "0f", "ant", frame).name == name


def hash_of(*rows: tuple[str, str]) -> str:
    """Data hash of files of the given (SHA-256, class)."""
    files = tuple(ImageFile(Path("x"), sha256, class_name) for sha256, class_name in rows)
    blank = np.zeros((len(rows), 4, 4, 3), dtype=np.uint8)
    return ImageSet(blank, np.zeros(len(rows), np.int32), ("ant", "cat"), files).data_hash


def test_data_hash_follows_content_class_and_order():
    hashes = [
        hash_of(("1", "ant"), ("2", "cat")),
        hash_of(("1", "ant"), ("3", "cat")),
        hash_of(("1", "ant"), ("2", "ant")),
        hash_of(("2", "cat"), ("1", "ant")),
        hash_of(("1", "ant")),
    ]

    assert len(set(hashes)) == 5
    assert all(len(digest) == 64 for digest in hashes)


def test_data_hash_follows_neither_place_nor_patient():
    images, copy = made_set(), made_set()
    files = tuple(ImageFile(Path("far"), file.sha256, file.class_name) for file in copy.files)
    moved = ImageSet(copy.images, copy.labels, copy.class_names, files)

    assert images.data_hash == moved.data_hash


def test_concatenate_puts_one_after_the_other():
    both = concatenate(made_set(value=1), made_set(value=2))

    assert both.images[:, 0, 0, 0].tolist() == [1, 1, 2, 2]
    assert both.labels.tolist() == [0, 1, 0, 1]
    assert both.labels.dtype == np.int32
    assert [file.name for file in both.files] == ["ant-1#0", "cat-1#1", "ant-2#0", "cat-2#1"]
    assert [file.patient for file in both.files] == ["who1", "who1", "who2", "who2"]


@pytest.mark.parametrize("other", [made_set(size=8), made_set(names=("ant", "dog"))])
def test_concatenate_refuses_what_does_not_fit(other):
    with pytest.raises(DataError, match=r"do not fit together.*`kerasmed sample`"):
        concatenate(made_set(), other)


def test_other_choices_of_format_are_other_data():
    images = made_set()
    windowed = replace(images, formats={"dicom": {"window": [40.0, 80.0]}})

    assert windowed.data_hash != images.data_hash
    other = replace(images, formats={"dicom": {"window": [40.0, 90.0]}})
    subsets = [variant.subset([0]) for variant in (images, windowed, other)]
    assert len({subset.data_hash for subset in subsets}) == 3
    assert concatenate(windowed, images).formats == windowed.formats
