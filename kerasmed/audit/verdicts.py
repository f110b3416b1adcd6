"""The three answers of a study, each with a traffic light and the rule behind it."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest

Light = Literal["green", "amber", "red", "grey"]
USEFUL, BARELY_USEFUL = 0.95, 0.85
FAITHFUL, BARELY_FAITHFUL = 0.8, 0.5
NEAR, BARELY_NEAR = 0.2, 0.5
# Share of draws that may be copies before a model counts as one that copies.
COPIES_BY_CHANCE = 0.005
TOLD_APART = 0.6
# A model that copies so often is one that knows its images by heart.
COPIES_BY_HEART = 0.1
# Share of plain copies, planted in the set, that the search must find.
POWER = 0.9
COPYING = -3.0


@dataclass(frozen=True)
class Verdict:
    """One answer.

    Attributes:
        question: "useful", "faithful" or "private".
        light: grey where it could not be answered.
        answer: a sentence with the numbers.
        rule: what makes which light.
    """

    question: str
    light: Light
    answer: str
    rule: str


def verdicts(
    metrics: list[dict[str, Any]],
    comparisons: list[dict[str, Any]],
    fidelity: dict[str, Any],
    privacy: dict[str, Any],
) -> list[Verdict]:
    """The answers from what the stages found: the JSON of the same names in ``evaluation/``."""
    return [
        judge_usefulness(metrics, comparisons),
        judge_fidelity(fidelity["in_features"]),
        judge_privacy(privacy),
    ]


def judge_usefulness(metrics: list[dict[str, Any]], comparisons: list[dict[str, Any]]) -> Verdict:
    """Whether CNNs trained on synthetic images do as well as on the real ones behind them."""
    rule = (
        "The accuracy of CNNs trained on synthetic images alone, over that of the same CNNs "
        "trained on the real images that the diffusion model learned from; the mean over the "
        f"networks. Green from {USEFUL:.2f}, amber from {BARELY_USEFUL:.2f}. A network that does "
        "not beat guessing when it is trained on real images is left out: the 95% interval of its "
        "accuracy, the mean over the seeds, must lie above the share of the commonest class. Red "
        "also where one of the others does not beat guessing when trained on synthetic images."
    )
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in metrics:
        if row["precision"] == "fp32" and row["variant"] is None:
            cells.setdefault((row["backbone"], row["trained_on"]), []).append(row)
    backbones = [b for b, regime in cells if regime == "real" and (b, "synthetic") in cells]
    if not backbones:
        answer = "Not answered: no CNN was trained on real and on synthetic images."
        return Verdict("useful", "grey", answer, rule)
    lowest = {key: _mean([row["accuracy_ci95"][0] for row in rows]) for key, rows in cells.items()}
    confusion = np.array(metrics[0]["confusion"])
    guessing = float(confusion.sum(axis=1).max() / confusion.sum())
    learned = [each for each in backbones if lowest[each, "real"] > guessing]
    if not learned:
        answer = (
            "Not answered: trained on real images, no CNN is better than naming always the "
            f"commonest class, {_percent(guessing)} of the test images (lower end of the best "
            f"one's interval: {_percent(max(lowest[each, 'real'] for each in backbones))})."
        )
        return Verdict("useful", "grey", answer, rule)
    real, synthetic = (
        np.array([_mean([row["accuracy"] for row in cells[b, regime]]) for b in learned])
        for regime in ("real", "synthetic")
    )
    ratio = float((synthetic / real).mean())
    answer = (
        f"Trained on synthetic images alone, CNNs name {_percent(synthetic.mean())} of unseen real "
        f"images rightly; trained on the real images behind them, {_percent(real.mean())}: a ratio "
        f"of {ratio:.2f}."
    )
    main = [
        row for row in comparisons if row["backbone"] in learned and row["variants"] == [None, None]
    ]
    answer += "".join(
        f" {row['backbone']}: {100 * row['difference']:+.1f} points "
        f"({100 * row['interval'][0]:+.1f} to {100 * row['interval'][1]:+.1f})."
        for row in main
        if row["regimes"] == ["real", "synthetic"]
    )
    if len(learned) < len(backbones):
        left_out = ", ".join(each for each in backbones if each not in learned)
        answer += f" Left out, since they do not beat guessing: {left_out}."
    added = [row for row in main if row["regimes"] == ["real", "both"]]
    if added:
        better, worse = (
            sum(row["conclusion"] == conclusion for row in added)
            for conclusion in ("higher", "lower")
        )
        answer += (
            f" Added to the real images, the synthetic ones raise the accuracy of {better} of "
            f"{len(added)} networks and lower that of {worse}, beyond the chance of the test "
            "images."
        )
    light = _light(ratio, USEFUL, BARELY_USEFUL)
    guessers = [each for each in learned if lowest[each, "synthetic"] <= guessing]
    if guessers:
        light = "red"
        answer += (
            f" Trained on synthetic images, these do not beat guessing: {', '.join(guessers)}."
        )
    return Verdict("useful", light, answer, rule)


def judge_fidelity(found: dict[str, Any]) -> Verdict:
    """Whether the synthetic images look like real ones, and show as much variety."""
    rule = (
        "Precision and recall in the features of a CNN, each over that of the real training "
        "images against the same held-out ones, the lesser of the two: green from "
        f"{FAITHFUL:.1f}, amber from {BARELY_FAITHFUL:.1f}. And the kernel distance of synthetic "
        "to held-out real images of the same class, over that between two classes of real ones, "
        "the mean over the classes, less the same of the real training images: green up to "
        f"{NEAR:.2f}, amber up to {BARELY_NEAR:.2f}. The worse of both holds."
    )
    for part in (found, found.get("class_distances", {})):
        if "not_computed" in part:
            return Verdict("faithful", "grey", f"Not answered: {part['not_computed']}", rule)
    drawn, real = found["generated_to_held_out"], found["seen_to_held_out"]
    least = min(drawn[key] / max(real[key], 1e-9) for key in ("precision", "recall"))
    distances = found["class_distances"]
    answer = (
        f"{_percent(drawn['precision'])} of the synthetic images lie among real ones (of other "
        f"real images {_percent(real['precision'])}), and {_percent(drawn['recall'])} of the real "
        f"ones among synthetic ones ({_percent(real['recall'])}). Synthetic images of a class are "
        f"{distances['generated']:.2f} times as far from real ones of it as two real classes are "
        f"from each other (other real images {distances['seen']:.2f} times)."
    )
    farther = distances["generated"] - distances["seen"]
    lights = (
        _light(least, FAITHFUL, BARELY_FAITHFUL),
        _light(-farther, -NEAR, -BARELY_NEAR),
    )
    return Verdict("faithful", max(lights, key=("green", "amber", "red").index), answer, rule)


def judge_privacy(found: dict[str, Any]) -> Verdict:
    """Whether the set holds copies, and whether the model gives away what it learned from."""
    by_chance = f"{_percent(COPIES_BY_CHANCE)} (binomial test, 5%)"
    rule = (
        f"Red: more than {by_chance} of the set are copies of training images, or more than "
        f"{_percent(COPIES_BY_HEART)} of what was drawn. Amber: the set holds a copy; or more than "
        f"{by_chance} of what was drawn were copies; or the synthetic images crowd around the "
        f"training images (C_T in pixels below {COPYING:g}); or the loss of the model tells "
        "training images from others (95% interval of the area under the curve above "
        f"{TOLD_APART}, at the timestep where its lower end is greatest); or one of these could "
        f"not be asked; or the search finds less than {_percent(POWER)} of plain copies that are "
        "planted. Green: none of these. No light is a proof of privacy."
    )
    copies, crowding, membership = (found[k] for k in ("copies", "in_pixels", "membership"))
    if "not_computed" in copies:
        return Verdict("private", "grey", f"Not answered: {copies['not_computed']}", rule)
    rejected, power = copies["rejected"] or 0, copies["power"][0]
    kept = copies["drawn"] - rejected
    light: Light = "amber" if copies["found"] else "green"
    reasons = []
    if _beyond_chance(len(copies["found"]), kept):
        light = "red"
        reasons.append("the set holds more copies than chance")
    if _beyond_chance(rejected, copies["drawn"]):
        reasons.append("the model draws copies more often than chance")
    if rejected > COPIES_BY_HEART * copies["drawn"]:
        light = "red"
        reasons.append("it knows its images by heart")
    if power["found"] < POWER:
        reasons.append(f"the search finds {_percent(power['found'])} of planted copies alone")
    if crowding.get("c_t", 0.0) < COPYING:
        reasons.append("the images crowd around the training images")
    reasons += [
        f"not all could be asked ({part['not_computed']})"
        for part in (crowding, membership)
        if "not_computed" in part
    ]
    left_out = f"{rejected} of {copies['drawn']} that were drawn were copies and were left out"
    if copies["rejected"] is None:
        left_out = "copies were not looked for while they were drawn"
    answer = (
        f"{len(copies['found'])} of {kept} synthetic images are copies of a training image; "
        f"{left_out}. Of copies planted in the set, {_percent(power['found'])} are found."
    )
    if "levels" in membership:
        attack = max(membership["levels"], key=lambda level: level["interval"][0])
        low, high = attack["interval"]
        if low > TOLD_APART:
            reasons.append("the model gives away what it learned from")
        answer += (
            " Whoever has the model itself tells training images from others with an area under "
            f"the curve of {attack['auc']:.2f} ({low:.2f} to {high:.2f}; timestep "
            f"{attack['timestep']}; 0.5 is guessing)."
        )
    if reasons:
        light = "amber" if light == "green" else light
        answer += f" Beware: {'; '.join(reasons)}."
    return Verdict("private", light, answer, rule)


def _beyond_chance(copies: int, images: int) -> bool:
    return bool(binomtest(copies, images, COPIES_BY_CHANCE, "greater").pvalue < 0.05)


def _light(value: float, green: float, amber: float) -> Light:
    return "green" if value >= green else "amber" if value >= amber else "red"


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
