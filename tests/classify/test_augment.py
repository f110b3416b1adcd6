import builtins

import keras
import numpy as np
import pytest

from kerasmed.classify.augment import make_augmenter
from kerasmed.errors import MachineError

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("strength", ["light", "medium", "strong"])
def test_images_change_and_stay_images(strength):
    changed = make_augmenter(strength, seed=0)(IMAGES)
    assert changed.dtype == np.uint8
    assert changed.shape == IMAGES.shape
    assert (changed != IMAGES).reshape(4, -1).any(axis=1).all()


def test_stronger_changes_more():
    smooth = np.tile(np.linspace(50, 200, 32, dtype=np.uint8)[:, None, None], (64, 1, 32, 3))
    means = []
    for strength in ("light", "medium", "strong"):
        keras.utils.set_random_seed(0)
        changed = make_augmenter(strength, seed=0)(smooth)
        means.append(np.abs(changed.astype(int) - smooth).mean())
    assert 0 < means[0] < means[1] < means[2]


def test_nothing_changes_without_strength():
    np.testing.assert_array_equal(make_augmenter("none", seed=0)(IMAGES), IMAGES)


def test_a_seed_repeats():
    runs = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        augment = make_augmenter("medium", seed=0)
        runs.append(np.stack([augment(IMAGES) for _ in range(3)]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0][0], runs[0][1])


def test_missing_keras_cv_is_told_with_a_remedy(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "keras_cv":
            raise ImportError("No module named 'keras_cv'")
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MachineError, match=r"set classifiers\.augment: none"):
        make_augmenter("medium", seed=0)
