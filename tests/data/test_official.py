"""Sets that come divided into training and test images."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.data.config import DataConfig
from kerasmed.data.official import official_subset
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError

RNG = np.random.default_rng(0)


def photographs(folder: Path, *names: str, count: int = 1) -> None:
    for name in names:
        for i in range(count):
            path = folder / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(0, 256, (32, 32), dtype=np.uint8)).save(path)


CLASSES = ("NORMAL", "PNEUMONIA")
LAYOUTS = {
    "three subsets": ("train", "val", "test"),
    "other words": ("Training_Set", "Testing", "validation"),
    "in a folder around them": ("chest_xray/train", "chest_xray/test"),
    "some in a folder around them": ("train", "test", "chest_xray/train"),
    "numbered": ("train1", "train2", "test1"),
    "one subset next to the classes": ("", "test"),
    "folds": ("fold_1", "fold_2", "Fold3"),
}


@pytest.mark.parametrize("subsets", LAYOUTS.values(), ids=LAYOUTS)
def test_subsets_are_refused_by_their_names_and_the_setting(tmp_path, subsets):
    for subset in subsets:
        photographs(tmp_path / subset, *CLASSES)

    with pytest.raises(DataError) as caught:
        open_source(DataConfig(source=tmp_path))

    message = str(caught.value)
    assert all(subset in message for subset in subsets)
    assert "NORMAL, PNEUMONIA" in message
    assert "data.official_split: merge" in message


@pytest.mark.parametrize("subsets", LAYOUTS.values(), ids=LAYOUTS)
def test_parts_are_merged(tmp_path, subsets):
    for subset in subsets:
        photographs(tmp_path / subset, *CLASSES, count=2)

    source = open_source(DataConfig(source=tmp_path, official_split="merge"))

    assert source.class_names == CLASSES
    counts = Counter(entry.class_name for entry in source.entries)
    assert counts == dict.fromkeys(CLASSES, 2 * len(subsets))


def test_parts_know_which_they_are(tmp_path):
    for subset in ("train", "val", "chest/test"):
        photographs(tmp_path / subset, *CLASSES)

    source = open_source(DataConfig(source=tmp_path, official_split="keep"))

    assert {
        entry.path.relative_to(tmp_path).as_posix().removesuffix("/NORMAL/0.png"): entry.official
        for entry in source.entries
        if entry.class_name == "NORMAL"
    } == {"train": "train", "val": "validation", "chest/test": "test"}


def test_to_keep_test_images_there_must_be_some(tmp_path):
    for subset in ("train", "val"):
        photographs(tmp_path / subset, *CLASSES)

    with pytest.raises(DataError, match="expected a folder of test images"):
        open_source(DataConfig(source=tmp_path, official_split="keep"))


def test_what_lies_beside_the_parts_is_named(tmp_path):
    photographs(tmp_path / "train", *CLASSES)
    photographs(tmp_path / "test", *CLASSES)
    photographs(tmp_path, "extra")

    with pytest.raises(DataError, match="extra is next to the subsets"):
        open_source(DataConfig(source=tmp_path, official_split="merge"))


@pytest.mark.parametrize("name", ["__MACOSX", ".ipynb_checkpoints", "@eaDir", "Thumbs.db"])
def test_what_systems_leave_behind_is_no_class(tmp_path, name):
    photographs(tmp_path, *CLASSES)
    photographs(tmp_path / name, "NORMAL")
    photographs(tmp_path / "NORMAL", name)

    source = open_source(DataConfig(source=tmp_path))

    assert source.class_names == CLASSES
    assert len(source.entries) == 2


@pytest.mark.parametrize("names", [("control", "test"), ("stress test", "rest")])
def test_classes_may_be_called_like_a_part(tmp_path, names):
    for i, name in enumerate(names):
        photographs(tmp_path / name, f"patient{2 * i}", f"patient{2 * i + 1}")

    assert open_source(DataConfig(source=tmp_path)).class_names == tuple(sorted(names))


def test_a_single_folder_around_the_classes_is_named(tmp_path):
    photographs(tmp_path / "images", *CLASSES)

    with pytest.raises(DataError) as caught:
        open_source(DataConfig(source=tmp_path))

    assert f"Give {tmp_path / 'images'} for its folders ['NORMAL', 'PNEU" in str(caught.value)


@pytest.mark.parametrize("official_split", ["refuse", "merge", "keep"])
def test_classes_that_are_divided_themselves_stay_classes(tmp_path, official_split):
    for name in CLASSES:
        for subset in ("train", "test"):
            photographs(tmp_path / name / subset, "images")

    source = open_source(DataConfig(source=tmp_path, official_split=official_split))

    assert source.class_names == CLASSES
    assert Counter(entry.official for entry in source.entries) == {"train": 2, "test": 2}


@pytest.mark.parametrize("names", [("test_positive", "test_negative"), ("Pre test", "Post test")])
def test_classes_called_like_one_subset_may_have_the_same_folders_inside(tmp_path, names):
    for name in names:
        photographs(tmp_path / name, "left", "right")

    source = open_source(DataConfig(source=tmp_path))

    assert source.class_names == tuple(sorted(names))
    assert {entry.official for entry in source.entries} == {None}


def test_subsets_without_class_folders_are_refused(tmp_path):
    photographs(tmp_path, "train", "test", "sample")

    with pytest.raises(DataError, match="which are subsets of a set and not classes"):
        open_source(DataConfig(source=tmp_path))


@pytest.mark.parametrize(
    ("name", "subset"),
    [
        *(
            ("train", "train"),
            ("Training Set", "train"),
            ("x_train", "train"),
            ("trainset", "train"),
        ),
        *(("stage_2_train_images", "train"), ("TEST", "test"), ("test-data", "test")),
        *(("val", "validation"), ("dev", "validation"), ("Validation", "validation")),
        *(("contest", None), ("trainer", None), ("valve", None), ("testis", None), ("eve", None)),
    ],
)
def test_names_of_subsets(name, subset):
    assert official_subset(name) == subset


# Splits


def split(source: Path, run: Path, *assignments: str) -> tuple[dict, list[dict]]:
    """The record of `kerasmed data split`, and its files."""
    config = run.with_suffix(".yaml")
    values = {
        "name": "x",
        "data": {"source": "x", "image_size": 32},
        "split": {"train": 0.3, "near_duplicate_bits": None},
    }
    config.write_text(yaml.safe_dump(values))
    sets = [word for assignment in assignments for word in ("--set", assignment)]
    arguments = ["data", "split", str(config), "--data", str(source), "--out", str(run), *sets]
    assert main(arguments) == 0
    record = json.loads((run / "run.json").read_text())["stages"]["data"]["result"]
    return record, json.loads((run / "split.json").read_text())["files"]


def test_kept_test_images_are_the_role_test(tmp_path, capsys):
    photographs(tmp_path / "set" / "train", *CLASSES, count=20)
    photographs(tmp_path / "set" / "test", *CLASSES, count=7)

    record, files = split(tmp_path / "set", tmp_path / "run", "data.official_split=keep")

    assert {f["path"] for f in files if f["role"] == "test"} == {
        f["path"] for f in files if "/test/" in f["path"]
    }
    assert record["roles"]["test"] == dict.fromkeys(CLASSES, 7)
    # 0.3 of all 27, of which a tenth is for validation.
    assert record["roles"]["train"] == dict.fromkeys(CLASSES, 7)
    assert "its test images are the role `test`" in capsys.readouterr().out


def test_copies_of_kept_test_images_are_tested_on_too(tmp_path, capsys):
    photographs(tmp_path / "set" / "train", *CLASSES, count=20)
    photographs(tmp_path / "set" / "test", *CLASSES, count=7)
    copy = tmp_path / "set" / "train" / "NORMAL" / "3.png"
    copy.write_bytes((tmp_path / "set" / "test" / "NORMAL" / "0.png").read_bytes())

    record, files = split(tmp_path / "set", tmp_path / "run", "data.official_split=keep")

    assert [f["role"] for f in files if f["path"] == str(copy)] == ["test"]
    assert record["remarks"][-1].startswith("1 image outside the official test set: copies")
    assert record["remarks"][-1] in capsys.readouterr().out


def archive(path: Path) -> Path:
    def images(count: int) -> np.ndarray:
        return RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)

    labels = np.arange(60)[:, None] % 2
    np.savez(
        path,
        train_images=images(40), train_labels=labels[:40],
        val_images=images(6), val_labels=labels[:6],
        test_images=images(14), test_labels=labels[:14],
    )  # fmt: skip
    return path


def test_merged_parts_of_an_archive_are_reported(tmp_path, capsys):
    record, files = split(archive(tmp_path / "set.npz"), tmp_path / "run")

    assert len(files) == 60
    [line] = record["remarks"]
    assert line.startswith(
        "The set has its own split (train 40, validation 6, test 14): all images"
    )
    assert "set data.official_split: keep to keep its own test images" in capsys.readouterr().out


def test_test_images_of_an_archive_are_kept(tmp_path):
    record, files = split(
        archive(tmp_path / "set.npz"), tmp_path / "run", "data.official_split=keep"
    )

    assert record["roles"]["test"] == {"0": 7, "1": 7}
    # Rows of train, validation and test stand in this order.
    assert {f["frame"] for f in files if f["role"] == "test"} == set(range(46, 60))


def test_test_images_of_a_table_are_kept(tmp_path):
    photographs(tmp_path, "x", "y", count=20)
    rows = [
        f"{name}/{i}.png,{name},{'test' if i < 6 else 'train'}" for name in "xy" for i in range(20)
    ]
    (tmp_path / "set.csv").write_text("path,label,split\n" + "\n".join(rows))

    record, _ = split(tmp_path / "set.csv", tmp_path / "run", "data.official_split=keep")

    assert record["roles"]["test"] == {"x": 6, "y": 6}


def test_other_columns_called_split_are_none(tmp_path):
    photographs(tmp_path, "x", "y", count=12)
    rows = [f"{name}/{i}.png,{name},{i % 5 or ''}" for name in "xy" for i in range(12)]
    (tmp_path / "set.csv").write_text("path,label,split\n" + "\n".join(rows))

    record, _ = split(tmp_path / "set.csv", tmp_path / "run")

    assert record["remarks"] == []
    config = tmp_path / "run.yaml"
    arguments = ["data", "split", str(config), "--data", str(tmp_path / "set.csv")]
    extra = ["--out", str(tmp_path / "other"), "--set", "data.official_split=keep"]
    assert main([*arguments, *extra]) == 2
