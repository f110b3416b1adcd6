"""How much images in groups say."""

import numpy as np
import pytest

from kerasmed.metrics.statistics import design_effect


def test_images_of_their_own_groups_count_as_they_are():
    values = np.random.default_rng(0).random(500) < 0.1
    assert design_effect(values, np.arange(500)) == pytest.approx(1)


def test_images_alike_within_a_group_count_as_one():
    values = np.repeat(np.random.default_rng(0).random(1000) < 0.1, 8)
    assert design_effect(values, np.repeat(np.arange(1000), 8)) == pytest.approx(8, abs=0.1)


def test_means_over_groups_vary_as_much_more_as_the_design_effect_says():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), rng.integers(1, 10, 300))
    means, effects = [], []
    for _ in range(300):
        values = rng.random(len(groups)) < rng.beta(0.5, 2, 300)[groups]
        means.append(values.mean())
        effects.append(design_effect(values, groups))

    of_images = 0.2 * 0.8 / len(groups)
    assert np.mean(effects) == pytest.approx(np.var(means) / of_images, rel=0.2)


@pytest.mark.parametrize("values", [np.zeros(20), np.ones(20)])
def test_equal_values_say_nothing_of_groups(values):
    assert design_effect(values, np.repeat(np.arange(5), 4)) == 1
