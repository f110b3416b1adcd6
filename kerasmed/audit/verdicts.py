"""The three answers about a synthetic set, each with a traffic light and the rule behind it."""

from collections.abc import Iterable, Mapping
from typing import Any

from kerasmed.audit.privacy_verdict import judge_privacy
from kerasmed.audit.rules import (
    FAITHFUL_RULE,
    GROUPS_FOR_DISTANCES,
    HALF_MISSING,
    LABELLED,
    NEAR,
    REALISTIC,
    USEFUL,
    USEFUL_RULE,
    VARIED,
    Light,
    Verdict,
    percent,
)
from kerasmed.audit.tables import spaces_of
from kerasmed.audit.usefulness import NetworkUsefulness, Usefulness
from kerasmed.result_types import Estimate

_REASONS = {
    "realism": "some images look unlike real ones",
    "variety": "they show fewer kinds of images",
    "labels": "their labels agree less often with what they show",
    "distance": "images of a class lie farther from the real ones of that class",
}
# Width of an interval of a ratio that says nothing, such as that of a fraction near 0.
_ANYTHING = 100


def verdicts(
    usefulness: Usefulness,
    fidelity: Mapping[str, Any],
    privacy: Mapping[str, Any],
    assumed: bool = False,
) -> list[Verdict]:
    """The three answers from the results in ``evaluation/``: the JSON of the same names.

    Args:
        usefulness, fidelity, privacy: the contents of these files.
        assumed: whether it is only assumed that the generator did not learn from the images that
            the set is judged by.
    """
    return [
        judge_usefulness(usefulness, assumed),
        judge_fidelity(fidelity),
        judge_privacy(privacy, assumed),
    ]


def judge_usefulness(usefulness: Usefulness, assumed: bool = False) -> Verdict:
    """Whether CNNs trained on synthetic images do as well as on the real training images.

    Args:
        usefulness: the content of ``usefulness.json``.
        assumed: whether the images that the generator learned from are not known.
    """
    if "not_computed" in usefulness:
        answer = f"Not answered: {usefulness['not_computed']}"
        return Verdict("useful", "grey", answer, USEFUL_RULE)
    networks, guessing = usefulness["networks"], usefulness["guessing"]
    if not networks:
        answer = "Not answered: no CNN was trained on real and on synthetic images."
        return Verdict("useful", "grey", answer, USEFUL_RULE)
    learned = [network for network in networks if network["beats_guessing"]["real"]]
    if not learned:
        best = max(network["real"]["accuracy"]["interval"][0] for network in networks)
        answer = (
            "Not answered: trained on real images, no CNN is better than always predicting the "
            f"most frequent class, {percent(guessing)} of the test images (lower end of the best "
            f"CNN's interval: {percent(best)})."
        )
        return Verdict("useful", "grey", answer, USEFUL_RULE)
    ratio = usefulness["ratio"]
    real, synthetic = (
        sum(network[regime]["accuracy"]["value"] for network in learned) / len(learned)
        for regime in ("real", "synthetic")
    )
    answer = (
        f"Trained only on synthetic images, CNNs classify {percent(synthetic)} of the real test "
        "images correctly; trained on the training images of the diffusion model, "
        f"{percent(real)}: a ratio of {_with_interval(ratio)}."
    )
    light = USEFUL.light(ratio)
    if light == "grey":
        answer += _too_few(usefulness["groups"], "test images", "or too few seeds")
    one_seed = min(network["seeds"] for network in learned) == 1
    guessers = [n["backbone"] for n in learned if not n["beats_guessing"]["synthetic"]]
    if light == "green" and (one_seed or guessers or assumed):
        light = "amber"
    if one_seed:
        answer += " One seed each, so the spread between trainings is not known."
    if assumed:
        answer += (
            " It is only assumed that the generator did not learn from these images: name its "
            "training images."
        )
    if guessers:
        answer += f" Trained on synthetic images, these do not beat guessing: {_list(guessers)}."
    if len(learned) < len(networks):
        left_out = [n["backbone"] for n in networks if n not in learned]
        answer += f" Left out, because they do not beat guessing: {_list(left_out)}."
    answer += "".join(map(_by_class, learned))
    return Verdict("useful", light, answer, USEFUL_RULE)


def _by_class(network: NetworkUsefulness) -> str:
    """Balanced accuracy and sensitivities of one network."""
    real, synthetic = network["real"], network["synthetic"]
    classes = ", ".join(
        f"{name} {100 * synthetic['sensitivity'][name]:.0f}% ({100 * sensitivity:.0f}%)"
        for name, sensitivity in real["sensitivity"].items()
    )
    return (
        f" {network['backbone']}: balanced accuracy {percent(synthetic['balanced_accuracy'])} "
        f"(trained on real images {percent(real['balanced_accuracy'])}), by class {classes}."
    )


def judge_fidelity(fidelity: Mapping[str, Any]) -> Verdict:
    """Whether the synthetic images look like real ones, and show as much variety.

    Args:
        fidelity: the content of ``fidelity.json``. The first of its other networks decides, and
            without one the CNN of the study.
    """
    space, figures = next(iter(spaces_of(fidelity).items()))
    if "not_computed" in figures:
        answer = f"Not answered: {figures['not_computed']}"
        return Verdict("faithful", "grey", answer, FAITHFUL_RULE)
    synthetic, real = figures["synthetic_to_reserve"], figures["train_to_reserve"]
    answer = (
        f"{percent(synthetic['precision'])} of the synthetic images lie among real ones (other "
        f"real images: {percent(real['precision'])}): a ratio of "
        f"{_with_interval(figures['relative']['precision'])}."
    )
    lights = {"realism": REALISTIC.light(figures["relative"]["precision"])}
    measures = {"variety": _variety, "labels": _labels, "distance": _distance}
    for name, measure in measures.items():
        lights[name], sentences = measure(figures)
        answer += sentences
    light = _worst(list(lights.values()))
    if light in ("amber", "red"):
        reasons = [_REASONS[name] for name, of_figure in lights.items() if of_figure == light]
        answer = f"Why: {'; '.join(reasons)}. {answer}"
    if light == "grey":
        answer += _too_few(min(figures["groups"].values()), "reserve or training images")
    answer += f" In the {space}."
    if not fidelity["in_networks"]:
        light = "amber" if light == "green" else light
        answer += (
            " That CNN learned from images that are compared here, so these figures may be too "
            "good; set audit.extractors to another network."
        )
    return Verdict("faithful", light, answer, FAITHFUL_RULE)


def _variety(figures: Mapping[str, Any]) -> tuple[Light, str]:
    """Coverage of each class."""
    coverages: dict[str, Estimate] = {}
    lights: list[Light] = []
    unknown = ""
    for name, of_class in figures["per_class"].items():
        if "not_computed" in of_class:
            lights.append("grey")
            unknown += f" The variety of {name} is not known: {of_class['not_computed']}"
        else:
            coverages[name] = of_class["relative"]["coverage"]
            lights.append(VARIED.light(coverages[name]))
    if not coverages:
        return "grey", unknown
    worst = min(coverages, key=lambda name: coverages[name]["interval"][0])
    noticed = min(VARIED.chance_of_doubt(c, HALF_MISSING) for c in coverages.values())
    sentences = (
        f" Synthetic images come near {_with_interval(coverages[worst])} times as many real images "
        f"of a class as other real images do (class {worst}, the least certain). If half of the "
        f"kinds of images of a class were missing, {percent(1 - noticed)} of such studies would "
        "turn neither amber nor red."
    )
    return _worst(lights), sentences + unknown


def _labels(figures: Mapping[str, Any]) -> tuple[Light, str]:
    """Whether images show what their labels say."""
    if len(figures["per_class"]) == 1:
        return "green", ""
    labels = figures["labels"]
    if "not_computed" in labels:
        return "grey", f" {labels['not_computed']}"
    return LABELLED.light(labels["ratio"]), (
        " A classifier trained on reserve images agrees with the labels of "
        f"{percent(labels['synthetic'])} of the synthetic images (training images: "
        f"{percent(labels['train'])}): a ratio of "
        f"{_with_interval(labels['ratio'])}."
    )


def _distance(figures: Mapping[str, Any]) -> tuple[Light, str]:
    """Distance within the classes."""
    if len(figures["per_class"]) == 1:
        return "green", " With one class, distances have no scale and do not count."
    distances = figures["class_distances"]
    if "not_computed" in distances:
        return "grey", f" {distances['not_computed']}"
    excess = distances["excess"]
    low, high = excess["interval"]
    light = NEAR.light({"value": -excess["value"], "interval": [-high, -low]})
    if distances["fewest_groups"] < GROUPS_FOR_DISTANCES:
        light = "grey"
    synthetic, train = (round(distances[name], 2) + 0.0 for name in ("synthetic", "train"))
    return light, (
        " The distance of synthetic images to real images of their class is "
        f"{synthetic:.2f} times that between two real classes (other real images: {train:.2f} "
        f"times): a difference of {_with_interval(excess)}."
    )


def _worst(lights: Iterable[Light]) -> Light:
    return max(lights, key=("green", "grey", "amber", "red").index)


def _with_interval(estimate: Estimate) -> str:
    low, high = estimate["interval"]
    if high - low > _ANYTHING:
        return f"{estimate['value']:.2f} (it could be anything)"
    return f"{estimate['value']:.2f} ({low:.2f} to {high:.2f})"


def _too_few(groups: int, images: str, more: str = "") -> str:
    more = f", {more}" if more else ""
    return f" Too few groups for an answer: {groups} of {images}{more}."


def _list(names: list[str]) -> str:
    return ", ".join(names)
