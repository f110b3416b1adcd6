"""Whether a set holds copies, and whether the model reveals its training images: the answer."""

from collections.abc import Mapping
from typing import Any

from scipy.stats import binomtest

from kerasmed.audit.copy_search import images_to_notice, independent_images
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
    copies = privacy["copies"]
    red = [privacy["variations"]] if "variations" in privacy else []
    amber = _given_away(privacy)
    if "not_computed" in copies:
        answer = f"Not answered: {copies['not_computed']}"
        if not red + amber:
            return Verdict("private", "grey", answer, PRIVATE_RULE)
        answer = f"Copies were not searched for: {copies['not_computed']}"
    else:
        answer = _search(copies)
        red += _reasons_for_red(copies)
        amber = [*_reasons_for_amber(copies), *amber]
    answer += _attack(privacy)
    if assumed:
        amber.append("it is only assumed that the generator did not learn from these images")
    not_measured = [
        figures["not_computed"]
        for figures in (privacy["in_pixels"], privacy["membership"])
        if "not_computed" in figures
    ]
    if not_measured:
        amber.append("not everything could be measured")
        answer += "".join(f" Not measured: {reason}" for reason in not_measured)
    light: Light = "red" if red else "amber" if amber else "green"
    if red + amber:
        answer = f"Why: {'; '.join(red + amber)}. {answer}"
    elif copies["noticed"][f"{COPIES_TO_NOTICE:g}"] < NOTICED:
        light = "grey"
        answer = f"{_what_is_needed(copies)} {answer}"
    return Verdict("private", light, answer, PRIVATE_RULE)


def _search(copies: Mapping[str, Any]) -> str:
    """What the search for copies found, and what it can find."""
    found, fresh, hidden = len(copies["found"]), copies["fresh"], _best_hidden(copies["power"])
    noticed = copies["noticed"][f"{COPIES_TO_NOTICE:g}"]
    independent = independent_images(fresh)
    in_groups = (
        f", in groups that count as {independent} images" if independent < fresh["images"] else ""
    )
    answer = (
        f"{found} of {copies['images']} synthetic images are called copies of a training image, "
        f"and {fresh['copies']} of {fresh['images']} real images that the model was not trained "
        f"on{in_groups} (p {copies['p_value']:.2g}). The search finds at least "
        f"{percent(hidden['found'])} of planted copies (fewest: {hidden['alteration']}). It would "
        f"notice {percent(noticed)} of sets like this one with {percent(COPIES_TO_NOTICE)} copies."
    )
    if copies["filter"] is None:
        return f"{answer} No copy filter was used while the images were drawn."
    drawn, rejected = copies["filter"]["drawn"], copies["filter"]["rejected"]
    return f"{answer} The copy filter rejected {rejected} of {drawn} draws."


def _what_is_needed(copies: Mapping[str, Any]) -> str:
    """How many more images would give an answer: synthetic ones alone if they suffice."""
    fresh, images = copies["fresh"], copies["images"]
    sensitivity = _best_hidden(copies["power"])["found"]
    for more_real in (False, True):
        needed = images_to_notice(
            fresh, COPIES_TO_NOTICE, images, sensitivity, NOTICED, (more_real, True)
        )
        if needed:
            more = needed[0] - fresh["images"]
            leave = f"leave about {_round(more)} more real images to the role test and "
            draw = f"draw about {_round(needed[1])} synthetic images."
            return f"For an answer, {leave if more else ''}{draw}"
    return "An answer needs many more real images that the model was not trained on."


def _round(count: int) -> str:
    """A number to two digits, such as 32,000."""
    return f"{float(f'{count:.2g}'):,.0f}"


def _attack(privacy: Mapping[str, Any]) -> str:
    """What an attacker learns from the model itself."""
    membership = privacy["membership"]
    if "not_asked" in membership:
        return f" Not tested: {membership['not_asked']}"
    if "levels" not in membership:
        return ""
    attack = _declared_attack(membership)
    low, high = attack["interval"]
    answer = (
        " With the model itself, an attacker distinguishes training images from others with an "
        f"area under the curve of {attack['auc']:.2f} ({low:.2f} to {high:.2f}; 0.5 is guessing)."
    )
    if "base_size" in privacy:
        answer += (
            " This was tested on the diffusion model, at "
            f"{privacy['base_size']} pixels, and not on the upscaler."
        )
    return answer


def _reasons_for_red(copies: dict[str, Any]) -> list[str]:
    reasons = []
    for role, positions in copies["identical"].items():
        if positions:
            have = "image has" if len(positions) == 1 else "images have"
            reasons.append(f"{len(positions)} {have} the pixels of a real image of the role {role}")
    if _beyond_chance(len(copies["found"]), copies["images"]) and _beyond_real_images(copies):
        reasons.append(f"more than {percent(COPIES_BY_CHANCE)} of the set are copies")
    if _rejected(copies) > COPIES_IF_MEMORISED:
        reasons.append("the model has memorised its training images")
    return reasons


def _reasons_for_amber(copies: dict[str, Any]) -> list[str]:
    reasons = []
    if _beyond_real_images(copies):
        reasons.append("the set holds more copies than chance")
    if copies["filter"] is not None and _beyond_chance(
        copies["filter"]["rejected"], copies["filter"]["drawn"]
    ):
        reasons.append("the model draws copies more often than chance")
    return reasons


def _given_away(privacy: Mapping[str, Any]) -> list[str]:
    """What speaks against the set besides copies."""
    reasons, membership = [], privacy["membership"]
    if privacy["in_pixels"].get("c_t", 0.0) < COPYING:
        reasons.append("the images crowd around the training images")
    if "levels" in membership and _declared_attack(membership)["interval"][0] > MEMBERSHIP_REVEALED:
        reasons.append("the model reveals its training images")
    return reasons


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
