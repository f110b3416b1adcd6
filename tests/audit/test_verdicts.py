"""The traffic lights."""

from typing import get_args

import numpy as np
import pytest
from scipy.stats import t

from kerasmed.audit.rules import HALF_MISSING, VARIED, Bar, Light, headline
from kerasmed.audit.verdicts import judge_fidelity, judge_usefulness


def estimate(value: float, half: float = 0.02) -> dict:
    return {"value": value, "interval": [value - half, value + half]}


@pytest.mark.parametrize(
    ("value", "half", "light"),
    [
        (0.92, 0.02, "green"), (0.91, 0.02, "amber"), (0.86, 0.02, "amber"), (0.8, 0.02, "red"),
        (0.86, 0.05, "amber"), (0.95, 0.2, "grey"), (0.75, 0.2, "grey"), (0.6, 0.2, "red"),
        (0.99, 0.0, "green"), (0.89, 0.0, "amber"),
    ],
)  # fmt: skip
def test_light_is_a_statement_about_the_interval(value, half, light):
    assert Bar(green=0.9, red=0.85, perfect=1.0).light(estimate(value, half)) == light


def test_rates_of_a_light_are_those_that_its_rule_names():
    """A truth at the limit of red is green in at most 2.5%; perfect is green or grey."""
    bar, rng = Bar(green=0.9, red=0.85, perfect=1.0), np.random.default_rng(0)

    def lights(truth: float, error: float) -> list[str]:
        half = t.ppf(0.975, 40) * error
        return [bar.light(estimate(value, half)) for value in rng.normal(truth, error, 2000)]

    for error in (0.01, 0.03, 0.1):
        assert lights(0.9, error).count("green") / 2000 < 0.035
    assert lights(1.0, 0.03).count("green") / 2000 > 0.8
    assert lights(1.0, 0.04).count("grey") > 0
    assert lights(1.0, 0.04).count("amber") < 20
    assert lights(1.0, 0.02).count("green") / 2000 == pytest.approx(
        bar.chance_of_green(estimate(1.0, 1.96 * 0.02), 1.0), abs=0.02
    )


def useful(ratio: dict, seeds: int = 3, beats: bool = True, synthetic_beats: bool = True) -> dict:
    tested = {
        "accuracy": estimate(0.8),
        "balanced_accuracy": 0.78,
        "sensitivity": {"benign": 0.9, "malignant": 0.66},
    }
    network = {
        "backbone": "A",
        "seeds": seeds,
        "real": tested,
        "synthetic": {**tested, "accuracy": estimate(0.7)},
        "ratio": ratio,
        "beats_guessing": {"real": beats, "synthetic": synthetic_beats},
    }
    result = {"groups": 40, "guessing": 0.5, "networks": [network]}
    return {**result, "ratio": ratio} if beats else result


@pytest.mark.parametrize(
    ("ratio", "light"),
    [(estimate(0.96), "green"), (estimate(0.88), "amber"), (estimate(0.8), "red"),
     (estimate(0.93, 0.15), "grey")],
)  # fmt: skip
def test_usefulness_goes_by_the_interval_of_the_ratio(ratio, light):
    verdict = judge_usefulness(useful(ratio))

    assert verdict.light == light
    low, high = ratio["interval"]
    assert "70.0% of the real test images" in verdict.answer
    assert f"a ratio of {ratio['value']:.2f} ({low:.2f} to {high:.2f})" in verdict.answer
    assert "balanced accuracy 78.0%" in verdict.answer
    assert "malignant 66% (66%)" in verdict.answer
    assert ("Too few groups" in verdict.answer) == (light == "grey")


def test_usefulness_of_one_seed_or_of_a_network_that_guesses_is_not_green():
    one_seed = judge_usefulness(useful(estimate(0.96), seeds=1))
    guesses = judge_usefulness(useful(estimate(0.96), synthetic_beats=False))

    assert (one_seed.light, "One seed each" in one_seed.answer) == ("amber", True)
    assert (guesses.light, "do not beat guessing: A" in guesses.answer) == ("amber", True)
    assert judge_usefulness(useful(estimate(0.7), seeds=1)).light == "red"


def test_usefulness_is_not_answered_by_networks_that_guess_or_without_real_images():
    verdict = judge_usefulness(useful(estimate(1.0), beats=False))

    assert verdict.light == "grey"
    assert "50.0% of the test images" in verdict.answer
    assert judge_usefulness({"groups": 9, "guessing": 0.5, "networks": []}).light == "grey"


def faithful(
    precision: dict | None = None,
    coverage: dict | None = None,
    excess: dict | None = None,
    labels: dict | None = None,
    fewest_groups: int = 20,
) -> dict:
    distances = {"kid": 0.1, "precision": 0.8, "recall": 0.7, "density": 1.0, "coverage": 0.9}
    figures = {
        "compared": 100,
        "groups": {"reserve": 90, "train": 40},
        "synthetic_to_reserve": distances,
        "train_to_reserve": distances,
        "relative": {"precision": precision or estimate(0.95), "coverage": estimate(0.5)},
        "per_class": {
            "a": {"relative": {"coverage": estimate(1.0)}},
            "b": {"relative": {"coverage": coverage or estimate(0.95)}},
        },
        "labels": {"synthetic": 0.9, "train": 0.95, "ratio": labels or estimate(0.95)},
        "class_distances": {
            "fewest_groups": fewest_groups, "synthetic": 0.1, "train": 0.0, "between": 1.0,
            "excess": excess or estimate(0.1),
        },
    }  # fmt: skip
    return {
        "features_of": "CNN",
        "in_features": {},
        "in_networks": {"MobileNet": figures},
        "in_pixels": {},
        "of_variants": {},
    }


@pytest.mark.parametrize(
    ("change", "light"),
    [
        ({}, "green"),
        ({"precision": estimate(0.7)}, "amber"), ({"precision": estimate(0.4)}, "red"),
        ({"coverage": estimate(0.7)}, "amber"), ({"coverage": estimate(0.4)}, "red"),
        ({"coverage": estimate(0.9, 0.3)}, "grey"),
        ({"coverage": estimate(0.9, 0.3), "precision": estimate(0.7)}, "amber"),
        ({"excess": estimate(0.3)}, "amber"), ({"excess": estimate(0.6)}, "red"),
        ({"excess": estimate(0.1, 0.3)}, "grey"), ({"fewest_groups": 19}, "grey"),
        ({"labels": estimate(0.8)}, "amber"), ({"labels": estimate(0.6)}, "red"),
        ({"labels": estimate(0.95, 0.3)}, "grey"),
    ],
)  # fmt: skip
def test_fidelity_goes_by_the_worst_of_realism_variety_labels_and_distance(change, light):
    verdict = judge_fidelity(faithful(**change))

    assert verdict.light == light
    assert "In the features of MobileNet." in verdict.answer
    assert ("Too few groups for an answer: 40" in verdict.answer) == (light == "grey")


def test_fidelity_says_first_what_decides():
    amber = judge_fidelity(faithful(labels=estimate(0.8), precision=estimate(0.7)))
    assert amber.answer.startswith(
        "Why: some images look unlike real ones; their labels agree less often with what they "
        "show. 80.0% of"
    )
    assert judge_fidelity(faithful()).answer.startswith("80.0% of")


def test_fidelity_names_the_worst_class_and_what_such_a_study_would_miss():
    answer = judge_fidelity(faithful(coverage=estimate(0.9, 0.1))).answer

    assert "0.90 (0.80 to 1.00) times as many real images" in answer
    assert "(class b, the least certain)" in answer
    missed = 1 - VARIED.chance_of_doubt(estimate(0.9, 0.1), HALF_MISSING)
    assert f"{100 * missed:.1f}% of such studies would turn neither amber nor red" in answer


def test_fidelity_in_features_that_learned_from_the_training_images_is_not_green():
    fidelity = faithful()
    fidelity["in_features"] = fidelity["in_networks"].pop("MobileNet")

    verdict = judge_fidelity(fidelity)

    assert verdict.light == "amber"
    assert "In the features of CNN. That CNN learned from images that are" in verdict.answer


def test_fidelity_that_was_not_computed_is_not_answered():
    fidelity = faithful()
    fidelity["in_networks"]["MobileNet"]["per_class"]["b"] = {"not_computed": "too few of b."}
    assert judge_fidelity(fidelity).light == "grey"
    assert "The variety of b is not known: too few of b." in judge_fidelity(fidelity).answer
    fidelity["in_networks"]["MobileNet"]["per_class"]["a"]["relative"]["coverage"] = estimate(0.1)
    assert judge_fidelity(fidelity).light == "red"

    fidelity["in_networks"]["MobileNet"] = {"not_computed": "too few."}
    verdict = judge_fidelity(fidelity)
    assert (verdict.light, "too few" in verdict.answer) == ("grey", True)


@pytest.mark.parametrize("truth", [0.5, 0.8, 0.9])
def test_chance_of_doubt_is_how_often_a_set_is_amber_or_red(truth):
    bar, rng, half = Bar(green=0.9, red=0.7, perfect=1.0), np.random.default_rng(0), 0.05
    values = rng.normal(truth, half / 1.96, 5000)
    lights = [bar.light(estimate(value, half)) for value in values if value + half < 0.9]
    below = len(lights) / len(values)
    assert set(lights) <= {"amber", "red"}
    assert bar.chance_of_doubt(estimate(0.9, half), truth) == pytest.approx(below, abs=0.02)
    assert bar.chance_of_doubt(estimate(0.9, 0.0), truth) == (truth < 0.9)


def test_interval_of_a_ratio_to_nothing_is_not_spelled_out():
    fidelity = faithful()
    relative = fidelity["in_networks"]["MobileNet"]["relative"]
    relative["precision"] = estimate(0.0, 4e7)
    verdict = judge_fidelity(fidelity)
    assert "a ratio of 0.00 (it could be anything)." in verdict.answer
    assert verdict.light == "grey"


@pytest.mark.parametrize("question", ["useful", "faithful", "private"])
def test_every_light_has_a_headline_of_its_own(question):
    headlines = {headline(question, light) for light in get_args(Light)}
    assert len(headlines) == 4
    assert all(text.endswith(".") for text in headlines)
