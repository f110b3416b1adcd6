"""Membership inference from losses."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from kerasmed.errors import InputError
from kerasmed.metrics import membership


def losses(count: int, seed: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, (count, 2))


def membership_inference(members, others, levels, groups_of=1, **options) -> dict:
    """With so many neighbouring images in a group."""
    groups = (np.arange(len(losses_of)) // groups_of for losses_of in (members, others))
    return membership.membership_inference(members, others, levels, *groups, **options)


def test_area_is_that_of_scikit_learn():
    members, others = losses(60, 1, -0.7), losses(80, 2)

    result = membership_inference(members, others, [10, 20], samples=50)

    labels = np.repeat([1, 0], [60, 80])
    for column, row in enumerate(result["levels"][:2]):
        scores = -np.concatenate([members[:, column], others[:, column]])
        assert row["auc"] == pytest.approx(roc_auc_score(labels, scores))
        assert row["interval"][0] < row["auc"] < row["interval"][1]
    assert [row["timestep"] for row in result["levels"]] == [10, 20, "all"]
    assert json.loads(json.dumps(result)) == result


def test_members_that_are_restored_best_are_all_found():
    result = membership_inference(losses(30, 1, -50), losses(200, 2), [1, 2], samples=50)

    assert {(row["auc"], row["true_positives"]) for row in result["levels"]} == {(1.0, 1.0)}


@pytest.mark.parametrize("count", [100, 101, 200, 500])
def test_one_percent_of_false_positives_is_allowed(count):
    others = np.arange(count, dtype=float)[:, None]
    below = count // 100  # this many others

    def true_positives(loss: float) -> float:
        result = membership_inference(np.full((20, 1), loss), others, [1], samples=10)
        return result["levels"][0]["true_positives"]

    assert true_positives(below - 0.5) == 1
    assert true_positives(below + 0.5) == 0


def test_equal_losses_tell_nothing():
    result = membership_inference(losses(400, 1), losses(400, 2), [1, 2], samples=100)

    for row in result["levels"]:
        assert row["interval"][0] < 0.5 < row["interval"][1]
        assert row["true_positives"] < 0.05


def test_levels_together_tell_more_than_one():
    one, _, both = membership_inference(losses(500, 1, -0.8), losses(500, 2), [1, 2], samples=20)[
        "levels"
    ]

    assert both["auc"] > one["auc"] + 0.03


@pytest.mark.parametrize(("members", "others", "name"), [(19, 30, "training"), (30, 19, "other")])
def test_too_few_images_are_refused(members, others, name):
    with pytest.raises(InputError, match=f"at least 20 {name} images, received 19"):
        membership_inference(losses(members, 1), losses(others, 2), [1, 2])


def test_too_few_patients_are_refused():
    with pytest.raises(InputError, match=r"at least 5 groups.*received 4 of training images"):
        membership_inference(losses(40, 1), losses(60, 2), [1, 2], groups_of=10)


def test_images_of_one_patient_are_not_evidence_of_their_own():
    # Twelve patients a side, whose images are easy or hard together; nothing was learned.
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        members, others = (
            np.repeat(rng.normal(size=(12, 1)), 30, axis=0) + 0.2 * rng.normal(size=(360, 1))
            for _ in range(2)
        )
        result = membership_inference(members, others, [1], groups_of=30, samples=200)
        low, high = result["levels"][0]["interval"]
        covered += low < 0.5 < high
    assert result["groups"] == [12, 12]
    assert covered >= 34
