import numpy as np
import pytest

from kerasmed.audit.covering import covering


def test_each_training_image_gets_as_many():
    """Draws of one mode are ten times as frequent, and each mode gets half of the set."""
    rng = np.random.default_rng(0)
    training = rng.normal(np.repeat([0, 8], 20)[:, None], 1, (40, 3))
    candidates = rng.normal(np.repeat([0, 8], [400, 40])[:, None], 1, (440, 3))
    kept = covering(training, candidates, 40, seed=1)
    assert len(set(kept.tolist())) == 40
    np.testing.assert_array_equal(np.sort(kept), kept)
    assert (kept >= 400).sum() == pytest.approx(20, abs=1)


def test_first_round_takes_the_nearest_draw_of_each_image():
    training = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 30.0]])
    candidates = np.concatenate([training + 3, training + 0.5, training + 5])
    np.testing.assert_array_equal(covering(training, candidates, 3, seed=0), [3, 4, 5])
    np.testing.assert_array_equal(covering(training, candidates, 6, seed=0), range(6))
    np.testing.assert_array_equal(covering(training, candidates, 9, seed=0), range(9))


def test_features_of_any_scale_count_alike():
    rng = np.random.default_rng(2)
    training, candidates = rng.normal(size=(10, 4)), rng.normal(size=(50, 4))
    scale = np.array([1e-3, 1, 1e3, 1])
    expected = covering(training, candidates, 15, seed=0)
    np.testing.assert_array_equal(covering(training * scale, candidates * scale, 15, 0), expected)
