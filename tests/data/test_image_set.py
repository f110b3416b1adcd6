"""Labelled images in memory: their names, counts, subsets and what fits together."""

import json
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.data import arrays
from kerasmed.data.image_file import ImageFile, common_folder
from kerasmed.data.image_set import ImageSet
from kerasmed.errors import DataError, InputError, StageError


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
    monkeypatch.setattr(arrays, "_MAX_BYTES_IN_MEMORY", 1)
    subset = mapped.subset([2, 0])
    assert isinstance(subset.images, np.memmap)
    np.testing.assert_array_equal(subset.images, three.images[[2, 0]])
    again = subset.subset([1])
    assert isinstance(again.images, np.memmap)  # though the file of `subset` has no name
    np.testing.assert_array_equal(again.images, three.images[[0]])
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


def test_no_room_for_a_large_subset_is_said(three, tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", three.images)
    mapped = replace(three, images=np.load(tmp_path / "images.npy", mmap_mode="r"))
    monkeypatch.setattr(arrays, "_MAX_BYTES_IN_MEMORY", 1)
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


def test_common_folder_of_paths_that_share_none():
    files = [ImageFile(Path(path), "0f", "ant") for path in ("/x/a/1.png", "/x/b/2.png")]
    assert common_folder(files) == Path("/x")
    assert common_folder([*files, ImageFile(Path("b/3.png"), "0f", "ant")]) == Path()


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
    both = made_set(value=1) + made_set(value=2)

    assert both.images[:, 0, 0, 0].tolist() == [1, 1, 2, 2]
    assert both.labels.tolist() == [0, 1, 0, 1]
    assert both.labels.dtype == np.int32
    assert [file.name for file in both.files] == ["ant-1#0", "cat-1#1", "ant-2#0", "cat-2#1"]
    assert [file.patient for file in both.files] == ["who1", "who1", "who2", "who2"]


@pytest.mark.parametrize("other", [made_set(size=8), made_set(names=("ant", "dog"))])
def test_concatenate_refuses_what_does_not_fit(other):
    with pytest.raises(DataError, match=r"do not fit together.*read or draw both alike"):
        (made_set() + other)


def test_other_choices_of_format_are_other_data():
    images = made_set()
    windowed = replace(images, formats={"dicom": {"window": [40.0, 80.0]}})

    assert windowed.data_hash != images.data_hash
    other = replace(images, formats={"dicom": {"window": [40.0, 90.0]}})
    subsets = [variant.subset([0]) for variant in (images, windowed, other)]
    assert len({subset.data_hash for subset in subsets}) == 3
    assert (windowed + images).formats == windowed.formats


def drawn(count: int = 40, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def test_arrays_become_a_set_with_sorted_names():
    images = ImageSet.from_arrays(drawn(4), ["b", "a", "b", "c"])

    assert images.class_names == ("a", "b", "c")
    assert images.labels.tolist() == [1, 0, 1, 2]
    assert repr(images) == "ImageSet(4 images of 16 x 16 pixels: a 1, b 2, c 1)"


def test_numbers_are_named_in_the_order_that_is_given():
    images = ImageSet.from_arrays(drawn(4), [0, 1, 1, 0], class_names=["normal", "lesion"])

    assert images.class_names == ("lesion", "normal")
    assert [images.class_names[label] for label in images.labels] == [
        "normal", "lesion", "lesion", "normal",
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(4, 16, 16), (4, 16, 16, 1)])
def test_grey_is_repeated_to_three_channels(shape):
    grey = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    images = ImageSet.from_arrays(grey, [0, 1, 0, 1])

    assert images.images.shape == (4, 16, 16, 3)
    assert (images.images == grey.reshape(4, 16, 16, 1)).all()


@pytest.mark.parametrize(
    ("pixels", "labels", "names", "message"),
    [
        (drawn(4) / 255, [0, 1, 0, 1], None, "expected uint8, 0 to 255, received float64"),
        (drawn(4)[:, :8], [0, 1, 0, 1], None, r"received \(4, 8, 16, 3\)"),
        (drawn(4)[..., :2], [0, 1, 0, 1], None, r"received \(4, 16, 16, 2\)"),
        (drawn(0), [], None, r"received \(0, 16, 16, 3\)"),
        (drawn(4), [0, 1, 0], None, "expected 4 names or numbers"),
        (drawn(4), [0, 1, 0, 0.5], None, "of float64"),
        (drawn(4), [0, 1, 0, 2], ["a", "b"], "from 0 to 1, received 0 to 2"),
        (drawn(4), [0, 1, 0, -1], ["a", "b"], "received -1 to 1"),
        (drawn(4), ["a", "b", "a", "c"], ["a", "b"], r"received also \['c'\]"),
        (drawn(4), [0, 1, 0, 1], ["a", "a"], r"expected different names, received \['a', 'a'\]"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(pixels, labels, names, message):
    with pytest.raises(InputError, match=message):
        ImageSet.from_arrays(pixels, labels, names)


def test_other_number_of_patients_is_refused():
    with pytest.raises(InputError, match="one for each of 4 images, received 3"):
        ImageSet.from_arrays(drawn(4), [0, 1, 0, 1], patients=["p", "q", "r"])


def test_positions_give_an_image_and_the_rest_give_a_set(three):
    image, label = three[-1]
    assert (image.shape, image[0, 0, 0], label) == ((8, 8, 3), 20, 1)
    assert [int(pixels[0, 0, 0]) for pixels, _ in three] == [30, 10, 20]
    for key in (slice(1, None), [1, 2], np.array([False, True, True])):
        assert [file.path.name for file in three[key].files] == ["a.png", "b.png"]
    with pytest.raises(IndexError):
        three[3]


def test_split_of_a_folder_is_that_of_the_command(tiny_config, image_folder, tmp_path):
    run = tmp_path / "run"
    arguments = ["--data", str(image_folder), "--out", str(run)]
    assert main(["data", "split", str(tiny_config), *arguments]) == 0
    entries = json.loads((run / "split.json").read_text())["files"]

    roles = ImageSet.from_directory(image_folder, 16).split(train=0.4, test=0.2)

    for name in ("train", "validation", "test", "reserve"):
        expected = {(e["path"], e["group"]) for e in entries if e["role"] == name}
        role = getattr(roles, name)
        paths = (str(file.path) for file in role.files)
        assert set(zip(paths, role.groups.tolist(), strict=True)) == expected


def divided_folder(folder: Path, test_classes: str = "ab") -> Path:
    """Class folders in ``train`` and ``test``: 20 and 4 images of each class."""
    for subset, classes, count in (("train", "ab", 20), ("test", test_classes, 4)):
        for name in classes:
            (folder / subset / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng(ord(name) + 2 * number).integers(
                    0, 256, (16, 16, 3), np.uint8
                )
                pixels[0] = len(subset)  # no image of one subset is one of the other
                Image.fromarray(np.roll(pixels, len(subset), 0)).save(
                    folder / subset / name / f"{number}.png"
                )
    return folder


def test_official_test_images_are_kept_where_they_are_to_be_kept(tmp_path):
    folder = divided_folder(tmp_path)
    bits = {"near_duplicate_bits": None}
    roles = ImageSet.from_directory(folder, 16, official_split="keep").split(0.5, **bits)
    assert {file.path.parts[-3] for file in roles.test.files} == {"test"}
    assert len(roles.test) == 8
    others = [file for name, images in roles if name != "test" for file in images.files]
    assert {file.path.parts[-3] for file in others} == {"train"}
    assert roles.train.split(0.4, 0.2, **bits)  # a role has no official test images

    merged = ImageSet.from_directory(folder, 16, official_split="merge").split(0.5, **bits)
    assert {file.path.parts[-3] for file in merged.test.files} == {"train", "test"}


def test_official_test_images_follow_subset_and_concatenation(tmp_path):
    images = ImageSet.from_directory(divided_folder(tmp_path), 16, official_split="keep")
    assert images.official_test.sum() == 8
    some = images[images.official_test][:3]
    assert some.official_test.tolist() == [True] * 3
    others = ImageSet.from_arrays(drawn(2), ["a", "b"])
    assert (some + others).official_test.tolist() == [True] * 3 + [False] * 2
    assert (others + others).official_test is None


def test_official_test_images_of_one_class_only_are_refused(tmp_path):
    images = ImageSet.from_directory(divided_folder(tmp_path, "a"), 16, official_split="keep")
    with pytest.raises(DataError, match=r"official test set, received none of \['b'\]"):
        images.split()


def test_files_with_and_without_a_root_are_split():
    images = ImageSet.from_arrays(drawn(), [0, 1] * 20)
    files = [replace(file, path=Path("/data") / file.path) for file in images.files[::2]]
    mixed = replace(images, files=(*files, *images.files[1::2]))
    assert sum(len(role) for _, role in mixed.split(0.4, 0.2)) == 40


def test_split_keeps_copies_and_patients_together():
    pixels = drawn(60, 32)
    pixels[1::3] = pixels[::3, :, ::-1]  # mirrored copies
    patients = [f"p{row // 6}" for row in range(60)]
    roles = ImageSet.from_arrays(pixels, [0] * 30 + [1] * 30, patients=patients).split(0.4, 0.3)

    found = [
        {file.patient for file in role.files}
        for role in (roles.train, roles.validation, roles.test, roles.reserve)
    ]
    assert sum(map(len, found)) == len(set.union(*found)) == 10


def test_settings_that_do_not_exist_are_one_line(image_folder):
    images = ImageSet.from_arrays(drawn(), [0, 1] * 20)
    with pytest.raises(InputError, match="Split: unknown key groups"):
        images.split(groups="patient")
    with pytest.raises(InputError, match=r"Split: train: .* received 2"):
        images.split(train=2)
    with pytest.raises(InputError, match=r"image_size: .* received 8"):
        ImageSet.from_directory(image_folder, 8)
    with pytest.raises(InputError, match=r"symmetry='mirror'.* of training; give it to the model"):
        ImageSet.from_directory(image_folder, 16, symmetry="mirror")


def test_folder_is_read_once_into_a_cache_or_into_memory(image_folder, tmp_path, monkeypatch):
    kept = ImageSet.from_directory(image_folder, 16, cache=tmp_path / "cache")
    assert isinstance(kept.images, np.memmap)
    in_memory = ImageSet.from_directory(image_folder, 16)
    np.testing.assert_array_equal(in_memory.images, kept.images)
    assert in_memory.counts() == {"clear": 12, "ground_glass": 12}
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("decoded again"))
    again = ImageSet.from_directory(image_folder, 16, cache=tmp_path / "cache")
    np.testing.assert_array_equal(again.images, kept.images)


def test_tables_and_archives_are_read(image_folder, tmp_path):
    table = tmp_path / "labels.csv"
    rows = [f"{path},{path.parent.name}" for path in sorted(image_folder.glob("*/*"))]
    table.write_text("\n".join(["path,label", *rows]))
    assert ImageSet.from_csv(table, 16).counts() == {"clear": 12, "ground_glass": 12}

    pixels, labels = drawn(12, 28), np.arange(12)[:, None] % 2
    names = ("train_images", "val_images", "test_images")
    arrays = {name: pixels[i::3] for i, name in enumerate(names)}
    arrays |= {name.replace("images", "labels"): labels[i::3] for i, name in enumerate(names)}
    np.savez(tmp_path / "set.npz", **arrays)
    read = ImageSet.from_npz(
        tmp_path / "set.npz", 28, class_names=["even", "odd"], official_split="merge"
    )
    assert read.counts() == {"even": 6, "odd": 6}


def test_written_folder_holds_the_same_images(tmp_path):
    images = ImageSet.from_arrays(drawn(6), ["a", "b/c"] * 3)
    images.to_directory(tmp_path / "set")

    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["a", "b%2Fc"]
    read = ImageSet.from_directory(tmp_path / "set", 16)
    np.testing.assert_array_equal(read.images, images.images[[0, 2, 4, 1, 3, 5]])
    assert read.class_names == ("a", "b/c")
    with pytest.raises(StageError, match="exists"):
        images.to_directory(tmp_path / "set")


def test_batches_for_tensorflow_hold_every_image_once():
    images = ImageSet.from_arrays(drawn(10), [0, 1] * 5)
    plain = list(images.to_tf_dataset(4).as_numpy_iterator())
    assert [len(labels) for _, labels in plain] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([batch for batch, _ in plain]), images.images)
    assert np.concatenate([labels for _, labels in plain]).tolist() == images.labels.tolist()

    shuffled = np.concatenate([b for b, _ in images.to_tf_dataset(4, shuffle=True, seed=1)])
    assert not np.array_equal(shuffled, images.images)
    assert sorted(map(bytes, shuffled)) == sorted(map(bytes, images.images))


def test_notebook_shows_names_numbers_and_pictures():
    page = ImageSet.from_arrays(drawn(30), ["<a>"] * 20 + ["b"] * 10)._repr_html_()

    assert "&lt;a&gt;" in page
    assert "<td>20</td>" in page
    assert page.count("data:image/png;base64,") == 16


def test_range_of_deep_images_is_that_of_all(tmp_path):
    for name, level in (("dark", 1000), ("light", 3000)):
        (tmp_path / name).mkdir()
        for number in range(3):
            ramp = np.linspace(level - 1000, level, 256).reshape(16, 16).astype(np.uint16)
            Image.fromarray(ramp).save(tmp_path / name / f"{number}.png")

    images = ImageSet.from_directory(tmp_path, 16)

    dark, light = (images.images[images.labels == label] for label in (0, 1))
    assert dark.max() < 128 < light.min()
    assert np.ptp(images.images) > 240


def test_labels_of_an_archive_without_names_are_its_numbers(tmp_path):
    pixels, labels = drawn(12, 28), np.arange(12)[:, None] % 2
    np.savez(tmp_path / "set.npz", train_images=pixels, train_labels=labels)

    assert ImageSet.from_npz(tmp_path / "set.npz", 28).counts() == {"0": 6, "1": 6}


def test_soft_labels_follow_the_images_and_take_the_place_of_labels(three):
    np.testing.assert_array_equal(three.targets, np.eye(2)[three.labels])
    probabilities = np.array([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]], np.float32)
    soft = replace(three, probabilities=probabilities)
    np.testing.assert_array_equal(soft.subset([2, 0]).targets, probabilities[[2, 0]])
    assert three.subset([1]).probabilities is None
    np.testing.assert_array_equal((three + soft).targets, [*three.targets, *probabilities])
    assert (three + three).probabilities is None
    other = replace(soft, probabilities=probabilities[::-1].copy())
    assert len({three.data_hash, soft.data_hash, other.data_hash}) == 3
