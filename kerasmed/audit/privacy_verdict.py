"""Whether a set holds copies, and whether the model reveals its training images: the answer."""

from collections.abc import Mapping
from typing import Any

from scipy.stats import binomtest

from kerasmed.audit.rules import (
    COPIES_BY_CHANCE,
    COPIES_IF_MEMORISED,
    COPIES_TO_NOTICE,
    COPYING,
    MEMBERSHIP_REVEALED,
    NOTICED,
    PRIVATE_RULE,
    Light,
    Verdict,
    percent,
)
from kerasmed.metrics.statistics import SIGNIFICANT


def judge_privacy(privacy: Mapping[str, Any], assumed: bool = False) -> Verdict:
    """Whether the set holds copies, and whether the model reveals its training images.

    Args:
        privacy: the content of ``privacy.json``.
        assumed: whether the images that the generator learned from are not known.
    """
    copies, membership = privacy["copies"], privacy["membership"]
    if "not_computed" in copies:
        return Verdict("private", "grey", f"Not answered: {copies['not_computed']}", PRIVATE_RULE)
    found, fresh, hidden = len(copies["found"]), copies["fresh"], _best_hidden(copies["power"])
    noticed = copies["noticed"][f"{COPIES_TO_NOTICE:g}"]
    answer = (
        f"{found} of {copies['images']} synthetic images are called copies of a training image, "
        f"and {fresh['copies']} of {fresh['images']} real images that the model was not trained on "
        f"(p {copies['p_value']:.2g}). The search finds at least {percent(hidden['found'])} of "
        f"planted copies (fewest: {hidden['alteration']}). It would notice {percent(noticed)} of "
        f"sets like this one with {percent(COPIES_TO_NOTICE)} copies."
    )
    if copies["filter"] is None:
        answer += " No copy filter was used while the images were drawn."
    else:
        drawn, rejected = copies["filter"]["drawn"], copies["filter"]["rejected"]
        answer += f" The copy filter rejected {rejected} of {drawn} draws."
    if "levels" in membership:
        attack = _declared_attack(membership)
        low, high = attack["interval"]
        answer += (
            " With the model itself, an attacker distinguishes training images from others with an "
            f"area under the curve of {attack['auc']:.2f} ({low:.2f} to {high:.2f}; 0.5 is "
            "guessing)."
        )
        if "base_size" in privacy:
            answer += (
                f" This was tested on the diffusion model, at {privacy['base_size']} pixels, and "
                "not on the upscaler."
            )
    answer += "".join(f" Not measured: {reason}" for reason in _not_measured(privacy))
    if "not_asked" in membership:
        answer += f" Not tested: {membership['not_asked']}"
    red = _reasons_for_red(copies)
    if "variations" in privacy:
        red.append(privacy["variations"])
    amber = _reasons_for_amber(copies, privacy, membership, assumed)
    light: Light = "red" if red else "amber" if amber else "green"
    if red + amber:
        answer = f"Why: {'; '.join(red + amber)}. {answer}"
    if light == "green" and noticed < NOTICED:
        light = "grey"
        answer += " The set, or the reserve, is too small for an answer."
    return Verdict("private", light, answer, PRIVATE_RULE)


def _reasons_for_red(copies: dict[str, Any]) -> list[str]:
    reasons = []
    for role, count in copies["identical"].items():
        if count:
            have = "image has" if count == 1 else "images have"
            reasons.append(f"{count} {have} the pixels of a real image of the role {role}")
    if _beyond_chance(len(copies["found"]), copies["images"]) and _beyond_real_images(copies):
        reasons.append(f"more than {percent(COPIES_BY_CHANCE)} of the set are copies")
    if _rejected(copies) > COPIES_IF_MEMORISED:
        reasons.append("the model has memorised its training images")
    return reasons


def _reasons_for_amber(
    copies: dict[str, Any], privacy: Mapping[str, Any], membership: dict[str, Any], assumed: bool
) -> list[str]:
    reasons = []
    if _beyond_real_images(copies):
        reasons.append("the set holds more copies than chance")
    if copies["filter"] is not None and _beyond_chance(
        copies["filter"]["rejected"], copies["filter"]["drawn"]
    ):
        reasons.append("the model draws copies more often than chance")
    if privacy["in_pixels"].get("c_t", 0.0) < COPYING:
        reasons.append("the images crowd around the training images")
    if assumed:
        reasons.append("it is only assumed that the generator did not learn from these images")
    if _not_measured(privacy):
        reasons.append("not everything could be measured")
    if "levels" in membership and _declared_attack(membership)["interval"][0] > MEMBERSHIP_REVEALED:
        reasons.append("the model reveals its training images")
    return reasons


def _not_measured(privacy: Mapping[str, Any]) -> list[str]:
    """Why a figure is missing."""
    figures = privacy["in_pixels"], privacy["membership"]
    return [of["not_computed"] for of in figures if "not_computed" in of]


def _rejected(copies: dict[str, Any]) -> float:
    """Fraction of the images that were drawn that the filter left out."""
    record = copies["filter"]
    return 0.0 if record is None else record["rejected"] / record["drawn"]


def _best_hidden(power: list[dict[str, Any]]) -> dict[str, Any]:
    return min(power, key=lambda row: row["found"])


def _declared_attack(membership: dict[str, Any]) -> dict[str, Any]:
    return next(level for level in membership["levels"] if level["timestep"] == "all")


def _beyond_real_images(copies: dict[str, Any]) -> bool:
    return bool(copies["p_value"] < SIGNIFICANT)


def _beyond_chance(copies: int, images: int) -> bool:
    return bool(binomtest(copies, images, COPIES_BY_CHANCE, "greater").pvalue < 0.05)
