"""Distances of sets against plain loops and on known distributions."""

import json

import numpy as np
import pytest

from kerasmed.audit import fidelity as module
from kerasmed.audit.fidelity import fidelity_by_class
from kerasmed.errors import InputError
from kerasmed.metrics.kernel_distance import kernel_distance
from kerasmed.metrics.sample import Sample

SETS = ("reserve", "train", "synthetic")


def normal(count: int, shift: float = 0.0, seed: int = 0, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, width)).astype(np.float32)


def fidelity(reserve, train, synthetic, groups=None, seed=0) -> dict:
    sets = {"reserve": reserve, "train": train, "synthetic": synthetic}
    return module.fidelity(sets, groups, seed)


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


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.8, 1.9), (0.5, 0.8, 1.3)])
def test_interval_covers_and_is_about_as_wide_as_the_spread(shift, least, most):
    truth = kernel_distance(
        Sample("a", normal(3000, seed=1)), Sample("b", normal(3000, shift, seed=2))
    ).value
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


def patients(seed: int) -> np.ndarray:
    """Twelve images each of 20 patients, who differ more than their images: (240, 8)."""
    rng = np.random.default_rng(seed)
    return (0.8 * rng.normal(size=(20, 1, 8)) + 0.6 * rng.normal(size=(20, 12, 8))).reshape(-1, 8)


def test_fidelity_knows_the_patients():
    of_patient = np.arange(240) // 12
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


def test_training_images_judged_as_synthetic_score_1():
    """Of several images a patient: the sets are treated alike."""
    of_patient = np.arange(240) // 12
    groups = {"reserve": of_patient, "train": of_patient}
    labels = dict.fromkeys(SETS, np.tile([0, 1], 120))
    features = {"reserve": patients(0), "train": patients(1), "synthetic": patients(1)}
    for of_set in features.values():
        of_set[1::2] += 3

    result = fidelity_by_class(features, labels, "ab", groups)

    for of_class in (result, *result["per_class"].values()):
        assert of_class["relative"]["precision"]["value"] == pytest.approx(1)
        assert of_class["relative"]["coverage"]["value"] == pytest.approx(1)
    low, high = result["class_distances"]["excess"]["interval"]
    assert low < 0 < high


def test_relative_figures_have_intervals_that_hold_what_fresh_real_images_reach():
    held = 0
    for seed in range(30):
        sets = [normal(80, seed=3 * seed + i, width=4) for i in range(3)]
        relative = fidelity(*sets)["relative"]
        for figure in relative.values():
            low, high = figure["interval"]
            held += low <= 1 <= high
    assert held >= 55


def test_collapsed_set_has_little_variety_and_all_realism():
    real, train = normal(80, seed=1), normal(80, seed=2)

    relative = fidelity(real, train, train[:2].repeat(40, axis=0))["relative"]

    assert relative["precision"]["interval"][1] >= 1
    assert relative["coverage"]["interval"][1] < 0.5


def test_no_more_images_are_compared_than_asked_for():
    features = dict(
        zip(("reserve", "train", "synthetic"), (normal(40, seed=i) for i in range(3)), strict=True)
    )
    labels = dict.fromkeys(features, np.zeros(40, int))
    assert fidelity_by_class(features, labels, ["a"], most=25)["compared"] == 25
