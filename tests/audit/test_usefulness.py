"""Synthetic against real images as a training set, by CNNs that are right about given images."""

import numpy as np
import pytest

from kerasmed.audit.comparison import TrainedOn
from kerasmed.audit.usefulness import usefulness

LABELS = np.tile([0, 1], 50)
GROUPS = np.arange(100) // 4
REAL, SYNTHETIC = TrainedOn("A", "real"), TrainedOn("A", "synthetic")


def right(chance: float, seed: int, count: int = 100) -> np.ndarray:
    return (np.random.default_rng(seed).random(count) < chance).astype(float)


def judged(correct, labels=LABELS, groups=GROUPS) -> dict:
    return usefulness(correct, labels, ["a", "b"], groups)


def test_ratio_and_sensitivities_by_hand():
    real, synthetic = np.ones(100), np.ones(100)
    real[:20] = 0  # 10 of each class
    synthetic[:40:2] = 0  # 20 of class a

    result = judged({REAL: [real], SYNTHETIC: [synthetic, synthetic]})

    (network,) = result["networks"]
    assert (result["groups"], result["guessing"], network["seeds"]) == (25, 0.5, 1)
    assert network["real"]["accuracy"]["value"] == pytest.approx(0.8)
    assert network["synthetic"]["sensitivity"] == pytest.approx({"a": 0.6, "b": 1.0})
    assert network["synthetic"]["balanced_accuracy"] == pytest.approx(0.8)
    assert result["ratio"]["value"] == network["ratio"]["value"] == pytest.approx(1.0)


def test_same_images_are_compared():
    """Both wrong about the same images, the ratio is known better."""
    correct = right(0.7, 0)

    together = judged({REAL: [correct], SYNTHETIC: [correct]})["ratio"]["interval"]
    apart = judged({REAL: [correct], SYNTHETIC: [right(0.7, 1)]})["ratio"]["interval"]

    assert together[1] - together[0] < 0.7 * (apart[1] - apart[0])


def test_perfect_results_on_few_images_prove_little():
    groups = np.arange(12)

    result = judged({REAL: [np.ones(12)], SYNTHETIC: [np.ones(12)]}, LABELS[:12], groups)

    low, high = result["ratio"]["interval"]
    assert low < 0.85 < 1 < high


def test_seeds_widen_the_interval_by_as_much_as_they_differ():
    alike = [right(0.8, 0)] * 3
    apart = [right(chance, 0) for chance in (0.7, 0.8, 0.9)]

    narrow, wide = (
        judged({REAL: seeds, SYNTHETIC: seeds})["networks"][0]["real"]["accuracy"]["interval"]
        for seeds in (alike, apart)
    )

    assert wide[1] - wide[0] > 1.3 * (narrow[1] - narrow[0])


def test_interval_holds_the_truth_over_test_sets_and_seeds():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        ease = 0.1 * rng.normal(size=25)[GROUPS]
        correct = {
            key: [rng.random(100) < accuracy + 0.03 * rng.normal() + ease for _ in range(3)]
            for key, accuracy in ((REAL, 0.8), (SYNTHETIC, 0.72))
        }
        low, high = judged(correct)["networks"][0]["ratio"]["interval"]
        covered += low < 0.9 < high
    assert covered >= 180


def test_network_that_guesses_is_left_out_of_the_ratio():
    guesser = TrainedOn("B", "real"), TrainedOn("B", "synthetic")
    correct = {
        REAL: [right(0.9, 0)], SYNTHETIC: [right(0.9, 0)],
        guesser[0]: [right(0.5, 1)], guesser[1]: [right(0.3, 2)],
    }  # fmt: skip

    result = judged(correct)

    assert result["ratio"]["value"] == pytest.approx(1)
    assert [n["beats_guessing"]["real"] for n in result["networks"]] == [True, False]
    assert "ratio" not in judged({key: correct[key] for key in guesser})


def test_other_regimes_and_sets_do_not_count():
    correct = {
        REAL: [right(0.9, 0)],
        TrainedOn("A", "both"): [right(0.9, 1)],
        TrainedOn("A", "synthetic", "x3"): [right(0.9, 2)],
    }

    assert judged(correct)["networks"] == []
