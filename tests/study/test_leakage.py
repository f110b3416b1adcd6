"""What a random split claims where features tell the group and nothing else."""

import numpy as np
import pytest

from kerasmed.study.leakage import leakage

Positions = list[tuple[np.ndarray, np.ndarray]]


def random_splits(count: int, groups: np.ndarray, by_group: bool) -> Positions:
    """Five splits into halves, by group or by image."""
    splits = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        names = rng.permutation(np.unique(groups))
        chosen = np.isin(groups, names[: len(names) // 2])
        if not by_group:
            chosen = rng.permutation(count) < count // 2
        splits.append((np.flatnonzero(chosen), np.flatnonzero(~chosen)))
    return splits


@pytest.fixture
def groups():
    """Forty groups of ten images."""
    return np.repeat(np.arange(40), 10)


def test_features_that_only_tell_the_group_flatter_the_random_split(groups):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(40) % 2)[groups]
    features = rng.standard_normal((40, 60))[groups] + 0.1 * rng.standard_normal((400, 60))

    result = leakage(
        features, labels, random_splits(400, groups, True), random_splits(400, groups, False)
    )

    assert result["random"]["mean"] > 0.95
    assert abs(result["grouped"]["mean"] - 0.5) < 0.2
    assert result["gap"] > 0.3


def test_features_that_tell_the_class_have_no_gap(groups):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(40) % 2)[groups]
    features = rng.standard_normal((400, 10)) + 4 * labels[:, None]

    result = leakage(
        features, labels, random_splits(400, groups, True), random_splits(400, groups, False)
    )

    assert result["grouped"]["mean"] > 0.95
    assert abs(result["gap"]) < 0.05


def test_values_by_hand():
    # One feature, 0 for the first class and 1 for the second, but for one image of each split.
    features = np.array([[0.0], [0.0], [1.0], [1.0], [0.0], [1.0], [1.0], [0.0]])
    labels = np.array([0, 0, 1, 1, 0, 1, 0, 1])
    learnt = np.arange(4)
    right, half, wrong = np.array([4, 5]), np.array([4, 6]), np.array([6, 7])

    result = leakage(
        features,
        labels,
        grouped=[(learnt, half), (learnt, wrong)],
        random=[(learnt, right), (learnt, right), (learnt, half)],
    )

    assert result["grouped"]["values"] == [0.5, 0.0]
    assert result["grouped"]["mean"] == 0.25
    assert result["grouped"]["standard_deviation"] == pytest.approx(np.sqrt(2 * 0.25**2))
    assert result["random"]["values"] == [1.0, 1.0, 0.5]
    assert result["random"]["mean"] == pytest.approx(5 / 6)
    assert result["random"]["standard_deviation"] == pytest.approx(np.sqrt(1 / 12))
    assert result["gap"] == pytest.approx(5 / 6 - 0.25)


def test_one_split_has_no_deviation():
    split = [(np.arange(4), np.arange(4))]

    result = leakage(np.array([[0.0], [0], [1], [1]]), np.array([0, 0, 1, 1]), split, split)

    assert result["grouped"] == {"mean": 1.0, "standard_deviation": None, "values": [1.0]}
    assert result["gap"] == 0.0


def test_scale_and_offset_of_features_change_nothing(groups):
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 3
    features = rng.standard_normal((400, 5)) + labels[:, None]
    splits = random_splits(400, groups, True), random_splits(400, groups, False)

    result = leakage(features, labels, *splits)
    scaled = leakage(features * [1, 10, 100, 1e3, 1e-3] + 7, labels, *splits)

    assert scaled == result


def test_feature_that_never_changes_is_survived(groups):
    labels = np.arange(400) % 2
    features = np.stack([labels, np.full(400, 3.0)], axis=1).astype(np.float32)
    splits = random_splits(400, groups, True)

    result = leakage(features, labels, splits, splits)

    assert result["grouped"]["mean"] == 1.0
