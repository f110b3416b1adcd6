"""The traffic light of privacy."""

import re

import pytest

from kerasmed.audit.privacy_verdict import judge_privacy


def privacy(
    copies: int = 0,
    rejected: int | None = 0,
    identical: int = 0,
    p_value: float = 0.5,
    noticed: float = 0.99,
    c_t: float = 0.0,
    auc_low: float = 0.5,
) -> dict:
    return {
        "copies": {
            "filter": None if rejected is None else {"rejected": rejected, "drawn": 400},
            "images": 400,
            "found": [{}] * copies,
            "identical": {"train": list(range(identical)), "reserve": []},
            "fresh": {"images": 300, "copies": 1, "design_effect": 1.0},
            "p_value": p_value,
            "power": [
                {"alteration": "exact", "found": 1.0},
                {"alteration": "brightened", "found": 0.8},
            ],
            "noticed": {"0.01": noticed},
        },
        "in_pixels": {"c_t": c_t},
        "membership": {
            "levels": [
                {"timestep": 50, "auc": 0.7, "interval": [0.65, 0.9]},
                {"timestep": "all", "auc": 0.55, "interval": [auc_low, 0.7]},
            ]
        },
    }


@pytest.mark.parametrize(
    ("change", "light"),
    [
        ({}, "green"), ({"rejected": None}, "green"),
        ({"rejected": 4}, "green"), ({"rejected": 6}, "amber"),
        ({"rejected": 40}, "amber"), ({"rejected": 41}, "red"),
        ({"copies": 1}, "green"), ({"copies": 4, "p_value": 0.04}, "amber"),
        ({"copies": 6}, "green"),
        ({"copies": 6, "p_value": 0.04}, "red"),
        ({"identical": 1}, "red"), ({"c_t": -3.1}, "amber"), ({"auc_low": 0.61}, "amber"),
        ({"noticed": 0.94}, "grey"), ({"noticed": 0.94, "c_t": -3.1}, "amber"),
    ],
)  # fmt: skip
def test_privacy_goes_by_copies_and_then_by_what_the_model_gives_away(change, light):
    assert judge_privacy(privacy(**change)).light == light


def test_privacy_states_what_the_search_can_find():
    answer = judge_privacy(privacy(copies=2)).answer

    assert "2 of 400 synthetic images are called copies" in answer
    assert "1 of 300 real images" in answer
    assert "finds at least 80.0% of planted copies (fewest: brightened)" in answer
    assert "0.55 (0.50 to 0.70" in answer
    assert "No copy filter was used" in judge_privacy(privacy(rejected=None)).answer


def test_privacy_says_what_images_in_groups_count_as():
    of_patients = privacy()
    of_patients["copies"]["fresh"]["design_effect"] = 10.0

    answer = judge_privacy(of_patients).answer

    assert "1 of 300 real images that the model was not trained on, in groups that count as 30" in (
        answer
    )
    assert "in groups" not in judge_privacy(privacy()).answer


def test_privacy_begins_with_why_it_is_in_doubt():
    of_two = judge_privacy(privacy(identical=1, auc_low=0.61)).answer

    assert of_two.startswith(
        "Why: 1 image has the pixels of a real image of the role train; the model reveals its "
        "training images. 0 of 400"
    )
    assert judge_privacy(privacy()).answer.startswith("0 of 400")


@pytest.mark.parametrize(
    ("real", "start"),
    [
        (240, r"For an answer, leave about \d+ more real images to the role test and draw about "),
        (900, r"For an answer, draw about \d\d0 synthetic images\. 0 of 400"),
        (9, "An answer needs many more real images"),
    ],
)
def test_grey_says_how_many_images_would_give_an_answer(real, start):
    few = privacy(noticed=0.0)
    few["copies"]["fresh"] = {"images": real, "copies": 0, "design_effect": 1.0}
    assert re.match(start, judge_privacy(few).answer)


@pytest.mark.parametrize("figure", ["in_pixels", "membership"])
def test_privacy_is_not_green_where_a_figure_could_not_be_measured(figure):
    verdict = judge_privacy({**privacy(), figure: {"not_computed": "too few images."}})

    assert verdict.light == "amber"
    assert verdict.answer.startswith("Why: not everything could be measured. ")
    assert "Not measured: too few images." in verdict.answer


def test_privacy_without_a_search_for_copies_goes_by_the_rest():
    no_search = {"copies": {"not_computed": "too few."}}

    assert judge_privacy({**privacy(), **no_search}).light == "grey"
    assert judge_privacy({**privacy(), **no_search}, assumed=True).light == "grey"
    revealed = judge_privacy({**privacy(auc_low=0.61), **no_search})
    assert revealed.light == "amber"
    assert revealed.answer.startswith(
        "Why: the model reveals its training images. Copies were not searched for: too few. With"
    )
    variations = {"variations": "each image is a variation of a training image"}
    assert judge_privacy({**privacy(), **no_search, **variations}).light == "red"
