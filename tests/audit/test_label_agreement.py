"""Whether synthetic images show what their labels say."""

import numpy as np
import pytest

from kerasmed.audit.label_agreement import label_agreement
from kerasmed.errors import InputError

CLASSES = ["a", "b", "c"]
SETS = ("reserve", "train", "synthetic")


def made(seed: int, count: int = 300) -> tuple[dict, dict]:
    """Features of three classes that overlap a little."""
    rng = np.random.default_rng(seed)
    labels = {name: np.arange(count) % 3 for name in SETS}
    features = {
        name: rng.normal(np.eye(3)[of_set], 0.45, (count, 3)) for name, of_set in labels.items()
    }
    return features, labels


def test_training_images_judged_as_synthetic_score_1():
    features, labels = made(0)
    features["synthetic"] = features["train"]
    result = label_agreement(features, labels, CLASSES)
    assert result["ratio"]["value"] == 1
    assert result["synthetic"] == result["train"]


def test_interval_holds_what_fresh_real_images_reach():
    ratios = [label_agreement(*made(seed), CLASSES)["ratio"] for seed in range(60)]
    is_inside = [r["interval"][0] <= 1 <= r["interval"][1] for r in ratios]
    assert np.mean(is_inside) >= 0.9
    assert np.mean([r["value"] for r in ratios]) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_wrong_labels_lower_it_by_their_fraction(fraction):
    features, labels = made(1, 1500)
    rng = np.random.default_rng(2)
    is_wrong = rng.random(1500) < fraction
    labels["synthetic"] = np.where(is_wrong, (labels["synthetic"] + 1) % 3, labels["synthetic"])
    ratio = label_agreement(features, labels, CLASSES)["ratio"]
    assert ratio["value"] == pytest.approx(1 - fraction, abs=0.07)
    assert ratio["interval"][1] < 1


def test_each_class_counts_alike():
    """Wrong labels of a rare class weigh as much as those of a frequent one."""
    features, labels = made(3, 900)
    frequent = np.concatenate([np.flatnonzero(labels["synthetic"] < 2), np.arange(2, 90, 3)])
    features["synthetic"] = features["synthetic"][frequent]
    labels["synthetic"] = labels["synthetic"][frequent]
    features["synthetic"][labels["synthetic"] == 2] = [1, 0, 0]  # looks like the first class
    result = label_agreement(features, labels, CLASSES)
    assert result["ratio"]["value"] == pytest.approx(2 / 3, abs=0.05)


def test_images_of_one_patient_widen_the_interval():
    features, labels = made(4, 600)
    patients = np.arange(600) // 30
    alone, grouped = (
        label_agreement(features, labels, CLASSES, groups)["ratio"]["interval"]
        for groups in (None, {"reserve": np.arange(600), "train": patients})
    )
    assert alone != grouped


def test_one_class_or_a_small_one_is_refused():
    features, labels = made(5)
    with pytest.raises(InputError, match="two classes or more"):
        label_agreement(features, dict.fromkeys(SETS, np.zeros(300, int)), ["a"])
    labels["synthetic"] = np.where(np.arange(300) < 10, 0, 1)
    with pytest.raises(InputError, match="synthetic images of a, received 10"):
        label_agreement(features, labels, CLASSES)
