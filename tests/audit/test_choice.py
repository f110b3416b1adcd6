"""The choice among regimes: real images alone unless synthetic ones clearly help."""

import numpy as np
import pytest

from kerasmed.audit.choice import choose_regime
from kerasmed.audit.comparison import TrainedOn

REAL = TrainedOn("VGG16", "real")
TWICE = TrainedOn("VGG16", "real_twice")
BOTH = TrainedOn("VGG16", "both")
SURE = TrainedOn("VGG16", "both", "sure")


def right(count: int, of: int = 100) -> list[np.ndarray]:
    """One seed that is right about the first so many images."""
    return [(np.arange(of) < count).astype(float)]


def test_a_use_that_surely_helps_is_chosen_with_its_set():
    correct = {REAL: right(60), BOTH: right(62), SURE: right(90)}
    choice = choose_regime(correct, {REAL: 0.5, BOTH: 0.5, SURE: 0.2}, np.arange(100))

    assert (choice["regime"], choice["variant"]) == ("both", "sure")
    gains = {gain["variant"]: gain for gain in choice["gains"]}
    assert gains["sure"]["gain"] == pytest.approx(0.3)
    assert 0.15 < gains["sure"]["lower_end"] < 0.3
    assert gains[None]["lower_end"] < 0


def test_the_baseline_is_the_plain_regime_with_the_lowest_loss():
    correct = {REAL: right(60), TWICE: right(88), BOTH: right(90)}
    choice = choose_regime(correct, {REAL: 0.6, TWICE: 0.3, BOTH: 0.2}, np.arange(100))

    assert choice["without_synthetic"] == "real_twice"
    assert choice["regime"] == "real_twice"  # two more of 100 prove nothing
    assert choice["gains"][0]["gain"] == pytest.approx(0.02)


def test_images_of_one_patient_prove_as_little_as_one_image():
    correct = {REAL: right(60), BOTH: right(75)}
    losses = {REAL: 0.5, BOTH: 0.4}

    assert choose_regime(correct, losses, np.arange(100))["regime"] == "both"
    assert choose_regime(correct, losses, np.arange(100) // 20)["regime"] == "real"


def test_with_many_candidates_more_has_to_be_shown():
    many = {TrainedOn("VGG16", "both", f"v{i}"): right(60) for i in range(20)}
    losses = dict.fromkeys([REAL, BOTH, *many], 0.5)
    alone = choose_regime({REAL: right(60), BOTH: right(66)}, losses, np.arange(100))
    among = choose_regime({REAL: right(60), BOTH: right(66), **many}, losses, np.arange(100))

    assert (alone["regime"], among["regime"]) == ("both", "real")


def test_where_nothing_helps_one_is_chosen_at_most_as_often_as_stated():
    rng = np.random.default_rng(0)
    groups = np.arange(120) // 2
    chosen = 0
    for _ in range(400):
        of_group = rng.random((5, 60)) < 0.8  # the two images of a patient stand or fall together
        correct = {
            TrainedOn("VGG16", "both" if i else "real", f"v{i}" if i else None): [
                np.repeat(values, 2).astype(float)
            ]
            for i, values in enumerate(of_group)
        }
        choice = choose_regime(correct, dict.fromkeys(correct, 1.0), groups)
        chosen += choice["regime"] != "real"
    assert chosen / 400 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert chosen > 0
