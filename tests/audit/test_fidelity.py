"""Distances of sets against plain loops and on known distributions."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.linalg import sqrtm

from kerasmed.audit import fidelity as module
from kerasmed.audit.fidelity import class_distances, fidelity_by_class
from kerasmed.errors import InputError
from kerasmed.metrics.frechet import frechet_distance
from kerasmed.metrics.kernel_distance import kernel_distance
from kerasmed.metrics.manifold import Overlap, overlap

SETS = ("reserve", "train", "synthetic")


def normal(count: int, shift: float = 0.0, seed: int = 0, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, width)).astype(np.float32)


def fidelity(reserve, train, synthetic, groups=None, seed=0) -> dict:
    sets = {"reserve": reserve, "train": train, "synthetic": synthetic}
    return module.fidelity(sets, groups, seed)


def plain_kernel_distance(first, second) -> float:
    """Binkowski et al., arXiv:1801.01401, eq. 4, term by term."""

    def kernel(x, y) -> float:
        return (sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def within(xs) -> float:
        pairs = [kernel(x, y) for i, x in enumerate(xs) for j, y in enumerate(xs) if i != j]
        return sum(pairs) / len(pairs)

    between = [kernel(x, y) for x in first for y in second]
    return within(first) + within(second) - 2 * sum(between) / len(between)


@pytest.mark.parametrize(("n", "m", "width"), [(2, 2, 1), (5, 9, 3), (12, 7, 16)])
def test_kernel_distance_agrees_with_plain_loops(n, m, width):
    first, second = normal(n, 0.5, 1, width), normal(m, 0.0, 2, width)

    assert kernel_distance(first, second) == pytest.approx(plain_kernel_distance(first, second))


def test_kernel_distance_by_hand():
    # d = 1. Within {0, 1}: k(0, 1) = 1; within {1, 2}: k(1, 2) = 27; between: 1, 1, 8, 27.
    distance = kernel_distance(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]]))

    assert distance == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)


def test_kernel_distance_is_symmetric():
    first, second = normal(20, seed=1), normal(30, 1.0, seed=2)

    assert kernel_distance(first, second) == pytest.approx(kernel_distance(second, first))


def test_kernel_distance_is_unbiased():
    distances = [kernel_distance(normal(25, seed=i), normal(25, seed=1000 + i)) for i in range(200)]

    error = np.std(distances) / np.sqrt(len(distances))
    assert abs(np.mean(distances)) < 3 * error
    assert min(distances) < 0


def test_float32_features_lose_no_digits():
    first, second = normal(30, 20.0, 1), normal(30, 20.0, 2)

    distance = kernel_distance(first, second)

    assert distance == kernel_distance(first.astype(np.float64), second.astype(np.float64))


def test_same_distribution_is_near_0_and_a_shifted_one_is_far():
    reserve, train = normal(150, seed=1), normal(150, seed=2)

    near = fidelity(reserve, train, normal(150, seed=3))
    far = fidelity(reserve, train, normal(150, 1.0, seed=3))

    assert abs(near["synthetic_to_reserve"]["kid"]) < 0.2
    assert far["synthetic_to_reserve"]["kid"] > 2
    assert far["train_to_reserve"]["kid"] < 0.2


def test_value_lies_within_its_interval():
    result = fidelity(normal(90, seed=1), normal(90, seed=2), normal(90, 0.3, seed=3))

    for name in ("synthetic_to_reserve", "train_to_reserve"):
        low, high = result[name]["interval"]
        assert low < result[name]["kid"] < high


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_scale_of_the_features_changes_nothing(factor):
    sets = [normal(60, 0.5, 1), normal(60, 0.5, 2), normal(60, 1.0, 3)]

    first, second = fidelity(*sets), fidelity(*(features * np.float32(factor) for features in sets))

    for name in ("synthetic_to_reserve", "train_to_reserve"):
        assert second[name]["kid"] == pytest.approx(first[name]["kid"], rel=1e-3)


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 1, 2.2), (0.5, 0.8, 1.3)])
def test_interval_covers_and_is_about_as_wide_as_the_spread(shift, least, most):
    truth = kernel_distance(normal(3000, seed=1), normal(3000, shift, seed=2))
    values, widths, covered = [], [], 0
    for i in range(60):
        sets = normal(60, seed=10 + 3 * i), normal(60, seed=11 + 3 * i)
        result = fidelity(*sets, normal(60, shift, seed=12 + 3 * i))
        # Without the scale, which is a little other in each.
        scale = float(sets[0].std())
        low, high = result["synthetic_to_reserve"]["interval"]
        values.append(result["synthetic_to_reserve"]["kid"])
        widths.append(high - low)
        covered += low < truth / scale < high
    assert covered >= 54
    assert least < np.mean(widths) / (3.92 * np.std(values)) < most


def patients(seed: int, count: int = 20, images: int = 12) -> np.ndarray:
    """Images of so many patients, that differ between patients more than within: (n, 8)."""
    rng = np.random.default_rng(seed)
    of_patient = 0.8 * rng.normal(size=(count, 1, 8))
    return (of_patient + 0.6 * rng.normal(size=(count, images, 8))).reshape(-1, 8)


@pytest.fixture
def of_patient() -> np.ndarray:
    return np.arange(240) // 12


def test_kernel_distance_of_groups_agrees_with_plain_loops():
    first, second = normal(9, 0.5, 1, 3), normal(6, 0.0, 2, 3)
    of_first, of_second = np.arange(9) // 3, np.arange(6) // 2

    def within(xs, groups) -> float:
        pairs = [
            (np.dot(x, y) / 3 + 1) ** 3
            for x, g in zip(xs, groups, strict=True)
            for y, h in zip(xs, groups, strict=True)
            if g != h
        ]
        return float(np.mean(pairs))

    between = [(np.dot(x, y) / 3 + 1) ** 3 for x in first for y in second]
    expected = within(first, of_first) + within(second, of_second) - 2 * float(np.mean(between))
    assert kernel_distance(first, second, of_first, of_second) == pytest.approx(expected, rel=1e-5)


def test_kernel_distance_of_other_patients_is_unbiased_and_its_interval_covers_0(of_patient):
    values, naive, covered = [], [], 0
    for seed in range(40):
        sets = patients(2 * seed), patients(2 * seed + 1)
        values.append(kernel_distance(*sets, of_patient, of_patient))
        naive.append(kernel_distance(*sets))
        low, high = module.kernel_distance_interval(*sets, of_patient, of_patient, seed)
        covered += low < 0 < high
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert np.mean(naive) > 10 * error  # what pairs of the same patient would add
    assert covered >= 36


def test_fidelity_knows_the_patients(of_patient):
    sets = [patients(seed) for seed in range(3)]
    groups = dict.fromkeys(("reserve", "train"), of_patient)

    alone, together = (
        fidelity(*sets, groups_of)["train_to_reserve"] for groups_of in (None, groups)
    )

    low, high = together["interval"]
    assert low < together["kid"] < high
    assert together["kid"] < alone["kid"] - 0.1
    assert high - low > 2 * (alone["interval"][1] - alone["interval"][0])


def test_fidelity_of_too_few_patients_is_refused():
    groups = {"reserve": np.arange(40) // 10, "train": np.arange(40)}

    with pytest.raises(InputError, match=r"at least 5 groups.*received 4 of reserve images"):
        fidelity(*(normal(40, seed=i) for i in range(3)), groups)


def test_classes_that_patients_were_given_at_random_do_not_lie_apart():
    refused = 0
    for seed in range(10):
        features = {name: patients(10 * seed + i) for i, name in enumerate(SETS)}
        labels = dict.fromkeys(SETS, np.repeat([0, 1], 120))
        groups = dict.fromkeys(("reserve", "train"), np.arange(240) // 12)
        try:
            class_distances(features, labels, "ab", groups)
        except InputError as error:
            refused += "lie apart" in str(error)
    assert refused >= 9


def test_synthetic_classes_are_taken_as_frequent_as_real_ones():
    rng = np.random.default_rng(0)

    def drawn(counts) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat([0, 1], counts)
        return rng.normal(size=(sum(counts), 4)) + 6 * labels[:, None], labels

    sets = {"reserve": drawn((300, 30)), "train": drawn((300, 30)), "synthetic": drawn((300, 300))}
    features, labels = ({name: of_set[i] for name, of_set in sets.items()} for i in range(2))

    result = fidelity_by_class(features, labels, "ab")

    assert result["compared"] == 330
    assert result["synthetic_to_reserve"]["interval"][0] < 0.05
    assert result["synthetic_to_reserve"]["kid"] < 0.5


def test_seed_repeats():
    sets = [normal(120, seed=i) for i in range(3)]

    assert fidelity(*sets) == fidelity(*sets)
    assert fidelity(*sets) != fidelity(*sets, seed=1)


def test_constant_features_give_0_not_nan():
    result = fidelity(*[np.zeros((20, 4), dtype=np.float32)] * 3)

    assert result["synthetic_to_reserve"]["kid"] == 0.0
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(("position", "name"), list(enumerate(["reserve", "train", "synthetic"])))
def test_too_few_images_are_refused(position, name):
    sets = [normal(20), normal(20), normal(20)]
    sets[position] = normal(19)

    with pytest.raises(InputError, match=f"expected at least 20 {name} images, received 19"):
        fidelity(*sets)


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


def plain_overlap(real, synthetic, k) -> Overlap:
    """Term by term, from the papers' definitions."""

    def distance(x, y) -> float:
        return float(np.sqrt(((x.astype(np.float64) - y) ** 2).sum()))

    def reach(xs, i) -> float:
        return sorted(distance(xs[i], xs[j]) for j in range(len(xs)) if j != i)[k - 1]

    of_real = [reach(real, i) for i in range(len(real))]
    of_synthetic = [reach(synthetic, j) for j in range(len(synthetic))]
    inside = [[distance(x, y) < of_real[i] for y in synthetic] for i, x in enumerate(real)]
    return Overlap(
        precision=np.mean([any(row[j] for row in inside) for j in range(len(synthetic))]),
        recall=np.mean(
            [any(distance(x, y) < of_synthetic[j] for j, y in enumerate(synthetic)) for x in real]
        ),
        density=np.sum(inside) / k / len(synthetic),
        coverage=np.mean([any(row) for row in inside]),
    )


@pytest.mark.parametrize(("n", "m", "k"), [(20, 20, 5), (25, 31, 3), (12, 9, 1)])
def test_overlap_agrees_with_plain_loops(n, m, k):
    real, synthetic = normal(n, seed=1, width=3), normal(m, 0.7, seed=2, width=3)

    result = overlap(real, synthetic, k)

    assert asdict(result) == pytest.approx(asdict(plain_overlap(real, synthetic, k)))


def test_surroundings_reach_to_images_of_other_groups():
    """Each image eight times over: as one group they are as good as one."""
    real, synthetic = normal(40, seed=1, width=3), normal(40, 0.7, seed=2, width=3)
    times = np.repeat(np.arange(40), 8)
    slices = real[times] + 1e-9 * normal(320, seed=3, width=3)

    grouped = overlap(synthetic, slices, 5, synthetic_groups=times)
    assert grouped.recall > overlap(synthetic, slices, 5).recall + 0.3
    assert grouped.recall == pytest.approx(overlap(synthetic, real, 1).recall)
    assert overlap(slices, synthetic, 5, times).precision == pytest.approx(
        overlap(real, synthetic, 1).precision
    )


def test_overlap_of_too_few_images_outside_a_group_is_refused():
    real = normal(24, seed=1)
    with pytest.raises(InputError, match="5 images outside the largest group, received 4"):
        overlap(real, real, real_groups=np.maximum(np.arange(24), 19))


def test_overlap_tells_a_collapse_from_a_shift():
    real = normal(200, seed=1, width=4)
    alike = overlap(real, normal(200, seed=2, width=4))
    collapsed = overlap(real, real[:1] + 0.01 * normal(200, seed=3, width=4))
    shifted = overlap(real, normal(200, 20.0, seed=2, width=4))

    assert min(alike.precision, alike.recall) > 0.7
    assert alike.density == pytest.approx(1, abs=0.2)
    assert alike.coverage > 0.85
    assert collapsed.precision == 1
    assert collapsed.recall < 0.1
    assert collapsed.coverage < 0.1
    assert asdict(shifted) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_all_sets_are_compared_in_equal_numbers():
    result = fidelity(normal(90, seed=1), normal(60, seed=2), normal(75, seed=3))

    assert result["compared"] == 60
    for name in ("synthetic_to_reserve", "train_to_reserve"):
        assert result[name]["fid"] > 0
        assert 0 < result[name]["recall"] <= 1


def test_frechet_distance_of_fewer_images_than_features_is_left_out():
    result = fidelity(*(normal(30, seed=i, width=40) for i in range(3)))

    assert result["synthetic_to_reserve"]["fid"] is None


def test_classes_are_compared_apart_and_small_ones_say_why_not():
    labels = np.repeat([0, 1, 2], [40, 40, 10])
    sets = {name: normal(90, seed=i) for i, name in enumerate(["reserve", "train", "synthetic"])}
    sets["synthetic"][labels == 1] += 5

    result = fidelity_by_class(sets, dict.fromkeys(sets, labels), ["a", "b", "c"])

    assert result["synthetic_to_reserve"] == fidelity(*sets.values())["synthetic_to_reserve"]
    near, far = (result["per_class"][name]["synthetic_to_reserve"] for name in "ab")
    assert near["kid"] < 1 < far["kid"]
    assert far["precision"] == 0
    assert "at least 20 reserve images, received 10" in result["per_class"]["c"]["not_computed"]


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

    with pytest.raises(InputError, match="expected classes of real images that lie apart"):
        class_distances(features, labels, "ab")
