"""The Fréchet distance against the matrix root and by hand."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from kerasmed.errors import InputError
from kerasmed.metrics.frechet import frechet_distance


def normal(count: int, shift: float = 0.0, seed: int = 0, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, width)).astype(np.float32)


def test_frechet_distance_of_one_dimension_by_hand():
    first, second = np.array([[0.0], [2.0]]), np.array([[3.0], [7.0]])

    # Means 1 and 5, variances 2 and 8: (5 - 1)^2 + (sqrt 8 - sqrt 2)^2.
    assert frechet_distance(first, second) == pytest.approx(16 + 2)


def test_frechet_distance_agrees_with_the_matrix_root():
    first, second = normal(80, 0.0, 1, 6), normal(90, 0.3, 2, 6) @ np.diag([1, 2, 3, 1, 1, 0.5])
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    offset = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()

    expected = offset + np.trace(a + b - 2 * sqrtm(a @ b).real)

    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_too_few_images_is_refused():
    with pytest.raises(InputError, match="more images than the 8 features, received 8"):
        frechet_distance(normal(30), normal(8))
