"""Figures of a classifier against plain loops and hand-worked cases."""

import json

import numpy as np
import pytest

from kerasmed.errors import InputError
from kerasmed.metrics.classification import (
    classification_curves,
    classification_metrics,
    expected_calibration_error,
    over_seeds,
    reliability,
)

NAMES = ["benign", "early", "pre"]


@pytest.fixture
def guesses():
    """Three unbalanced classes, 200 images, about two in three right."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 200, p=[0.6, 0.3, 0.1])
    logits = rng.standard_normal((200, 3)) + 1.2 * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels.astype(np.int32)


def by_loops(probabilities, labels, i):
    """Precision, recall, F1 and area under the ROC curve of class i, counted image by image."""
    predicted = probabilities.argmax(axis=1)
    pairs = [(label == i, guess == i) for label, guess in zip(labels, predicted, strict=True)]
    hits, misses, false_alarms = (pairs.count(p) for p in ((1, 1), (1, 0), (0, 1)))
    scores = probabilities[:, i]
    ranked = [(a > b) + (a == b) / 2 for a in scores[labels == i] for b in scores[labels != i]]
    precision, recall = hits / (hits + false_alarms), hits / (hits + misses)
    return precision, recall, 2 * hits / (2 * hits + misses + false_alarms), np.mean(ranked)


def test_rows_of_the_confusion_are_true_classes():
    labels, predicted = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 2])

    confusion = classification_metrics(np.eye(3)[predicted], labels, NAMES)["confusion"]

    assert confusion == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_figures_by_hand():
    # True a a a b, predicted a a b b.
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])

    figures = classification_metrics(probabilities, np.array([0, 0, 0, 1]), ["a", "b"])

    assert figures["n_test"] == 4
    assert figures["accuracy"] == 3 / 4
    assert figures["balanced_accuracy"] == figures["macro_recall"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["macro_precision"] == pytest.approx((1 + 1 / 2) / 2)
    assert figures["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert figures["auroc"] == pytest.approx(2 / 3)
    assert figures["confusion"] == [[2, 1], [0, 1]]
    assert figures["per_class"]["b"] == pytest.approx(
        {"n": 1, "precision": 1 / 2, "recall": 1.0, "f1": 2 / 3}
    )


def test_figures_agree_with_plain_loops(guesses):
    probabilities, labels = guesses

    figures = classification_metrics(probabilities, labels, NAMES)

    rows = [by_loops(probabilities, labels, i) for i in range(3)]
    for name, (precision, recall, f1, _) in zip(NAMES, rows, strict=True):
        expected = {"precision": precision, "recall": recall, "f1": f1}
        row = figures["per_class"][name]
        assert row == pytest.approx({"n": (labels == NAMES.index(name)).sum(), **expected})
    names = ("macro_precision", "macro_recall", "macro_f1", "auroc")
    assert [figures[name] for name in names] == pytest.approx(np.mean(rows, axis=0))
    assert figures["balanced_accuracy"] == figures["macro_recall"]
    assert figures["accuracy"] == pytest.approx((probabilities.argmax(axis=1) == labels).mean())


def test_perfect_guesses():
    figures = classification_metrics(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 2]), NAMES)

    for name in ("accuracy", "balanced_accuracy", "macro_precision", "macro_f1", "auroc"):
        assert figures[name] == 1.0
    assert figures["ece"] == 0.0
    assert figures["accuracy_ci95"] == pytest.approx([0.025 ** (1 / 4), 1.0])


def test_precision_of_a_class_never_predicted_is_0():
    figures = classification_metrics(np.array([[0.6, 0.4]] * 4), np.array([0, 0, 1, 1]), ["a", "b"])

    assert figures["per_class"]["b"] == {"n": 2, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert figures["auroc"] == 0.5


def test_order_of_images_changes_nothing_but_the_resampling(guesses):
    probabilities, labels = guesses
    order = np.random.default_rng(1).permutation(len(labels))

    first = classification_metrics(probabilities, labels, NAMES)
    second = classification_metrics(probabilities[order], labels[order], NAMES)

    for name in ("accuracy", "macro_f1", "auroc", "ece"):
        assert second[name] == pytest.approx(first[name], rel=1e-5)
    assert second["confusion"] == first["confusion"]


def test_figures_are_plain_values(guesses):
    figures = classification_metrics(*guesses, NAMES)

    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_calibration_error_by_hand():
    # Bins are 1/15 wide. In [0.6, 0.667): confidence 0.62 and 0.64, one of two right, gap 0.13.
    # In [0.667, 0.733): 0.68, right, gap 0.32. In [0.8, 0.867): 0.85, right, gap 0.15.
    # In [0.933, 1]: 1.0, wrong, gap 1.
    confidence = np.array([0.62, 0.64, 0.68, 0.85, 1.0])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)

    error = expected_calibration_error(probabilities, np.array([0, 1, 0, 0, 1]))

    assert error == pytest.approx((2 * 0.13 + 0.32 + 0.15 + 1.0) / 5)


def test_calibration_error_cancels_within_a_bin():
    # 4 of 5 right at 0.8 each: overconfident and underconfident images of a bin even out.
    probabilities = np.array([[0.8, 0.2]] * 5)

    assert expected_calibration_error(probabilities, np.array([0, 0, 0, 0, 1])) == pytest.approx(0)


def test_interval_is_wider_where_images_belong_together(guesses):
    alone = classification_metrics(*guesses, NAMES)
    probabilities, labels = (np.repeat(values, 4, axis=0) for values in guesses)
    together = classification_metrics(
        probabilities, labels, NAMES, groups=np.repeat(np.arange(len(guesses[1])), 4)
    )
    torn = classification_metrics(probabilities, labels, NAMES)

    assert together["accuracy_ci95"] == alone["accuracy_ci95"]
    width = {
        name: np.ptp(figures["accuracy_ci95"]) for name, figures in (("a", alone), ("t", torn))
    }
    assert width["t"] == pytest.approx(width["a"] / 2, rel=0.15)


def test_interval_repeats_with_its_seed(guesses):
    first, second, other = (
        classification_metrics(*guesses, NAMES, seed=seed)["accuracy_ci95"] for seed in (0, 0, 1)
    )

    assert first == second
    assert first != other


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (4,)])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(InputError) as caught:
        classification_metrics(np.ones(shape), np.array([0, 1, 2, 0]), NAMES)

    assert f"expected shape (4, 3), received {shape}" in str(caught.value)


def test_means_are_over_the_classes_that_the_set_has(guesses):
    probabilities, labels = guesses
    at = np.flatnonzero(labels != 1)
    probabilities, labels = probabilities[at], labels[at]

    figures = classification_metrics(probabilities, labels, NAMES)

    rows = [by_loops(probabilities, labels, i) for i in (0, 2)]
    names = ("macro_precision", "macro_recall", "macro_f1", "auroc")
    assert [figures[name] for name in names] == pytest.approx(np.mean(rows, axis=0))
    assert figures["accuracy"] == pytest.approx((probabilities.argmax(axis=1) == labels).mean())
    counts = [(labels == 0).sum(), 0, (labels == 2).sum()]
    assert [row["n"] for row in figures["per_class"].values()] == counts
    assert figures["per_class"]["early"] == {
        "n": 0, "precision": None, "recall": None, "f1": None,
        "not_computed": "no test image of 'early'",
    }  # fmt: skip
    assert figures["per_class"]["pre"]["recall"] == pytest.approx(rows[1][1])
    assert "'early'" in figures["not_computed"]
    assert np.shape(figures["confusion"]) == (3, 3)


def test_one_class_alone_gives_its_sensitivity():
    # Five of eight images of the class are recognised.
    probabilities = np.eye(3)[[1, 1, 1, 1, 1, 0, 2, 2]]

    figures = classification_metrics(probabilities, np.ones(8, np.int64), NAMES)

    assert figures["accuracy"] == figures["per_class"]["early"]["recall"] == 5 / 8
    low, high = figures["accuracy_ci95"]
    assert 0 < low < 5 / 8 < high <= 1
    for name in (
        "balanced_accuracy",
        "macro_precision",
        "macro_recall",
        "macro_f1",
        "auroc",
        "ece",
    ):
        assert figures[name] is None
    assert figures["per_class"]["early"]["precision"] is None
    assert figures["per_class"]["pre"]["recall"] is None
    assert "all but the sensitivity of 'early'" in figures["not_computed"]
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_nothing_is_missing_where_every_class_is_there(guesses):
    figures = classification_metrics(*guesses, NAMES)

    assert "not_computed" not in figures
    assert not any("not_computed" in row for row in figures["per_class"].values())


def test_no_image_is_refused():
    with pytest.raises(InputError, match="at least one, received none; add test images"):
        classification_metrics(np.ones((0, 3)), np.array([], np.int64), NAMES)


def test_curves_of_a_class_without_images_are_not_computed():
    probabilities, labels = np.eye(3)[[0, 1, 1]], np.array([0, 0, 1])

    roc = classification_curves(probabilities, labels, NAMES)["roc"]

    assert roc["benign"]["true_positives"][-1] == 1.0
    assert roc["pre"] == {"not_computed": "the images are all of 'pre', or none is"}
    alone = classification_curves(probabilities, np.zeros(3, np.int64), NAMES)["roc"]
    assert all("not_computed" in curve for curve in alone.values())


def _row(accuracy, seed, trained_on="real", precision="fp32", variant=None):
    others = dict.fromkeys(("balanced_accuracy", "macro_f1", "auroc", "ece"), 0.5)
    return {
        "backbone": "VGG16", "trained_on": trained_on, "variant": variant, "precision": precision,
        "seed": seed, "accuracy": accuracy, **others,
    }  # fmt: skip


def test_seeds_give_mean_and_spread_of_each_network_training_set_and_precision():
    rows = [_row(0.7, 0), _row(0.9, 1), _row(0.4, 0, "both"), _row(0.6, 0, precision="int8")]
    summaries = over_seeds(rows)
    assert [(row["trained_on"], row["precision"], row["seeds"]) for row in summaries] == [
        ("real", "fp32", 2), ("both", "fp32", 1), ("real", "int8", 1),
    ]  # fmt: skip
    assert summaries[0]["mean"]["accuracy"] == pytest.approx(0.8)
    assert summaries[0]["standard_deviation"]["accuracy"] == pytest.approx(0.02**0.5)
    assert summaries[1]["standard_deviation"]["accuracy"] is None


def test_figure_that_was_not_computed_has_no_mean():
    rows = [{**_row(0.7, 0), "auroc": None}, {**_row(0.9, 1), "auroc": None}]

    (summary,) = over_seeds(rows)

    assert summary["mean"]["auroc"] is summary["standard_deviation"]["auroc"] is None
    assert summary["mean"]["accuracy"] == pytest.approx(0.8)


def test_sets_of_a_sweep_are_not_averaged_with_the_main_one():
    rows = [_row(0.7, 0, "both"), _row(0.9, 0, "both", variant="x3")]

    assert [(row["variant"], row["seeds"]) for row in over_seeds(rows)] == [(None, 1), ("x3", 1)]


def test_reliability_by_hand():
    probabilities = np.array([[0.7, 0.3], [0.72, 0.28], [0.0, 1.0], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])

    bins = reliability(probabilities, labels)

    assert [row["fraction"] for row in bins] == [0.25, 0.5, 0.25]
    assert [row["accuracy"] for row in bins] == [1.0, 0.5, 1.0]
    assert [row["confidence"] for row in bins] == pytest.approx([0.6, 0.71, 1.0])


def test_curves_enclose_the_area_of_the_metrics(guesses):
    probabilities, labels = guesses

    roc = classification_curves(probabilities, labels, NAMES)["roc"]

    areas = [np.trapezoid(c["true_positives"], c["false_positives"]) for c in roc.values()]
    expected = classification_metrics(probabilities, labels, NAMES, 100)["auroc"]
    assert np.mean(areas) == pytest.approx(expected, abs=1e-4)
    assert list(roc) == NAMES
