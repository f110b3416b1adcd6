"""The findings about a set, by hand on a few rows."""

import json

import numpy as np
import pytest

from kerasmed.data.duplicates import Duplicates
from kerasmed.data.examine import describe_duplicates, examine
from kerasmed.data.measurements import APPEARANCE, Measurements


def rows(classes: list[str], **columns) -> Measurements:
    """One row an image, all alike but for the columns given."""
    count = len(classes)
    names = np.array([f"{class_name}/{i}.png" for i, class_name in enumerate(classes)])
    appearance = np.zeros(count, APPEARANCE)
    appearance["width"], appearance["height"], appearance["kind"] = 30, 20, "PNG L"
    appearance["brightness"] = 100
    for name in APPEARANCE.names:
        if name in columns:
            appearance[name] = columns.pop(name)
    texts = {
        "hashes": [f"h{i}" for i in range(count)],
        "pixel_hashes": [f"p{i}" for i in range(count)],
        "patients": [""] * count,
        "official": [""] * count,
        "note_texts": [""],
        "unreadable": [],
        "masks": [],
    }
    return Measurements(
        names=names,
        classes=np.array(classes),
        bits=np.zeros((count, 32), dtype=np.uint8),
        appearance=appearance,
        frames=np.full(count, -1),
        quantiles=np.zeros((count, 0), np.float32),
        levels=np.zeros((count, 0), np.float32),
        notes=np.zeros(count, np.int32),
        **{name: np.array(columns.pop(name, text), np.str_) for name, text in texts.items()},
    )


def pairs(exact=(), near=(), altered=()) -> Duplicates:
    """Pairs of equal pixels, near ones, and near ones after a flip or turn."""
    close = [*exact, *near, *altered]
    return Duplicates(
        exact=np.array(list(exact), dtype=np.int64).reshape(-1, 2),
        near=np.array(close, dtype=np.int64).reshape(-1, 2),
        distances=np.zeros(len(close), dtype=np.uint16),
        altered=np.arange(len(close)) >= len(close) - len(altered),
    )


def findings_on(measurements: Measurements, duplicates: Duplicates | None = None) -> dict:
    """Findings, as JSON holds them."""
    findings = examine(measurements, duplicates or pairs())
    assert json.loads(json.dumps(findings, allow_nan=False)) == findings
    return findings


def shortcuts(measurements: Measurements, duplicates: Duplicates | None = None) -> dict[str, float]:
    return {
        row["clue"]: row["accuracy"] for row in findings_on(measurements, duplicates)["shortcuts"]
    }


def test_keys_are_the_agreed_ones():
    findings = findings_on(rows(["a", "b"]))

    assert list(findings) == [
        "images", "classes", "imbalance", "patients", "unreadable", "sizes", "kinds", "duplicates",
        "brightness_outliers", "shortcuts",
    ]  # fmt: skip
    assert list(findings["duplicates"]) == [
        "byte_identical", "pixel_identical", "near_duplicates", "only_mirrored_or_turned",
        "label_conflicts", "near_across_labels",
    ]  # fmt: skip


def test_counts_and_imbalance_by_hand():
    findings = findings_on(rows(["b"] * 7 + ["a"] * 3, unreadable=["a/x.png: broken"]))

    assert findings["images"] == 10
    assert findings["classes"] == {"a": 3, "b": 7}
    assert findings["imbalance"] == 2.33
    assert findings["unreadable"] == ["a/x.png: broken"]


def test_patients_are_counted_where_every_image_has_one():
    assert findings_on(rows(["a", "a", "b"], patients=["p", "q", "p"]))["patients"] == 2
    assert findings_on(rows(["a", "a", "b"], patients=["p", "", "p"]))["patients"] is None
    assert findings_on(rows(["a", "a", "b"]))["patients"] is None


def test_sizes_by_hand():
    measurements = rows(["a"] * 3 + ["b"], width=[30, 10, 30, 12], height=[20, 90, 20, 60])

    assert findings_on(measurements)["sizes"] == {
        "different": 3,
        "most_common": [30, 20],
        "fraction_of_most_common": 0.5,
        "smallest": [30, 20],
        "largest": [10, 90],
    }


def test_sizes_of_whole_slides_do_not_overflow():
    measurements = rows(["a", "b"], width=[70_000, 10], height=[70_000, 10])

    assert findings_on(measurements)["sizes"]["largest"] == [70_000, 70_000]


def test_kinds_by_class():
    measurements = rows(["a", "a", "b"], kind=["PNG L", "JPEG RGB", "JPEG RGB"])

    assert findings_on(measurements)["kinds"] == {"PNG L": {"a": 1}, "JPEG RGB": {"a": 1, "b": 1}}


def test_copies_are_counted_by_kind():
    measurements = rows(["a"] * 8, hashes=["x", "x", "x", "y", "z", "u", "v", "w"])
    duplicates = pairs(exact=[(0, 1), (0, 2), (0, 3)], near=[(0, 4)], altered=[(5, 6), (4, 6)])

    described = describe_duplicates(measurements, duplicates)

    # Three files of the same bytes: two repeat the first. 3 repeats its pixels, too. Near are
    # 0 to 4; only turned are 5 and 6, since 4 is near as it is.
    assert described["byte_identical"] == 2
    assert described["pixel_identical"] == 3
    assert described["near_duplicates"] == 5
    assert described["only_mirrored_or_turned"] == 2
    assert described["label_conflicts"] == described["near_across_labels"] == []


def test_no_copies():
    assert set(map(repr, describe_duplicates(rows(["a", "b"]), pairs()).values())) == {"0", "[]"}


def test_copies_under_two_labels_are_named():
    measurements = rows(["a", "a", "b", "b", "b"])
    duplicates = pairs(exact=[(0, 1), (0, 2)], near=[(2, 3)], altered=[(1, 4)])

    described = describe_duplicates(measurements, duplicates)

    assert described["label_conflicts"] == [["a/0.png", "b/2.png"]]
    assert described["near_across_labels"] == [["a/0.png", "b/2.png"], ["a/1.png", "b/4.png"]]


def test_brightness_outliers_by_hand():
    # Class a: median 102, absolute deviations 2, 4, 0, 6, 2, 22, 58 with median 4: one robust
    # deviation is 5.93: 22 is 3.7 of them, 58 is 9.8. Class b is even: its deviation counts as 1.
    brightness = [100, 98, 102, 96, 104, 124, 160, 50, 50, 50, 54, 56]
    measurements = rows(["a"] * 7 + ["b"] * 5, brightness=brightness)

    outliers = findings_on(measurements)["brightness_outliers"]

    assert outliers == [
        {"image": "a/6.png", "class": "a", "brightness": 160.0, "median_of_class": 102.0},
        {"image": "b/11.png", "class": "b", "brightness": 56.0, "median_of_class": 50.0},
    ]


def test_bright_class_is_no_outlier():
    measurements = rows(["a"] * 10 + ["b"] * 10, brightness=[20] * 10 + [220] * 10)

    assert findings_on(measurements)["brightness_outliers"] == []


CLASSES = ["a", "b"] * 40


def test_nothing_to_find_is_told_as_chance():
    rng = np.random.default_rng(0)
    measurements = rows(
        CLASSES,
        width=rng.integers(30, 60, 80),
        height=rng.integers(30, 60, 80),
        kind=rng.choice(["PNG L", "JPEG RGB"], 80),
        brightness=rng.uniform(50, 150, 80),
        border=rng.uniform(0, 30, (80, 3)),
    )

    findings = findings_on(measurements)

    assert [row["clue"] for row in findings["shortcuts"]] == [
        "image size", "aspect ratio", "format", "border colour", "brightness",
    ]  # fmt: skip
    for row in findings["shortcuts"]:
        assert row["most_frequent_class"] == 0.5
        assert abs(row["accuracy"] - 0.5) < 0.2


def test_even_set_is_told_at_the_most_frequent_class():
    accuracies = shortcuts(rows(["a"] * 45 + ["b"] * 15))

    assert set(accuracies.values()) == {0.75}


@pytest.mark.parametrize(
    ("clue", "others", "columns"),
    [
        ("image size", {"aspect ratio"}, {"width": [30, 33] * 40}),
        ("image size", set(), {"width": [30, 60] * 40, "height": [20, 40] * 40}),
        ("aspect ratio", {"image size"}, {"height": [20, 30] * 40}),
        ("format", set(), {"kind": ["PNG L", "JPEG L"] * 40}),
        ("border colour", set(), {"border": [[0, 0, 0], [0, 0, 9]] * 40}),
        ("brightness", set(), {"brightness": [100, 120] * 40}),
    ],
)
def test_clue_that_gives_the_class_away_is_told(clue, others, columns):
    accuracies = shortcuts(rows(CLASSES, **columns))

    for name, accuracy in accuracies.items():
        assert accuracy == (1.0 if name in {clue, *others} else 0.5)


def test_most_frequent_class_is_the_floor():
    measurements = rows(["a"] * 60 + ["b"] * 20, brightness=[100] * 60 + [120] * 20)

    row = findings_on(measurements)["shortcuts"][-1]

    assert row == {"clue": "brightness", "accuracy": 1.0, "most_frequent_class": 0.75}


def test_copies_do_not_help_to_tell_the_class():
    # Every image has a brightness of its own and nine copies: only training on a copy helps.
    rng = np.random.default_rng(0)
    classes = np.repeat(rng.permutation(["a", "b"] * 10), 10).tolist()
    brightness = np.repeat(rng.uniform(0, 255, 20), 10)
    copies = pairs(exact=[(10 * (i // 10), i) for i in range(200) if i % 10])

    with_copies = shortcuts(rows(classes, brightness=brightness), copies)["brightness"]
    without = shortcuts(rows(classes, brightness=brightness))["brightness"]

    assert without > 0.85
    assert with_copies < 0.65


@pytest.mark.parametrize("classes", [["a", "b"], ["a"] * 50 + ["b"] * 4, ["a", "b"] * 4])
def test_too_few_images_tell_no_shortcut(classes):
    assert findings_on(rows(classes))["shortcuts"] == []


def test_too_few_distinct_images_tell_no_shortcut():
    copies = pairs(exact=[(i % 4, i) for i in range(4, 40)])

    assert findings_on(rows(["a", "b"] * 20), copies)["shortcuts"] == []


@pytest.mark.parametrize("seed", range(25))
def test_any_groups_of_copies_are_survived_without_a_warning(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 40))
    linked = np.sort(rng.integers(0, count, (int(rng.integers(2 * count)), 2)), axis=1)
    linked = linked[linked[:, 0] != linked[:, 1]]
    classes = [f"c{i % (1 + seed % 3)}" for i in range(count)]

    findings_on(rows(classes, brightness=rng.normal(100, 30, count)), pairs(near=linked.tolist()))
