"""The traffic lights."""

import pytest

from kerasmed.audit.verdicts import judge_fidelity, judge_privacy, judge_usefulness


def networks(real: float, synthetic: float, low: float = 0.6, name: str = "A") -> list[dict]:
    return [
        {
            "backbone": name,
            "trained_on": trained_on,
            "variant": None,
            "precision": "fp32",
            "accuracy": accuracy,
            "accuracy_ci95": [low, 0.9],
            "confusion": [[40, 10], [10, 40]],
        }
        for trained_on, accuracy in (("real", real), ("synthetic", synthetic))
    ]


@pytest.mark.parametrize(
    ("synthetic", "light"), [(0.76, "green"), (0.75, "amber"), (0.68, "amber"), (0.67, "red")]
)
def test_usefulness_goes_by_the_ratio(synthetic, light):
    verdict = judge_usefulness(networks(0.8, synthetic), [])

    assert verdict.light == light
    assert f"{100 * synthetic:.1f}%" in verdict.answer


def test_usefulness_takes_the_mean_over_seeds_and_networks():
    metrics = networks(0.8, 0.8) + networks(0.8, 0.6) + networks(0.9, 0.63, name="B")

    assert "ratio of 0.79" in judge_usefulness(metrics, []).answer


def test_usefulness_is_not_answered_by_networks_that_guess():
    guessing = networks(0.52, 0.52, low=0.5, name="Guesser")

    verdict = judge_usefulness(guessing, [])
    assert verdict.light == "grey"
    assert "50.0% of the test images" in verdict.answer
    verdict = judge_usefulness(guessing + networks(0.8, 0.68), [])
    assert (verdict.light, "Left out" in verdict.answer) == ("amber", True)
    assert "Guesser" in verdict.answer
    assert "ratio of 0.85" in verdict.answer


def test_usefulness_asks_the_interval_over_all_seeds():
    metrics = networks(0.52, 0.52, low=0.49) + networks(0.6, 0.6, low=0.55)

    assert judge_usefulness(metrics, []).light == "green"


def test_usefulness_is_red_where_synthetic_images_teach_nothing():
    metrics = networks(0.84, 0.8, low=0.81)
    metrics[1]["accuracy_ci95"] = [0.5, 0.84]

    verdict = judge_usefulness(metrics, [])
    assert verdict.light == "red"
    assert "do not beat guessing: A" in verdict.answer


def test_usefulness_gives_the_interval_of_the_difference():
    row = {
        "backbone": "A",
        "regimes": ["real", "synthetic"],
        "variants": [None, None],
        "difference": -0.01,
        "interval": [-0.03, 0.01],
    }
    assert "A: -1.0 points (-3.0 to +1.0)" in judge_usefulness(networks(0.8, 0.79), [row]).answer


def test_usefulness_counts_networks_that_gain_beyond_chance():
    added = [
        {
            "backbone": name,
            "regimes": ["real", regime],
            "variants": [None, None],
            "conclusion": "higher",
            "difference": 0.1,
            "interval": [0.05, 0.15],
        }
        for name in ("A", "Guesser")
        for regime in ("synthetic", "both")
    ]
    metrics = networks(0.8, 0.8) + networks(0.52, 0.52, low=0.5, name="Guesser")

    answer = judge_usefulness(metrics, added).answer
    assert "raise the accuracy of 1 of 1" in answer
    assert "Guesser: +10" not in answer


def test_usefulness_without_real_images_is_not_answered():
    assert judge_usefulness(networks(0.8, 0.8)[1:], []).light == "grey"


def faithful(precision: float, recall: float, distance: float = 0.1) -> dict:
    return {
        "synthetic_to_reserve": {"precision": precision, "recall": recall},
        "train_to_reserve": {"precision": 0.9, "recall": 0.9},
        "class_distances": {"synthetic": distance + 0.25, "train": 0.25},
    }


@pytest.mark.parametrize(
    ("precision", "recall", "light"),
    [(0.75, 0.75, "green"), (0.9, 0.6, "amber"), (0.6, 0.9, "amber"), (0.9, 0.4, "red")],
)
def test_fidelity_goes_by_the_lesser_of_precision_and_recall(precision, recall, light):
    assert judge_fidelity(faithful(precision, recall)).light == light


@pytest.mark.parametrize(
    ("distance", "light"), [(0.2, "green"), (0.21, "amber"), (0.5, "amber"), (0.51, "red")]
)
def test_fidelity_goes_by_the_distance_within_classes_too(distance, light):
    assert judge_fidelity(faithful(0.9, 0.9, distance)).light == light
    assert judge_fidelity(faithful(0.1, 0.9, distance)).light == "red"


def test_fidelity_that_was_not_computed_is_not_answered():
    verdict = judge_fidelity({"not_computed": "too few."})

    assert (verdict.light, "too few" in verdict.answer) == ("grey", True)
    fidelity = {**faithful(0.9, 0.9), "class_distances": {"not_computed": "too few."}}
    assert judge_fidelity(fidelity).light == "grey"


def privacy(
    copies: int = 0,
    rejected: int | None = 0,
    c_t: float = 0.0,
    auc_low: float = 0.5,
    power: float = 1.0,
) -> dict:
    return {
        "copies": {
            "found": [{}] * copies,
            "rejected": rejected,
            "drawn": 400,
            "power": [{"alteration": "exact", "found": power}],
        },
        "in_pixels": {"c_t": c_t},
        "membership": {
            "levels": [
                {"timestep": 50, "auc": 0.7, "interval": [auc_low, 0.9]},
                {"timestep": "all", "auc": 0.55, "interval": [0.5, 0.6]},
            ]
        },
    }


def test_privacy_goes_by_the_timestep_that_tells_most():
    verdict = judge_privacy(privacy(auc_low=0.65))

    assert verdict.light == "amber"
    assert "0.70 (0.65 to 0.90; timestep 50" in verdict.answer


@pytest.mark.parametrize(
    ("change", "light"),
    [
        ({}, "green"), ({"rejected": 4}, "green"), ({"rejected": 6}, "amber"),
        ({"rejected": 40}, "amber"), ({"rejected": 41}, "red"),
        ({"copies": 1}, "amber"), ({"copies": 4}, "amber"), ({"copies": 6}, "red"),
        ({"c_t": -3.1}, "amber"), ({"auc_low": 0.61}, "amber"),
        ({"power": 0.9}, "green"), ({"power": 0.89}, "amber"),
    ],
)  # fmt: skip
def test_privacy_goes_by_copies_and_then_by_what_the_model_gives_away(change, light):
    assert judge_privacy(privacy(**change)).light == light


def test_privacy_says_so_where_copies_were_not_looked_for_while_drawing():
    verdict = judge_privacy(privacy(copies=6, rejected=None))

    assert verdict.light == "red"
    assert "6 of 400 synthetic images" in verdict.answer
    assert "copies were not looked for while they were drawn" in verdict.answer
    assert "left out" not in verdict.answer


@pytest.mark.parametrize("figure", ["in_pixels", "membership"])
def test_privacy_is_not_green_where_a_figure_could_not_be_measured(figure):
    verdict = judge_privacy({**privacy(), figure: {"not_computed": "too few images."}})

    assert (verdict.light, "too few images" in verdict.answer) == ("amber", True)


def test_privacy_without_a_search_for_copies_is_not_answered():
    without_search = {**privacy(), "copies": {"not_computed": "too few."}}

    assert judge_privacy(without_search).light == "grey"
