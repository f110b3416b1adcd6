"""How far the classes of a set are from real images of them."""

import numpy as np
import pytest

from kerasmed.audit.class_distances import class_distances
from kerasmed.errors import InputError

SETS = ("reserve", "train", "synthetic")


def patients(seed: int) -> np.ndarray:
    """Twelve images each of 20 patients, who differ more than their images: (240, 8)."""
    rng = np.random.default_rng(seed)
    return (0.8 * rng.normal(size=(20, 1, 8)) + 0.6 * rng.normal(size=(20, 12, 8))).reshape(-1, 8)


def normal(count: int, shift: float = 0.0, seed: int = 0, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, width)).astype(np.float32)


def test_classes_that_patients_were_given_at_random_do_not_lie_apart():
    refused = 0
    for seed in range(10):
        features = {name: patients(10 * seed + i) for i, name in enumerate(SETS)}
        labels = dict.fromkeys(SETS, np.repeat([0, 1], 120))
        groups = dict.fromkeys(("reserve", "train"), np.arange(240) // 12)
        try:
            class_distances(features, labels, "ab", groups)
        except InputError as error:
            refused += "classes of real images that differ" in str(error)
    assert refused >= 9


def test_classes_are_as_far_as_the_images_were_moved():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    centres = np.array([[-3.0, 0.0], [3.0, 0.0]])[labels]

    def draw(fraction: float) -> np.ndarray:
        """Images moved by a fraction of the way to the other class."""
        return centres * (1 - 2 * fraction) + 0.3 * rng.standard_normal(centres.shape)

    features = {"reserve": draw(0), "train": draw(0), "synthetic": draw(1)}
    swapped = class_distances(features, dict.fromkeys(features, labels), "ab")
    near = class_distances(
        {**features, "synthetic": draw(0.1)}, dict.fromkeys(features, labels), "ab"
    )

    assert swapped["synthetic"] == pytest.approx(1, abs=0.05)
    assert swapped["train"] == pytest.approx(0, abs=0.02)
    assert 0 < near["synthetic"] < 0.3


def test_distance_of_classes_needs_images_of_each():
    features = {name: np.zeros((40, 2)) for name in ("reserve", "train", "synthetic")}
    labels = dict.fromkeys(features, np.repeat([0, 1], [21, 19]))

    with pytest.raises(InputError, match="at least 20 reserve images of b, received 19"):
        class_distances(features, labels, "ab")


@pytest.mark.parametrize("deviation", [0.0, 1.0])
def test_distance_of_classes_that_do_not_lie_apart_is_refused(deviation):
    features = {
        name: 1 + deviation * normal(40, seed=i)
        for i, name in enumerate(("reserve", "train", "synthetic"))
    }
    labels = dict.fromkeys(features, np.repeat([0, 1], 20))

    with pytest.raises(InputError, match="expected classes of real images that differ"):
        class_distances(features, labels, "ab")
