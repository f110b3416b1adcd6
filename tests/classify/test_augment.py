import builtins

import numpy as np
import pytest

from kerasmed.classify.augment import make_augmenter
from kerasmed.errors import MachineError

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def _rngs(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


@pytest.mark.parametrize("strength", ["light", "medium", "strong"])
def test_images_change_and_stay_images(strength):
    changed = make_augmenter(strength)(IMAGES, _rngs(*range(4)))
    assert changed.dtype == np.uint8
    assert changed.shape == IMAGES.shape
    assert (changed != IMAGES).reshape(4, -1).any(axis=1).all()


def test_stronger_changes_more():
    smooth = np.tile(np.linspace(50, 200, 32, dtype=np.uint8)[:, None, None], (64, 1, 32, 3))
    means = []
    for strength in ("light", "medium", "strong"):
        changed = make_augmenter(strength)(smooth, _rngs(*range(64)))
        means.append(np.abs(changed.astype(int) - smooth).mean())
    assert 0 < means[0] < means[1] < means[2]


def test_nothing_changes_without_strength():
    np.testing.assert_array_equal(make_augmenter("none")(IMAGES, _rngs(*range(4))), IMAGES)


def test_an_image_depends_only_on_its_own_generator():
    augment = make_augmenter("medium")
    whole = augment(IMAGES, _rngs(0, 1, 2, 3))
    np.testing.assert_array_equal(augment(IMAGES[2:], _rngs(2, 3)), whole[2:])
    assert not np.array_equal(augment(IMAGES, _rngs(4, 5, 6, 7)), whole)


def test_half_of_the_images_stay_where_they_are():
    # One bright pixel: colour changes leave it in place, everything else moves or spreads it.
    images = np.zeros((200, 33, 33, 3), np.uint8)
    images[:, 4, 4] = 200
    changed = make_augmenter("strong")(images, _rngs(*range(200))).max(axis=-1)
    bright = (changed != np.median(changed, axis=(1, 2), keepdims=True)).reshape(200, -1)
    alone = (bright.sum(axis=1) == 1) & bright[:, 4 * 33 + 4]
    assert 80 <= alone.sum() <= 120


def test_missing_keras_cv_is_refused_with_a_remedy(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "keras_cv":
            raise ImportError("No module named 'keras_cv'")
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MachineError, match=r"set classifiers\.augment: none"):
        make_augmenter("medium")
