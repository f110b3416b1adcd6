"""Folders, tables and .npz archives are listed in one order, before any pixel is read."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmed.data.config import DataConfig, PhantomConfig
from kerasmed.data.sources import Source, count_class_folders, open_source
from kerasmed.errors import DataError


def touch(*paths: Path) -> None:
    """Files of names that sources list; none is opened before it is decoded."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(source: Source) -> list[tuple[str, str]]:
    """(class, path below the root) of each entry."""
    return [
        (entry.class_name, entry.path.relative_to(source.root).as_posix())
        for entry in source.entries
    ]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes: `cat` with a.png and b.png, `ant` with c.bmp."""
    directory = tmp_path / "images"
    touch(directory / "cat" / "b.png", directory / "cat" / "a.png", directory / "ant" / "c.bmp")
    return directory


PLAIN = [("ant", "ant/c.bmp"), ("cat", "cat/a.png"), ("cat", "cat/b.png")]


def of_folder(folder: Path) -> list[tuple[str, str]]:
    return listed(open_source(DataConfig(source=folder)))


def test_classes_and_files_are_sorted(folder):
    source = open_source(DataConfig(source=folder))

    assert source.class_names == ("ant", "cat")
    assert listed(source) == PLAIN
    assert source.root == folder
    assert source.files() == [entry.path for entry in source.entries]
    assert {(entry.row, entry.patient) for entry in source.entries} == {(None, None)}


def test_order_is_by_code_point_and_not_by_number(tmp_path):
    for name in ("b/10.png", "b/9.png", "B/Z.png", "B/a.png", "ä/x.png"):
        touch(tmp_path / name)

    assert [path for _, path in of_folder(tmp_path)] == [
        "B/Z.png",
        "B/a.png",
        "b/10.png",
        "b/9.png",
        "ä/x.png",
    ]


def test_nested_folders_belong_to_their_class(folder):
    touch(folder / "ant" / "patient 1" / "day.2" / "x.PNG")

    assert ("ant", "ant/patient 1/day.2/x.PNG") in of_folder(folder)
    assert count_class_folders(folder) == {"ant": 2, "cat": 2}


def test_litter_and_hidden_files_are_ignored(folder):
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.png", ".git/config.png"):
        touch(folder / "cat" / name)
    (folder / ".cache").mkdir()
    touch(folder / "README.txt")

    assert of_folder(folder) == PLAIN


def test_linked_folders_and_files_are_followed(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    touch(elsewhere / "far.png", elsewhere / "deep" / "farther.png")
    (folder / "dog").symlink_to(elsewhere, target_is_directory=True)
    (folder / "ant" / "more").symlink_to(elsewhere / "deep", target_is_directory=True)
    (folder / "ant" / "one.png").symlink_to(elsewhere / "far.png")

    assert of_folder(folder) == [
        ("ant", "ant/c.bmp"),
        ("ant", "ant/more/farther.png"),
        ("ant", "ant/one.png"),
        ("cat", "cat/a.png"),
        ("cat", "cat/b.png"),
        ("dog", "dog/deep/farther.png"),
        ("dog", "dog/far.png"),
    ]


def test_links_in_a_loop_end(folder):
    touch(folder / "ant" / "deep" / "x.png")
    (folder / "ant" / "deep" / "up").symlink_to(folder / "ant", target_is_directory=True)

    assert of_folder(folder) == [PLAIN[0], ("ant", "ant/deep/x.png"), *PLAIN[1:]]


def test_folder_linked_twice_in_a_class_counts_once(folder, tmp_path):
    touch(tmp_path / "elsewhere" / "x.png")
    for name in ("first", "second"):
        (folder / "ant" / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)

    assert count_class_folders(folder) == {"ant": 2, "cat": 2}


@pytest.mark.parametrize("name", ["notes.txt", "scan", "a.jxl"])
def test_foreign_files_are_counted(folder, name):
    touch(folder / "cat" / name, folder / "cat" / "z.pdf")

    with pytest.raises(DataError, match=r"unsupported file extension \(2 such in .*cat; supported"):
        open_source(DataConfig(source=folder))


def test_files_of_each_class_folder_are_counted(folder):
    touch(folder / "bee" / "x.webp")

    counts = count_class_folders(folder)

    assert counts == {"ant": 1, "bee": 1, "cat": 2}
    assert list(counts) == ["ant", "bee", "cat"]


@pytest.mark.parametrize("name", ["none", "cat", "cat/a.png"])
def test_counting_refuses_what_opening_refuses(folder, name):
    with pytest.raises(DataError, match=f"{name}"):
        count_class_folders(folder / name)


def test_phantoms_are_no_source():
    with pytest.raises(AssertionError, match="phantoms are written before"):
        open_source(DataConfig(phantoms=PhantomConfig()))


def test_file_is_read_with_the_hash_of_its_bytes(folder, tmp_path):
    for path in folder.rglob("*.*"):
        Image.new("L", (3, 2), 7).save(path)
    source = open_source(DataConfig(source=folder))

    with source.opened(tmp_path) as read:
        [(digest, picture)] = read(source.entries[0], None)

    assert digest == hashlib.sha256((folder / "ant" / "c.bmp").read_bytes()).hexdigest()
    assert (picture.kind, picture.image.size, picture.image.mode) == ("BMP L", (3, 2), "L")
    assert (picture.frame, picture.patient) == (None, None)


@pytest.fixture
def table(folder):
    """A function from lines to the source of a table in `folder`, next to the class folders."""

    def open_table(*lines: str, encoding: str = "utf-8", newline: str = "\n") -> Source:
        path = folder / "table.csv"
        path.write_bytes("".join(line + newline for line in lines).encode(encoding))
        return open_source(DataConfig(source=path))

    return open_table


def test_table_is_sorted_by_class_and_keeps_its_order_within(table, folder):
    source = table("path,label", "cat/b.png,x", "ant/c.bmp,b", "cat/a.png,x")

    assert source.class_names == ("b", "x")
    assert listed(source) == [
        ("b", "ant/c.bmp"),
        ("x", "cat/b.png"),
        ("x", "cat/a.png"),
    ]
    assert source.root == folder
    assert source.files()[0] == folder / "table.csv"
    assert len(source.files()) == 4


def test_label_counts_and_not_the_folder(table):
    source = table("path,label", "ant/c.bmp,cat", "cat/a.png,ant")

    assert listed(source) == [("ant", "cat/a.png"), ("cat", "ant/c.bmp")]


def test_paths_may_be_absolute(table, folder):
    source = table("path,label", f"{folder / 'ant' / 'c.bmp'},x", "cat/a.png,y")

    assert [entry.path for entry in source.entries] == [
        folder / "ant" / "c.bmp",
        folder / "cat" / "a.png",
    ]


def test_relative_paths_start_at_the_table_and_not_at_the_working_directory(
    table, folder, monkeypatch
):
    table("path,label", "ant/c.bmp,x", "cat/a.png,y")
    monkeypatch.chdir(folder.parent)

    source = open_source(DataConfig(source=Path("images/table.csv")))

    assert all(entry.path.is_file() for entry in source.entries)
    assert listed(source) == [("x", "ant/c.bmp"), ("y", "cat/a.png")]


ROWS = ("ant/c.bmp,ant", "cat/a.png,cat", "cat/b.png,cat")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\n\n"])
def test_table_may_come_from_a_spreadsheet(table, encoding, newline):
    assert listed(table("path,label", *ROWS, encoding=encoding, newline=newline)) == PLAIN


def test_columns_may_stand_in_any_order_with_others_among_them(table):
    source = table("age,label,patient,path,", "3,ant,p1,ant/c.bmp,", ",cat,p2,cat/a.png,")

    assert listed(source) == PLAIN[:2]
    assert [entry.patient for entry in source.entries] == ["p1", "p2"]


def test_blanks_around_values_are_no_part_of_them(table):
    source = table("path,label,patient", " ant/c.bmp ,\tant, p1", "cat/a.png,cat ,p1")

    assert listed(source) == PLAIN[:2]
    assert {entry.patient for entry in source.entries} == {"p1"}


def test_names_may_be_quoted(table, folder):
    touch(folder / "a, b.png", folder / 'the "one".png', folder / "two\nlines.png")

    source = table(
        "path,label,patient",
        '"a, b.png","big, round","Doe, Jane"',
        '"the ""one"".png",small,p',
        '"two\nlines.png",small,p',
    )

    assert listed(source) == [
        ("big, round", "a, b.png"),
        ("small", 'the "one".png'),
        ("small", "two\nlines.png"),
    ]
    assert source.entries[0].patient == "Doe, Jane"


def test_suffix_of_a_table_may_be_in_capitals(folder):
    path = folder / "TABLE.CSV"
    path.write_text("path,label\nant/c.bmp,ant\ncat/a.png,cat\n")

    assert listed(open_source(DataConfig(source=path))) == PLAIN[:2]


def test_folder_that_is_named_as_a_table_is_a_folder(folder):
    assert of_folder(folder.rename(folder.with_suffix(".csv"))) == PLAIN


def test_unknown_place_in_a_table_is_told_by_its_number(table):
    with pytest.raises(DataError, match=r"table\.csv, image 2: expected an image at .*none\.png"):
        table("path,label", "ant/c.bmp,ant", "none.png,cat")


GREY = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3) * 10
COLOUR = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
LABELS = np.array([1, 0, 1, 0])


@pytest.fixture
def npz(tmp_path):
    """A function from arrays to the source of an .npz with them."""

    def open_npz(class_names=None, **arrays) -> Source:
        np.savez_compressed(tmp_path / "set.npz", **arrays)
        return open_source(DataConfig(source=tmp_path / "set.npz", class_names=class_names))

    return open_npz


def pixels_of(source: Source, scratch: Path) -> list[np.ndarray]:
    with source.opened(scratch) as read:
        return [np.asarray(p.image) for entry in source.entries for _, p in read(entry, None)]


def rows_of(source: Source) -> list[tuple[str, int | None]]:
    return [(entry.class_name, entry.row) for entry in source.entries]


@pytest.mark.parametrize("shape", [(4, 2, 3), (4, 2, 3, 1)])
def test_grey_of_an_npz_is_repeated_to_three_channels(npz, tmp_path, shape):
    source = npz(train_images=GREY.reshape(shape), train_labels=LABELS)

    assert rows_of(source) == [("0", 1), ("0", 3), ("1", 0), ("1", 2)]
    expected = np.repeat(GREY[[1, 3, 0, 2]][..., None], 3, axis=3)
    np.testing.assert_array_equal(pixels_of(source, tmp_path), expected)


def test_colour_of_an_npz_is_kept(npz, tmp_path):
    source = npz(train_images=COLOUR, train_labels=LABELS)

    np.testing.assert_array_equal(pixels_of(source, tmp_path), COLOUR[[1, 3, 0, 2]])


def test_npz_is_the_only_file_and_its_rows_are_the_parts(npz, tmp_path):
    source = npz(train_images=GREY, train_labels=LABELS)

    assert source.files() == [tmp_path / "set.npz"]
    assert source.root == tmp_path
    with source.opened(tmp_path) as read:
        [(_, picture)] = read(source.entries[1], None)
    assert (picture.frame, picture.kind, picture.patient) == (3, "npz L", None)


@pytest.mark.parametrize(
    "labels",
    [LABELS[:, None], LABELS.astype(np.uint8), LABELS.astype(np.float32), LABELS[:, None] * 1.0],
    ids=["(n, 1)", "uint8", "float", "float (n, 1)"],
)
def test_labels_may_be_a_column_or_whole_floats(npz, labels):
    source = npz(train_images=GREY, train_labels=labels)

    assert rows_of(source) == [("0", 1), ("0", 3), ("1", 0), ("1", 2)]


def test_parts_of_an_npz_follow_one_another(npz, tmp_path):
    source = npz(
        test_images=GREY[3:],
        test_labels=[1],
        train_images=GREY[:2],
        train_labels=[1, 0],
        val_images=GREY[2:3],
        val_labels=[0],
        extra=np.zeros(3),
    )

    assert rows_of(source) == [("0", 1), ("0", 2), ("1", 0), ("1", 3)]
    grey = [pixels[..., 0] for pixels in pixels_of(source, tmp_path)]
    np.testing.assert_array_equal(grey, GREY[[1, 2, 0, 3]])


def test_parts_may_differ_in_size_and_one_is_enough(npz, tmp_path):
    both = npz(
        train_images=GREY, train_labels=LABELS, test_images=COLOUR[:, :1], test_labels=LABELS
    )

    assert [pixels.shape for pixels in pixels_of(both, tmp_path)] == [
        (2, 3, 3),
        (2, 3, 3),
        (1, 3, 3),
        (1, 3, 3),
    ] * 2
    assert len(npz(val_images=GREY, val_labels=LABELS).entries) == 4


def test_classes_of_an_npz_may_be_named(npz):
    source = npz(["dog", "ant", "never"], train_images=GREY, train_labels=LABELS)

    assert source.class_names == ("ant", "dog")
    assert rows_of(source) == [("ant", 0), ("ant", 2), ("dog", 1), ("dog", 3)]


def test_more_than_nine_labels_are_padded_with_zeros(npz):
    names = npz(train_images=GREY, train_labels=[0, 2, 10, 9]).class_names

    assert names == ("00", "02", "09", "10")


def test_up_to_nine_labels_are_not_padded(npz):
    assert npz(train_images=GREY, train_labels=[0, 2, 9, 9]).class_names == ("0", "2", "9")


def test_hash_in_an_npz_follows_pixels_and_shape(npz, tmp_path):
    images = np.stack([GREY[0], GREY[0], GREY[1], GREY[2]])
    turned = images.reshape(4, 3, 2)
    source = npz(train_images=images, train_labels=LABELS, test_images=turned, test_labels=LABELS)

    with source.opened(tmp_path) as read:
        hashes = {entry.row: digest for entry in source.entries for digest, _ in read(entry, None)}

    assert hashes[0] == hashes[1]
    assert hashes[4] == hashes[5]
    assert len(set(hashes.values())) == 6


def test_what_was_unpacked_is_removed(npz, tmp_path):
    source = npz(train_images=GREY, train_labels=LABELS)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    with source.opened(scratch):
        assert len(list(scratch.iterdir())) == 1

    assert list(scratch.iterdir()) == []
