"""The three answers of a study, each with a traffic light and the rule behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest

Light = Literal["green", "amber", "red", "grey"]
USEFUL, BARELY_USEFUL = 0.95, 0.85
FAITHFUL, BARELY_FAITHFUL = 0.8, 0.5
NEAR, BARELY_NEAR = 0.2, 0.5
# Fraction of draws that may be copies before a model counts as one that copies.
COPIES_BY_CHANCE = 0.005
# Area under the curve above which the model reveals its training images.
MEMBERSHIP_REVEALED = 0.6
# A model that copies more often has memorised its training images.
COPIES_IF_MEMORISED = 0.1
# Fraction of plain copies, planted in the set, that the search must find.
POWER = 0.9
COPYING = -3.0


@dataclass(frozen=True)
class Verdict:
    """One answer."""

    question: Literal["useful", "faithful", "private"]
    """Whether the synthetic set is that."""
    light: Light
    """Its traffic light; grey where it could not be answered."""
    answer: str
    """Sentences with the numbers."""
    rule: str
    """The rule for each light."""


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"


_BY_CHANCE = f"{_percent(COPIES_BY_CHANCE)} (binomial test, 5%)"
_USEFUL_RULE = (
    "The accuracy of CNNs trained on synthetic images alone, over that of the same CNNs trained on "
    "the training images of the diffusion model; the mean over the networks. Green from "
    f"{USEFUL:.2f}, amber from {BARELY_USEFUL:.2f}. A network that does not beat guessing when it "
    "is trained on real images is left out: the 95% interval of its accuracy, the mean over the "
    "seeds, must lie above the fraction of the most frequent class. Red also where one of the "
    "others does not beat guessing when trained on synthetic images."
)
_FAITHFUL_RULE = (
    "First, precision and recall in the features of a CNN. Each is divided by that of the real "
    "training images against the same reserve images, and the lesser of the two counts: green from "
    f"{FAITHFUL:.1f}, amber from {BARELY_FAITHFUL:.1f}. Second, the kernel distance of synthetic "
    "images to reserve images of the same class, over that between two classes of real images, the "
    "mean over the classes, less the same figure of the real training images: green up to "
    f"{NEAR:.2f}, amber up to {BARELY_NEAR:.2f}. The worse of both lights holds."
)
_PRIVATE_RULE = (
    f"Red: more than {_BY_CHANCE} of the set are copies of training images, or more than "
    f"{_percent(COPIES_IF_MEMORISED)} of the images that were drawn. Amber: the set holds a copy; "
    f"or more than {_BY_CHANCE} of the images that were drawn were copies; or the synthetic images "
    f"crowd around the training images (C_T in pixels below {COPYING:g}); or the loss of the model "
    "tells training images from others (95% interval of the area under the curve above "
    f"{MEMBERSHIP_REVEALED}, at the timestep where its lower end is greatest); or one of these "
    f"could not be measured; or the search finds less than {_percent(POWER)} of plain copies that "
    "are planted. Green: none of these. No light is a proof of privacy."
)


def verdicts(
    metrics: list[dict[str, Any]],
    comparisons: list[dict[str, Any]],
    fidelity: Mapping[str, Any],
    privacy: Mapping[str, Any],
) -> list[Verdict]:
    """The three answers from the results in ``evaluation/``: the JSON of the same names."""
    return [
        judge_usefulness(metrics, comparisons),
        judge_fidelity(fidelity["in_features"]),
        judge_privacy(privacy),
    ]


def judge_usefulness(metrics: list[dict[str, Any]], comparisons: list[dict[str, Any]]) -> Verdict:
    """Whether CNNs trained on synthetic images do as well as on the real training images."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in metrics:
        if row["precision"] == "fp32" and row["variant"] is None:
            rows.setdefault((row["backbone"], row["trained_on"]), []).append(row)
    backbones = [b for b, regime in rows if regime == "real" and (b, "synthetic") in rows]
    if not backbones:
        answer = "Not answered: no CNN was trained on real and on synthetic images."
        return Verdict("useful", "grey", answer, _USEFUL_RULE)
    lowest = {
        key: _mean([row["accuracy_ci95"][0] for row in of_key]) for key, of_key in rows.items()
    }
    confusion = np.array(metrics[0]["confusion"])
    guessing = float(confusion.sum(axis=1).max() / confusion.sum())
    learned = [b for b in backbones if lowest[b, "real"] > guessing]
    if not learned:
        answer = (
            "Not answered: trained on real images, no CNN is better than always predicting the "
            f"most frequent class, {_percent(guessing)} of the test images (lower end of the best "
            f"CNN's interval: {_percent(max(lowest[b, 'real'] for b in backbones))})."
        )
        return Verdict("useful", "grey", answer, _USEFUL_RULE)
    real, synthetic = (
        np.array([_mean([row["accuracy"] for row in rows[b, regime]]) for b in learned])
        for regime in ("real", "synthetic")
    )
    ratio = float((synthetic / real).mean())
    answer = (
        "Trained on synthetic images alone, CNNs classify "
        f"{_percent(synthetic.mean())} of the real test images correctly; trained on the training "
        f"images of the diffusion model, {_percent(real.mean())}: a ratio of {ratio:.2f}."
    )
    answer += _usefulness_by_network(comparisons, backbones, learned)
    light = _light(ratio, USEFUL, BARELY_USEFUL)
    guessers = [b for b in learned if lowest[b, "synthetic"] <= guessing]
    if guessers:
        light = "red"
        answer += (
            f" Trained on synthetic images, these do not beat guessing: {', '.join(guessers)}."
        )
    return Verdict("useful", light, answer, _USEFUL_RULE)


def _usefulness_by_network(
    comparisons: list[dict[str, Any]], backbones: list[str], learned: list[str]
) -> str:
    """The differences of each network, those that are left out, and the gain of both sets."""
    of_main_sets = [
        row for row in comparisons if row["backbone"] in learned and row["variants"] == [None, None]
    ]
    text = "".join(
        f" {row['backbone']}: {100 * row['difference']:+.1f} points "
        f"({100 * row['interval'][0]:+.1f} to {100 * row['interval'][1]:+.1f})."
        for row in of_main_sets
        if row["regimes"] == ["real", "synthetic"]
    )
    if len(learned) < len(backbones):
        left_out = ", ".join(b for b in backbones if b not in learned)
        text += f" Left out, since they do not beat guessing: {left_out}."
    added = [row for row in of_main_sets if row["regimes"] == ["real", "both"]]
    if added:
        better, worse = (
            sum(row["conclusion"] == conclusion for row in added)
            for conclusion in ("higher", "lower")
        )
        text += (
            f" Added to the real images, the synthetic ones raise the accuracy of {better} of "
            f"{len(added)} networks and lower that of {worse}, beyond the chance of the test "
            "images."
        )
    return text


def judge_fidelity(fidelity: Mapping[str, Any]) -> Verdict:
    """Whether the synthetic images look like real ones, and show as much variety.

    Args:
        fidelity: In the features of a CNN, see ``fidelity_by_class``.
    """
    for figures in (fidelity, fidelity.get("class_distances", {})):
        if "not_computed" in figures:
            answer = f"Not answered: {figures['not_computed']}"
            return Verdict("faithful", "grey", answer, _FAITHFUL_RULE)
    synthetic, real = fidelity["synthetic_to_reserve"], fidelity["train_to_reserve"]
    least = min(synthetic[key] / max(real[key], 1e-9) for key in ("precision", "recall"))
    distances = fidelity["class_distances"]
    answer = (
        f"{_percent(synthetic['precision'])} of the synthetic images lie among real ones (of other "
        f"real images {_percent(real['precision'])}), and {_percent(synthetic['recall'])} of the "
        f"real ones among synthetic ones ({_percent(real['recall'])}). Synthetic images of a class "
        f"are {distances['synthetic']:.2f} times as far from real ones of it as two real classes "
        f"are from each other (other real images {distances['train']:.2f} times)."
    )
    farther = distances["synthetic"] - distances["train"]
    lights = (
        _light(least, FAITHFUL, BARELY_FAITHFUL),
        _light(-farther, -NEAR, -BARELY_NEAR),
    )
    worst = max(lights, key=("green", "amber", "red").index)
    return Verdict("faithful", worst, answer, _FAITHFUL_RULE)


def judge_privacy(privacy: Mapping[str, Any]) -> Verdict:
    """Whether the set holds copies, and whether the model reveals its training images.

    Args:
        privacy: The content of ``privacy.json``.
    """
    copies, membership = privacy["copies"], privacy["membership"]
    if "not_computed" in copies:
        return Verdict("private", "grey", f"Not answered: {copies['not_computed']}", _PRIVATE_RULE)
    rejected = copies["rejected"] or 0
    kept = copies["drawn"] - rejected
    light: Light = "amber" if copies["found"] else "green"
    if (
        _beyond_chance(len(copies["found"]), kept)
        or rejected > COPIES_IF_MEMORISED * copies["drawn"]
    ):
        light = "red"
    left_out = f"{rejected} of {copies['drawn']} that were drawn were copies and were left out"
    if copies["rejected"] is None:
        left_out = "copies were not looked for while they were drawn"
    answer = (
        f"{len(copies['found'])} of {kept} synthetic images are copies of a training image; "
        f"{left_out}. Of copies planted in the set, {_percent(copies['power'][0]['found'])} are "
        "found."
    )
    if "levels" in membership:
        attack = _best_attack(membership)
        low, high = attack["interval"]
        answer += (
            " Whoever has the model itself tells training images from others with an area under "
            f"the curve of {attack['auc']:.2f} ({low:.2f} to {high:.2f}; timestep "
            f"{attack['timestep']}; 0.5 is guessing)."
        )
    reasons = _privacy_reasons(copies, privacy["in_pixels"], membership)
    if reasons:
        light = "amber" if light == "green" else light
        answer += f" Beware: {'; '.join(reasons)}."
    return Verdict("private", light, answer, _PRIVATE_RULE)


def _privacy_reasons(
    copies: dict[str, Any], crowding: dict[str, Any], membership: dict[str, Any]
) -> list[str]:
    """The reasons for a light that is not green, except a few copies in the set."""
    rejected, power = copies["rejected"] or 0, copies["power"][0]["found"]
    reasons = []
    if _beyond_chance(len(copies["found"]), copies["drawn"] - rejected):
        reasons.append("the set holds more copies than chance")
    if _beyond_chance(rejected, copies["drawn"]):
        reasons.append("the model draws copies more often than chance")
    if rejected > COPIES_IF_MEMORISED * copies["drawn"]:
        reasons.append("it has memorised its training images")
    if power < POWER:
        reasons.append(f"the search finds only {_percent(power)} of planted copies")
    if crowding.get("c_t", 0.0) < COPYING:
        reasons.append("the images crowd around the training images")
    reasons += [
        f"not everything could be measured ({figures['not_computed']})"
        for figures in (crowding, membership)
        if "not_computed" in figures
    ]
    if "levels" in membership and _best_attack(membership)["interval"][0] > MEMBERSHIP_REVEALED:
        reasons.append("the model reveals its training images")
    return reasons


def _best_attack(membership: dict[str, Any]) -> dict[str, Any]:
    return max(membership["levels"], key=lambda level: level["interval"][0])


def _beyond_chance(copies: int, images: int) -> bool:
    return bool(binomtest(copies, images, COPIES_BY_CHANCE, "greater").pvalue < 0.05)


def _light(value: float, green: float, amber: float) -> Light:
    return "green" if value >= green else "amber" if value >= amber else "red"


def _mean(values: list[float]) -> float:
    return float(np.mean(values))
