"""What a synthetic set is worth in real images, against curves whose truth is known."""

import numpy as np
import pytest
from scipy.stats import norm

from kerasmed.audit.worth import worth_of, worth_sentence

SIZES = (20, 50, 100, 200, 400, 800)
TRAIN = 100
NAMED = ("VGG16", "both", None)
GROUPS = np.arange(400) // 2


def accuracy(images: float) -> float:
    """The true curve: 65% with 20 images, 83% with 100, 89% with 400, 91% with 800."""
    return 0.95 - 1.3 / np.sqrt(images + 15)


def answers(chances, rng, spread=0.01, difficulty=None):
    """Right or wrong about each test image; patients and trainings differ."""
    difficulty = rng.normal(size=200) if difficulty is None else difficulty
    rows = []
    for chance in chances:
        wanted = np.clip(chance + rng.normal() * spread, 0.02, 0.98)
        # Patients differ in difficulty; the threshold keeps the wanted mean.
        mixed = 0.7 * np.repeat(difficulty, 2) + np.sqrt(1 - 0.49) * rng.normal(size=400)
        rows.append(mixed < norm.ppf(wanted))
    return np.array(rows, float)


def study(rng, worth: float, curve=accuracy, sizes=SIZES, trainings=3):
    """Answers of a learning curve, and of a use that is worth so many images."""
    difficulty = rng.normal(size=200)
    points = {n: answers([curve(n)] * trainings, rng, difficulty=difficulty) for n in sizes}
    use = answers([curve(TRAIN + worth)] * trainings, rng, difficulty=difficulty)
    return worth_of(points, TRAIN, use, GROUPS, 0, NAMED)


def test_the_interval_holds_the_truth_as_often_as_stated():
    rng = np.random.default_rng(0)
    held, repeats = 0, 120
    for _ in range(repeats):
        worth = study(rng, worth=150)
        assert worth["answer"] != "unknown"
        low, high = worth["interval"]
        held += low <= 150 and (high is None or high >= 150)
    assert held / repeats >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / repeats)


def test_a_set_that_is_worth_nothing_seldom_seems_to_be_worth_something():
    rng = np.random.default_rng(1)
    surely = sum(study(rng, worth=0)["interval"][0] > 0 for _ in range(80))
    assert surely / 80 <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / 80)


def test_a_harmful_set_is_worth_nothing():
    worth = study(np.random.default_rng(2), worth=-60)
    assert (worth["answer"], worth["images"]) == ("none", 0)
    assert worth["gap_closed"] < 0
    assert "worth no further real image (95% interval 0 to" in worth_sentence(worth)


def test_past_the_end_of_the_curve_there_is_no_number():
    worth = study(np.random.default_rng(3), worth=2e5)
    assert (worth["answer"], worth["images"]) == ("at least", 700)
    assert worth["interval"][1] is None
    assert "at least 700 further real images" in worth_sentence(worth)


def test_a_flat_curve_tells_nothing():
    def flat(images):
        return min(accuracy(images), accuracy(TRAIN))

    rng = np.random.default_rng(4)
    difficulty = rng.normal(size=200)
    points = {n: answers([flat(n)] * 3, rng, difficulty=difficulty) for n in SIZES}
    use = answers([0.9] * 3, rng, difficulty=difficulty)
    worth = worth_of(points, TRAIN, use, GROUPS, 0, NAMED)

    assert worth["answer"] == "unknown"
    assert "images" not in worth
    assert "do not raise the accuracy beyond chance" in worth_sentence(worth)


@pytest.mark.parametrize(
    ("sizes", "trainings", "reason"),
    [((20, 50, 100), 3, "the role reserve is empty"), (SIZES, 1, "each size was trained once")],
)
def test_where_it_cannot_be_told_the_reason_is_given(sizes, trainings, reason):
    worth = study(np.random.default_rng(5), 300, sizes=sizes, trainings=trainings)
    assert worth["answer"] == "unknown"
    assert reason in worth["reason"]


def test_the_curve_never_falls_and_is_in_the_order_of_its_sizes():
    rng = np.random.default_rng(6)
    points = {n: answers([0.8] * 2, rng, spread=0.05) for n in reversed(SIZES)}
    worth = worth_of(points, TRAIN, answers([0.7] * 2, rng), GROUPS, 0, NAMED)

    assert [point["images"] for point in worth["curve"]] == list(SIZES)
    fitted = [point["fitted"] for point in worth["curve"]]
    assert fitted == sorted(fitted)


def test_fewer_groups_give_a_wider_interval():
    rng = np.random.default_rng(7)
    difficulty = rng.normal(size=200)
    points = {n: answers([accuracy(n)] * 3, rng, difficulty=difficulty) for n in SIZES}
    use = answers([accuracy(250)] * 3, rng, difficulty=difficulty)
    widths = [
        np.ptp(worth_of(points, TRAIN, use, groups, 0, NAMED)["accuracy"]["interval"])
        for groups in (np.arange(400), GROUPS)
    ]
    assert widths[0] < widths[1]
