"""Comparisons on the same images against McNemar's exact test, hand-worked cases and simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest

from kerasmed.audit.comparison import TrainedOn, compare_regimes
from kerasmed.errors import InputError
from kerasmed.metrics import statistics
from kerasmed.metrics.statistics import grouped_interval, holm, permutation_p_value


def test_interval_holds_the_mean_and_narrows_with_more_values():
    few, many = np.tile([1.0, 1.0, 0.0], 10), np.tile([1.0, 1.0, 0.0], 1000)

    wide, narrow = (
        grouped_interval(values, np.arange(len(values)), 1000, 0) for values in (few, many)
    )

    for low, high in (wide, narrow):
        assert low < 2 / 3 < high
    # The normal approximation: 2 * 1.96 * sqrt(p (1 - p) / n).
    assert wide[1] - wide[0] == pytest.approx(0.337, abs=0.05)
    assert narrow[1] - narrow[0] == pytest.approx(0.0337, abs=0.005)


@pytest.mark.parametrize(("groups", "least"), [(5, 86), (8, 91), (30, 91)])
def test_interval_draws_groups_whole_and_covers_where_they_are_few(groups, least):
    of_image, covered = np.repeat(np.arange(groups), 20), 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        correct = rng.random((groups, 20)) < rng.beta(8, 2, (groups, 1))  # 0.8 in the mean
        low, high = grouped_interval(correct.ravel().astype(float), of_image, 500, seed)
        covered += low < 0.8 < high
    assert covered >= least  # of 95; plain percentiles cover 82, 86 and 91


@pytest.mark.parametrize("groups", [1, 3, 30])
def test_interval_of_groups_without_an_error_is_clopper_and_pearsons(groups):
    of_image = np.repeat(np.arange(groups), 10)

    low, high = grouped_interval(np.ones(len(of_image)), of_image, 100, 0)

    expected = binomtest(groups, groups).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_interval_of_few_groups_says_how_little_is_known():
    values, of_image = np.array([1.0, 0, 0, 0, 1, 1, 1, 0]), np.repeat([0, 1], 4)

    low, high = grouped_interval(values, of_image, 100, 0)

    missed = 1 - 0.025**0.5
    assert (low, high) == pytest.approx((0.25 * (1 - missed), 0.75 + 0.25 * missed))


def test_interval_is_the_same_drawn_in_batches(monkeypatch):
    values, groups = np.random.default_rng(0).random(50), np.arange(50)
    whole = grouped_interval(values, groups, 100, 0)

    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 400)

    assert grouped_interval(values, groups, 100, 0) == whole


@pytest.mark.parametrize(("better", "worse"), [(9, 1), (14, 6), (5, 5), (30, 12)])
def test_p_value_of_single_images_is_mcnemars(better, worse):
    difference = np.concatenate([np.ones(better), -np.ones(worse), np.zeros(50)])

    p_value = permutation_p_value(difference, np.arange(len(difference)), 0)

    expected = binomtest(better, better + worse).pvalue
    is_exact = better + worse <= 13
    assert p_value == pytest.approx(expected, abs=1e-12 if is_exact else 0.012)


def test_p_value_of_few_groups_by_hand():
    # Of the eight totals ±1 ±2 ±3, those of +1 +2 +3, -1 -2 -3, -1 +2 +3 and +1 -2 -3 are 4 or more
    # from 0.
    assert permutation_p_value(np.array([-1.0, 2.0, 3.0]), np.arange(3), 0) == 4 / 8


def test_p_value_without_a_difference_is_one_despite_rounding():
    # The accuracy over three seeds is a multiple of 1/3; this total is 0, but not in floats.
    thirds = np.array([1, -2, -2, 1, 1, 1]) / 3
    assert thirds.sum() != 0
    assert permutation_p_value(thirds, np.arange(6), 0) == 1.0


def test_p_value_is_the_same_drawn_in_batches(monkeypatch):
    difference, groups = np.random.default_rng(0).normal(size=50), np.arange(50)
    whole = permutation_p_value(difference, groups, 0)

    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 10_000)

    assert permutation_p_value(difference, groups, 0) == whole


def test_p_value_of_groups_does_not_count_their_images_apart():
    difference = np.ones(40)

    alone = permutation_p_value(difference, np.arange(40), 0)
    in_four = permutation_p_value(difference, np.repeat(np.arange(4), 10), 0)

    assert alone < 0.001
    assert in_four == 2 / 16  # all four signs equal


def test_p_value_without_a_difference_is_one():
    assert permutation_p_value(np.zeros(9), np.arange(9), 0) == 1.0
    assert permutation_p_value(np.array([1.0, -1.0]), np.arange(2), 0) == 1.0


def test_p_values_of_equal_networks_are_uniform():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 3)
    p_values = [
        permutation_p_value(rng.normal(size=30)[groups] + 0.1 * rng.normal(size=90), groups, i)
        for i in range(200)
    ]

    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.07)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04, and never falling.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


LABELS = np.repeat([0, 1], 100)


def compare(correct, groups=None):
    groups = np.arange(200) if groups is None else groups
    return compare_regimes(correct, LABELS, ["a", "b"], groups, 0)


@pytest.fixture
def correct() -> dict[TrainedOn, list[np.ndarray]]:
    """Two backbones; of the first, synthetic is clearly worse and both hardly differs."""
    real = np.ones(200)
    real[:10] = 0
    synthetic, both = real.copy(), real.copy()
    synthetic[50:90] = 0
    both[:1] = 1
    return {
        TrainedOn("A", "real"): [real],
        TrainedOn("A", "synthetic"): [synthetic],
        TrainedOn("A", "both"): [both],
        TrainedOn("B", "real"): [real],
        TrainedOn("B", "both"): [both],
    }


def test_every_two_regimes_of_a_backbone_are_compared(correct):
    comparisons = compare(correct)

    assert [(row["backbone"], *row["regimes"]) for row in comparisons] == [
        ("A", "real", "synthetic"),
        ("A", "real", "both"),
        ("A", "synthetic", "both"),
        ("B", "real", "both"),
    ]
    first, second = comparisons[:2]
    accuracy = first["accuracy"]
    assert accuracy["of_each"] == pytest.approx([0.95, 0.75])
    assert accuracy["difference"] == pytest.approx(-0.2)
    assert accuracy["interval"][0] < -0.2 < accuracy["interval"][1] < 0
    assert [row["conclusion"] for row in comparisons] == [
        "lower", "no difference shown", "higher", "no difference shown",
    ]  # fmt: skip
    assert second["p_value"] == 1.0


def test_classes_are_compared_and_count_alike_in_the_balanced_accuracy(correct):
    """All errors are in the first class, a quarter of the images."""
    labels = np.repeat([0, 1], [100, 300])
    longer = {key: [np.append(of[0], np.ones(200))] for key, of in correct.items()}
    row = compare_regimes(longer, labels, ["a", "b"], np.arange(400), 0)[0]
    assert row["sensitivity"]["a"]["of_each"] == pytest.approx([0.9, 0.5])
    assert row["sensitivity"]["b"]["difference"] == 0
    low, high = row["sensitivity"]["b"]["interval"]
    assert low < 0 < high  # the next image may differ
    assert row["balanced_accuracy"]["difference"] == pytest.approx(-0.2)
    assert row["accuracy"]["difference"] == pytest.approx(-0.1)


def test_seeds_that_disagree_widen_the_interval_and_raise_the_p_value():
    rng = np.random.default_rng(0)
    real = rng.random(200) < 0.8
    better = real | (rng.random(200) < 0.5)
    worse = real & (rng.random(200) < 0.95)
    regimes = TrainedOn("A", "real"), TrainedOn("A", "both")
    agreeing, disagreeing = (
        compare({regimes[0]: [real * 1.0] * 3, regimes[1]: [x * 1.0 for x in seeds]})[0]
        for seeds in ([better] * 3, [better, better, worse])
    )
    widths = [np.ptp(row["accuracy"]["interval"]) for row in (agreeing, disagreeing)]
    assert widths[1] > 2 * widths[0]
    assert agreeing["conclusion"] == "higher"
    assert disagreeing["conclusion"] == "no difference shown"


@pytest.mark.parametrize("seeds", [1, 3])
def test_interval_covers_the_difference_of_the_recipes(seeds):
    """Groups of images differ in difficulty, and trainings in skill; in truth there is none."""
    groups, covered, found = np.repeat(np.arange(100), 2), 0, 0
    rng = np.random.default_rng(1)
    for _ in range(200):
        difficulty = np.repeat(rng.beta(8, 2, 100), 2)
        correct = {}
        for regime in ("real", "both"):
            skill = rng.normal(0, 0.03 if seeds > 1 else 0, seeds)
            correct[TrainedOn("A", regime)] = [
                (rng.random(200) < np.clip(difficulty + s, 0, 1)) * 1.0 for s in skill
            ]
        (row,) = compare(correct, groups)
        low, high = row["accuracy"]["interval"]
        covered += low <= 0 <= high
        found += row["p_value"] < 0.05
    assert covered >= 184
    assert found <= 16


def test_class_of_few_groups_has_the_interval_of_few_groups():
    """Other groups say nothing of a class that they have no image of."""
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], [10, 390])
    groups = np.arange(400) // 2
    correct = {
        TrainedOn("A", regime): [(rng.random(400) < 0.7) * 1.0] for regime in ("real", "both")
    }
    (row,) = compare_regimes(correct, labels, ["a", "b"], groups, 0)
    few = {key: [of[0][:10]] for key, of in correct.items()}
    (alone,) = compare_regimes(few, labels[:10], ["a", "b"], groups[:10], 0)
    expected = alone["sensitivity"]["a"]["interval"]
    np.testing.assert_allclose(row["sensitivity"]["a"]["interval"], expected, atol=1e-9)


def test_sets_of_a_sweep_are_compared_with_the_main_ones_alone(correct):
    synthetic = correct[TrainedOn("A", "synthetic")]
    correct = {key: value for key, value in correct.items() if key.backbone == "A"}
    correct |= {TrainedOn("A", "synthetic", name): synthetic for name in ("x3", "x10")}

    comparisons = compare(correct)

    pairs = [(*row["regimes"], *row["variants"]) for row in comparisons]
    assert ("real", "synthetic", None, "x3") in pairs
    assert not [pair for pair in pairs if pair[2:] == ("x3", "x10")]
    assert len(pairs) == 3 + 2 * 3


def test_p_values_are_corrected_for_all_comparisons(correct):
    alone = {key: correct[key] for key in (TrainedOn("A", "real"), TrainedOn("A", "synthetic"))}

    (single,) = compare(alone)
    among_four = compare(correct)[0]

    assert among_four["p_value"] == pytest.approx(4 * single["p_value"])


def test_one_regime_has_nothing_to_compare(correct):
    assert compare({TrainedOn("A", "real"): correct[TrainedOn("A", "real")]}) == []


def test_predictions_of_other_images_are_refused(correct):
    correct[TrainedOn("A", "both")] = [correct[TrainedOn("A", "both")][0][:-1]]

    with pytest.raises(InputError, match="one for each of 200 test images, received 199"):
        compare(correct)


def test_order_in_which_a_study_names_its_regimes_changes_nothing():
    rng = np.random.default_rng(0)
    keys = [
        TrainedOn(backbone, regime, variant)
        for backbone in "BA"
        for regime, variant in (("real", None), ("synthetic", None), ("both", None), ("both", "x3"))
    ]
    correct = {key: [rng.integers(0, 2, 200).astype(float)] for key in keys}
    backwards = {
        TrainedOn(b, r, v): correct[b, r, v]
        for b in "BA"
        for r, v in (("both", None), ("both", "x3"), ("synthetic", None), ("real", None))
    }

    forward, backward = map(compare, (correct, backwards))

    assert forward == backward
    assert [row["backbone"] for row in forward] == ["B"] * 6 + ["A"] * 6
    assert forward[0]["regimes"] == ["real", "synthetic"]
