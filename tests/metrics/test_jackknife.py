"""Intervals over groups: by hand, against textbook formulas, and their coverage."""

import numpy as np
import pytest
from scipy.stats import t

from kerasmed.metrics.jackknife import Figure, combine, mean_figure


def test_mean_of_single_values_has_the_interval_of_student():
    values = np.random.default_rng(0).normal(size=12)

    figure = mean_figure(values, {"test": np.arange(12)})

    error = values.std(ddof=1) / np.sqrt(12)
    assert figure.standard_error == pytest.approx(error)
    assert figure.corrected().value == pytest.approx(figure.value)
    expected = values.mean() + np.array([-1, 1]) * t.ppf(0.975, 11) * error
    assert figure.interval() == pytest.approx(tuple(expected))


def test_mean_without_each_group_by_hand():
    figure = mean_figure(np.array([1.0, 0.0, 1.0, 1.0]), {"test": np.array([0, 0, 1, 2])})

    assert figure.value == 0.75
    np.testing.assert_allclose(figure.without["test"], [1, 2 / 3, 2 / 3])


def test_two_samples_have_the_interval_of_welch():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=8), 3 * rng.normal(size=15)

    difference = combine(
        np.subtract,
        mean_figure(first, {"a": np.arange(8)}),
        mean_figure(second, {"b": np.arange(15)}),
    )

    variances = first.var(ddof=1) / 8, second.var(ddof=1) / 15
    degrees = sum(variances) ** 2 / (variances[0] ** 2 / 7 + variances[1] ** 2 / 14)
    assert difference.quantile(0.975) == pytest.approx(
        first.mean() - second.mean() + np.sqrt(sum(variances)) * t.ppf(0.975, degrees)
    )


def test_figures_of_one_sample_vary_together():
    values, groups = np.random.default_rng(2).random(30), {"test": np.arange(30) // 3}
    figure = mean_figure(values, groups)

    assert combine(np.divide, figure, figure).interval() == (1, 1)
    assert combine(np.subtract, figure, mean_figure(values / 2, groups)).standard_error == (
        pytest.approx(figure.standard_error / 2)
    )


def test_constant_has_no_width():
    assert Figure(0.5).interval() == (0.5, 0.5)
    assert mean_figure(np.ones(9), {"test": np.arange(9)}).estimate() == {
        "value": 1.0,
        "interval": [1.0, 1.0],
    }


def test_interval_of_a_ratio_over_few_groups_holds_the_truth():
    rng, covered = np.random.default_rng(3), 0
    for _ in range(300):
        of_group = 0.15 * rng.normal(size=(12, 1))
        first, second = (
            (rng.random((12, 10)) < chance + of_group).ravel() for chance in (0.72, 0.8)
        )
        groups = {"test": np.arange(120) // 10}
        low, high = combine(
            np.divide, mean_figure(first, groups), mean_figure(second, groups)
        ).interval()
        covered += low < 0.9 < high
    assert 0.92 < covered / 300 < 0.99
