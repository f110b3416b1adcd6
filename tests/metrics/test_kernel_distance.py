"""The kernel distance against plain loops, and its bias and interval over groups."""

import numpy as np
import pytest

from kerasmed.metrics.jackknife import Figure
from kerasmed.metrics.kernel_distance import kernel_distance
from kerasmed.metrics.sample import Sample


def normal(count: int, shift: float = 0.0, seed: int = 0, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, width)).astype(np.float32)


def distance(first, second, of_first=None, of_second=None) -> Figure:
    return kernel_distance(Sample("first", first, of_first), Sample("second", second, of_second))


def plain_kernel_distance(first, second, of_first=None, of_second=None) -> float:
    """Binkowski et al., arXiv:1801.01401, eq. 4, term by term, over pairs of other groups."""
    of_first = range(len(first)) if of_first is None else of_first
    of_second = range(len(second)) if of_second is None else of_second

    def kernel(x, y) -> float:
        return (sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def within(xs, groups) -> float:
        grouped = list(zip(xs, groups, strict=True))
        return float(np.mean([kernel(x, y) for x, g in grouped for y, h in grouped if g != h]))

    between = [kernel(x, y) for x in first for y in second]
    return within(first, of_first) + within(second, of_second) - 2 * float(np.mean(between))


@pytest.mark.parametrize(("n", "m", "width"), [(3, 4, 1), (5, 9, 3), (12, 7, 16)])
def test_agrees_with_plain_loops(n, m, width):
    first, second = normal(n, 0.5, 1, width), normal(m, 0.0, 2, width)

    assert distance(first, second).value == pytest.approx(plain_kernel_distance(first, second))


def test_by_hand():
    # d = 1: k(0, x) = 1, k(1, 1) = 8, k(1, 2) = 27.
    found = distance(np.array([[0.0], [1.0], [1.0]]), np.array([[0.0], [1.0], [2.0]]))

    within = (1 + 1 + 8) / 3 + (1 + 1 + 27) / 3
    assert found.value == pytest.approx(within - 2 * (3 * 1 + 2 * (1 + 8 + 27)) / 9)


def test_of_groups_agrees_with_plain_loops_also_without_each_of_them():
    first, second = normal(9, 0.5, 1, 3), normal(7, 0.0, 2, 3)
    groups = np.arange(9) // 3, np.array([0, 0, 1, 1, 1, 2, 3])

    found = distance(first, second, *groups)

    assert found.value == pytest.approx(plain_kernel_distance(first, second, *groups), rel=1e-6)
    for group in range(3):
        left = groups[0] != group
        expected = plain_kernel_distance(first[left], second, groups[0][left], groups[1])
        assert found.without["first"][group] == pytest.approx(expected, rel=1e-6)
    for group in range(4):
        left = groups[1] != group
        expected = plain_kernel_distance(first, second[left], groups[0], groups[1][left])
        assert found.without["second"][group] == pytest.approx(expected, rel=1e-6)


def test_rows_of_a_large_set_are_computed_in_turn(monkeypatch):
    first, second = normal(30, 0.5, 1), normal(25, 0.0, 2)
    at_once = distance(first, second, np.arange(30) // 2)
    monkeypatch.setattr("kerasmed.metrics.kernel_distance._ROWS", 7)

    in_turn = distance(first, second, np.arange(30) // 2)

    assert in_turn.value == pytest.approx(at_once.value)
    np.testing.assert_allclose(in_turn.without["first"], at_once.without["first"])
    np.testing.assert_allclose(in_turn.without["second"], at_once.without["second"])


def test_single_images_need_no_correction():
    found = distance(normal(20, seed=1), normal(30, 1.0, seed=2))

    assert found.corrected().value == pytest.approx(found.value)


def test_is_symmetric():
    first, second = normal(20, seed=1), normal(30, 1.0, seed=2)

    assert distance(first, second).value == pytest.approx(distance(second, first).value)


def test_is_unbiased():
    distances = [distance(normal(25, seed=i), normal(25, seed=1000 + i)).value for i in range(200)]

    error = np.std(distances) / np.sqrt(len(distances))
    assert abs(np.mean(distances)) < 3 * error
    assert min(distances) < 0


def test_float32_features_lose_no_digits():
    first, second = normal(30, 20.0, 1), normal(30, 20.0, 2)

    found = distance(first, second)

    assert found.value == distance(first.astype(np.float64), second.astype(np.float64)).value


def patients(seed: int, count: int = 20, images: int = 12) -> np.ndarray:
    """Images of so many patients, that differ between patients more than within: (n, 8)."""
    rng = np.random.default_rng(seed)
    of_patient = 0.8 * rng.normal(size=(count, 1, 8))
    return (of_patient + 0.6 * rng.normal(size=(count, images, 8))).reshape(-1, 8)


def test_of_other_patients_is_unbiased_and_its_interval_covers_0():
    of_patient = np.arange(240) // 12
    values, naive, covered = [], [], 0
    for seed in range(40):
        sets = patients(2 * seed), patients(2 * seed + 1)
        found = distance(*sets, of_patient, of_patient).corrected()
        values.append(found.value)
        naive.append(distance(*sets).value)
        low, high = found.interval()
        covered += low < 0 < high
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert np.mean(naive) > 10 * error  # what pairs of the same patient would add
    assert covered >= 36


def patients_of_any_size(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Patients with 2 or 30 images, which look different: features (n, 8) and patients (n,)."""
    sizes = np.where(rng.random(count) < 0.5, 2, 30)
    centres = 0.8 * rng.normal(size=(count, 8)) + np.where(sizes == 30, 0.8, -0.8)[:, None]
    of_patient = np.repeat(np.arange(count), sizes)
    return centres[of_patient] + 0.6 * rng.normal(size=(len(of_patient), 8)), of_patient


@pytest.mark.parametrize("count", [20, 100])
def test_fresh_images_are_at_distance_0_where_size_of_a_group_tells_of_its_content(count):
    rng = np.random.default_rng(0)
    population, _ = patients_of_any_size(3000, rng)
    values, covered = [], 0
    for _ in range(60):
        real, of_patient = patients_of_any_size(count, rng)
        fresh = population[rng.choice(len(population), 200, replace=False)]
        found = distance(real, fresh, of_patient).corrected()
        values.append(found.value)
        covered += found.interval()[0] < 0 < found.interval()[1]
    assert abs(np.mean(values)) < 2 * np.std(values) / np.sqrt(len(values))
    assert covered >= 55
