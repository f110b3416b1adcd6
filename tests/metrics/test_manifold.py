"""Precision, recall, density and coverage against plain loops, and what they tell apart."""

import numpy as np
import pytest

from kerasmed.errors import InputError
from kerasmed.metrics.jackknife import combine
from kerasmed.metrics.manifold import Overlap, overlap
from kerasmed.metrics.sample import Sample


def normal(count: int, shift: float = 0.0, seed: int = 0, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, width)).astype(np.float32)


def compared(real, images, k=5, of_real=None, of_images=None, name="images") -> Overlap:
    return overlap(Sample("reserve", real, of_real), Sample(name, images, of_images), k)


def figures(result: Overlap) -> dict[str, float]:
    return {
        "precision": result.precision.value,
        "recall": result.recall,
        "density": result.density,
        "coverage": result.coverage.value,
    }


def plain_overlap(real, images, k, of_real=None) -> dict[str, float]:
    """Term by term, from the papers' definitions."""
    of_real = range(len(real)) if of_real is None else of_real

    def distance(x, y) -> float:
        return float(np.sqrt(((x.astype(np.float64) - y) ** 2).sum()))

    def reach(xs, i, groups) -> float:
        return sorted(distance(xs[i], xs[j]) for j in range(len(xs)) if groups[j] != groups[i])[
            k - 1
        ]

    real_radii = [reach(real, i, of_real) for i in range(len(real))]
    own_radii = [reach(images, j, range(len(images))) for j in range(len(images))]
    inside = [[distance(x, y) < real_radii[i] for y in images] for i, x in enumerate(real)]
    return {
        "precision": np.mean([any(row[j] for row in inside) for j in range(len(images))]),
        "recall": np.mean(
            [any(distance(x, y) < own_radii[j] for j, y in enumerate(images)) for x in real]
        ),
        "density": np.sum(inside) / k / len(images),
        "coverage": np.mean([any(row) for row in inside]),
    }


@pytest.mark.parametrize(("n", "m", "k"), [(20, 20, 5), (25, 31, 3), (12, 9, 1)])
@pytest.mark.parametrize("rows", [1024, 7])
def test_agrees_with_plain_loops(n, m, k, rows, monkeypatch):
    monkeypatch.setattr("kerasmed.metrics.manifold._ROWS", rows)
    real, images = normal(n, seed=1, width=3), normal(m, 0.7, seed=2, width=3)

    result = compared(real, images, k, np.arange(n) // 2)

    assert figures(result) == pytest.approx(plain_overlap(real, images, k, np.arange(n) // 2))


def test_without_each_group_agrees_with_plain_loops():
    real, images = normal(24, seed=1, width=2), normal(18, 0.4, seed=2, width=2)
    of_real, of_images = np.arange(24) // 4, np.arange(18) // 3

    result = compared(real, images, 2, of_real, of_images)

    distances = np.linalg.norm(real[:, None].astype(float) - images, axis=2)
    between = np.linalg.norm(real[:, None].astype(float) - real, axis=2)
    between[of_real[:, None] == of_real] = np.inf
    inside = distances < np.sort(between)[:, 1:2]
    # Two groups more of the mean size, of which one is covered.
    covered_real = np.append(inside.any(axis=1), [1, 1, 1, 1, 0, 0, 0, 0])
    covered_images = np.append(inside.any(axis=0), [1, 1, 1, 0, 0, 0])
    with_added = np.append(of_real, [6] * 4 + [7] * 4), np.append(of_images, [6] * 3 + [7] * 3)
    for group in range(6):
        real_left, images_left = of_real != group, of_images != group
        assert result.precision.without["reserve"][group] == inside[real_left].any(axis=0).mean()
        assert result.coverage.without["images"][group] == inside[:, images_left].any(axis=1).mean()
    for group in range(8):
        assert result.coverage.without["reserve"][group] == pytest.approx(
            covered_real[with_added[0] != group].mean()
        )
        assert result.precision.without["images"][group] == pytest.approx(
            covered_images[with_added[1] != group].mean()
        )


def test_complete_coverage_of_few_groups_proves_little():
    real = np.array([[float(i)] for i in range(8)])

    first = compared(real, real, 2).coverage
    second = overlap(Sample("reserve", real), Sample("b", real), 2, (False, True)).coverage

    assert first.value == second.value == 1
    assert first.interval()[0] < 0.9
    ratio = combine(np.divide, first, second)
    assert ratio.value == 1
    assert ratio.interval()[0] < 0.8


def test_neighbourhoods_reach_to_images_of_other_groups():
    """Each image eight times over: as one group they are as good as one."""
    real, images = normal(40, seed=1, width=3), normal(40, 0.7, seed=2, width=3)
    times = np.repeat(np.arange(40), 8)
    slices = real[times] + 1e-6 * normal(320, seed=3, width=3)

    grouped, naive = compared(slices, images, 5, times), compared(slices, images, 5)

    assert grouped.precision.value == pytest.approx(compared(real, images, 1).precision.value)
    assert grouped.precision.value > naive.precision.value + 0.3


def test_too_few_images_outside_a_group_are_refused():
    real = normal(24, seed=1)
    with pytest.raises(InputError, match="5 images outside the largest group, received 4"):
        compared(real, real, of_real=np.maximum(np.arange(24), 19))


def test_collapse_and_shift_are_told_apart():
    real = normal(200, seed=1, width=4)
    alike = figures(compared(real, normal(200, seed=2, width=4)))
    collapsed = figures(compared(real, real[:1] + 0.01 * normal(200, seed=3, width=4)))
    shifted = figures(compared(real, normal(200, 20.0, seed=2, width=4)))

    assert min(alike["precision"], alike["recall"]) > 0.7
    assert alike["density"] == pytest.approx(1, abs=0.2)
    assert alike["coverage"] > 0.85
    assert collapsed["precision"] == 1
    assert collapsed["recall"] < 0.1
    assert collapsed["coverage"] < 0.1
    assert shifted == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_groups_of_the_compared_set_change_no_figure():
    """As the training images have groups and a synthetic set has none."""
    real, images = normal(60, seed=1), normal(60, seed=2)

    grouped = compared(real, images, of_images=np.arange(60) // 5)

    assert figures(grouped) == figures(compared(real, images))


@pytest.mark.parametrize("sizes", [[5], [1, 2, 12]])
def test_coverage_falls_as_groups_go_missing(sizes):
    """Groups of one size or of several; a quarter, a half and three quarters are dropped."""
    rng = np.random.default_rng(0)
    modes = 3 * rng.normal(size=(20, 6))

    def patients(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mode_of = rng.permutation(np.arange(count) % 20)
        groups = np.repeat(np.arange(count), rng.choice(sizes, count))
        centres = modes[mode_of] + 0.5 * rng.normal(size=(count, 6))
        features = centres[groups] + 0.3 * rng.normal(size=(len(groups), 6))
        return features, groups, mode_of[groups]

    (real, of_real, _), (train, of_train, _) = patients(120), patients(120)
    images, _, mode_of = patients(120)
    baseline = compared(real, train, 5, of_real, of_train, "train").coverage
    ratios = []
    for dropped in (0, 5, 10, 15):
        left = images[mode_of >= dropped]
        drawn = left[rng.choice(len(left), len(train), replace=len(left) < len(train))]
        coverage = compared(real, drawn, of_real=of_real).coverage
        ratios.append(combine(np.divide, coverage, baseline))
    values = [ratio.value for ratio in ratios]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.85
    assert ratios[2].quantile(0.975) < 0.85
