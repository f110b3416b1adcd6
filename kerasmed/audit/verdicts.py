"""The three answers of a study, each with a traffic light and the rule behind it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scipy.stats import binomtest, norm

from kerasmed.audit.tables import spaces_of
from kerasmed.audit.usefulness import NetworkUsefulness, Usefulness
from kerasmed.metrics.statistics import SIGNIFICANT
from kerasmed.result_types import Estimate

Light = Literal["green", "amber", "red", "grey"]
# Fraction of draws that may be copies before a model counts as one that copies.
COPIES_BY_CHANCE = 0.005
# Area under the curve above which the model reveals its training images.
MEMBERSHIP_REVEALED = 0.6
# With fewer groups of a class the bias of a kernel distance is not known well enough.
GROUPS_FOR_DISTANCES = 20
# A model that copies more often has memorised its training images.
COPIES_IF_MEMORISED = 0.1
# Of sets with this fraction of copies, the test must notice so many.
COPIES_TO_NOTICE, NOTICED = 0.01, 0.95
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


@dataclass(frozen=True)
class Bar:
    """What the 95% interval of a figure must clear.

    Attributes:
        green: green where the whole interval is at least this.
        red: red where the whole interval is below it.
        perfect: what a set of real images reaches.
    """

    green: float
    red: float
    perfect: float

    def light(self, estimate: Estimate) -> Light:
        """The light of a figure; grey where its interval is too wide for an answer.

        An interval around ``green`` is amber if a set of real images would be green with a chance
        of 90% at this width, and otherwise grey.
        """
        low, high = estimate["interval"]
        if low >= self.green:
            return "green"
        if high < self.green:
            return "red" if high < self.red else "amber"
        return "amber" if self.chance_of_green(estimate, self.perfect) >= _WANTED else "grey"

    def chance_of_green(self, estimate: Estimate, truth: float) -> float:
        """How often a set with this true figure would be green, at the width of this interval."""
        to_low = estimate["value"] - estimate["interval"][0]
        if to_low <= 0:
            return float(truth >= self.green)
        return float(norm.cdf((truth - to_low - self.green) / (to_low / _DEVIATIONS)))


_WANTED = 0.9  # chance of green that a set of real images should have
_DEVIATIONS = 1.96  # standard errors from a figure to the end of its interval

USEFUL = Bar(green=0.90, red=0.85, perfect=1.0)
REALISTIC = Bar(green=0.8, red=0.5, perfect=1.0)
VARIED = Bar(green=0.8, red=0.5, perfect=1.0)
LABELLED = Bar(green=0.9, red=0.75, perfect=1.0)
NEAR = Bar(green=-0.2, red=-0.5, perfect=0.0)  # of the excess distance, with its sign turned


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"


_BY_CHANCE = f"{_percent(COPIES_BY_CHANCE)} (binomial test, 5%)"
_GREY = (
    "Grey where there are too few groups: the interval holds the limit of green, and is so wide "
    "that a set of real images would clear it in less than 90% of studies."
)
_USEFUL_RULE = (
    "The accuracy of CNNs trained on synthetic images alone, over that of the same CNNs trained on "
    "the training images of the diffusion model: the mean over the networks, with a 95% interval "
    f"over groups of test images and seeds. Green if all of it is at least {USEFUL.green:.2f}, red "
    f"if all of it is below {USEFUL.red:.2f}, otherwise amber. So a true ratio of "
    f"{USEFUL.red:.2f} is green in at most 2.5% of studies. Green needs two seeds or more. {_GREY} "
    "A network that does not beat guessing when it is trained on real images is left out: the "
    "interval of its accuracy must lie above the fraction of the most frequent class. At most "
    "amber where one of the others does not beat guessing when trained on synthetic images."
)
_FAITHFUL_RULE = (
    "In the features of a network that was not trained on these images, with 95% intervals over "
    "groups. Realism: the fraction of synthetic images that lie among reserve images (precision), "
    "over that of the training images. Variety: the fraction of the reserve images of each class "
    "that have a synthetic image near them (coverage), over that of as many training images. Both "
    f"are green from {REALISTIC.green:.1f} and red below {REALISTIC.red:.1f}. Labels: the fraction "
    "of synthetic images that a logistic regression on these features, which learned from reserve "
    "images, names as they are labelled, over that of the training images: green from "
    f"{LABELLED.green:.1f}, red below {LABELLED.red:.2f}. Distance: the kernel "
    "distance of synthetic images to reserve images of the same class, over that between two "
    "classes of real images, less the same figure of the training images: green up to "
    f"{-NEAR.green:.1f}, red beyond {-NEAR.red:.1f}. The whole interval must be on that side, and "
    f"the worst figure decides. {_GREY} The distance is grey with fewer than "
    f"{GROUPS_FOR_DISTANCES} groups of a class. At most amber in the features of a CNN that was "
    "trained on the training images."
)
_PRIVATE_RULE = (
    "Copies are searched for by another method than the filter that the set was drawn with: an "
    "image is one if its nearest training image is much nearer than its nearest other real image. "
    "Red: an image has the pixels of a real one; or more than "
    f"{_BY_CHANCE} of the set are copies, and more than among real images (Fisher's exact test, "
    f"5%); or more than {_percent(COPIES_IF_MEMORISED)} of the "
    "images that were drawn were copies by the filter. Amber: copies are more frequent in the set "
    "than among real images that it was not trained on (Fisher's exact test, 5%); or more than "
    f"{_BY_CHANCE} of the images that were drawn were copies by the filter; or the synthetic "
    f"images crowd around the training images (C_T in pixels below {COPYING:g}); or the loss of "
    "the model tells training images from others (95% interval of the area under the curve above "
    f"{MEMBERSHIP_REVEALED}, by the mean rank over all timesteps); or one of these could not be "
    f"measured. Grey: of sets with {_percent(COPIES_TO_NOTICE)} copies, altered in the way that "
    f"hides them best, the test would notice fewer than {_percent(NOTICED)}. Green: none of these. "
    "No light is a proof of privacy."
)


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
        return Verdict("useful", "grey", answer, _USEFUL_RULE)
    networks, guessing = usefulness["networks"], usefulness["guessing"]
    if not networks:
        answer = "Not answered: no CNN was trained on real and on synthetic images."
        return Verdict("useful", "grey", answer, _USEFUL_RULE)
    learned = [network for network in networks if network["beats_guessing"]["real"]]
    if not learned:
        best = max(network["real"]["accuracy"]["interval"][0] for network in networks)
        answer = (
            "Not answered: trained on real images, no CNN is better than always predicting the "
            f"most frequent class, {_percent(guessing)} of the test images (lower end of the best "
            f"CNN's interval: {_percent(best)})."
        )
        return Verdict("useful", "grey", answer, _USEFUL_RULE)
    ratio = usefulness["ratio"]
    real, synthetic = (
        sum(network[regime]["accuracy"]["value"] for network in learned) / len(learned)
        for regime in ("real", "synthetic")
    )
    answer = (
        "Trained on synthetic images alone, CNNs classify "
        f"{_percent(synthetic)} of the real test images correctly; trained on the training "
        f"images of the diffusion model, {_percent(real)}: a ratio of {_with_interval(ratio)}."
    )
    light = USEFUL.light(ratio)
    if light == "grey":
        answer += _too_few(usefulness["groups"], "test images", "or too few seeds")
    one_seed = min(network["seeds"] for network in learned) == 1
    guessers = [n["backbone"] for n in learned if not n["beats_guessing"]["synthetic"]]
    if light == "green" and (one_seed or guessers or assumed):
        light = "amber"
    if one_seed:
        answer += " One seed each: how much another training would differ is not known."
    if assumed:
        answer += (
            " It is only assumed that the generator did not learn from these images; name those "
            "that it learned from."
        )
    if guessers:
        answer += f" Trained on synthetic images, these do not beat guessing: {_list(guessers)}."
    if len(learned) < len(networks):
        left_out = [n["backbone"] for n in networks if n not in learned]
        answer += f" Left out, since they do not beat guessing: {_list(left_out)}."
    answer += "".join(map(_by_class, learned))
    return Verdict("useful", light, answer, _USEFUL_RULE)


def _by_class(network: NetworkUsefulness) -> str:
    """Balanced accuracy and sensitivities of one network."""
    real, synthetic = network["real"], network["synthetic"]
    classes = ", ".join(
        f"{name} {100 * synthetic['sensitivity'][name]:.0f}% ({100 * sensitivity:.0f}%)"
        for name, sensitivity in real["sensitivity"].items()
    )
    return (
        f" {network['backbone']}: balanced accuracy {_percent(synthetic['balanced_accuracy'])} "
        f"(trained on real images {_percent(real['balanced_accuracy'])}), by class {classes}."
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
        return Verdict("faithful", "grey", answer, _FAITHFUL_RULE)
    synthetic, real = figures["synthetic_to_reserve"], figures["train_to_reserve"]
    answer = (
        f"{_percent(synthetic['precision'])} of the synthetic images lie among real ones (of "
        f"other real images {_percent(real['precision'])}): a ratio of "
        f"{_with_interval(figures['relative']['precision'])}."
    )
    lights = [REALISTIC.light(figures["relative"]["precision"])]
    for measure in (_variety, _labels, _distance):
        light, sentences = measure(figures)
        lights.append(light)
        answer += sentences
    light = _worst(lights)
    if light == "grey":
        answer += _too_few(min(figures["groups"].values()), "reserve or training images")
    answer += f" In the {space}."
    if not fidelity["in_networks"]:
        light = "amber" if light == "green" else light
        answer += (
            " That CNN was trained on the training images, so these figures flatter; set "
            "audit.extractors to a network that was not."
        )
    return Verdict("faithful", light, answer, _FAITHFUL_RULE)


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
    missed = max(VARIED.chance_of_green(c, _HALF_MISSING) for c in coverages.values())
    sentences = (
        f" Of the real images of a class that other real images come near, synthetic ones come "
        f"near {_with_interval(coverages[worst])} times as many (class {worst}, where least is "
        f"certain). If half of the kinds of images of a class were missing, {_percent(missed)} of "
        "such studies would not notice it."
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
        " A classifier that learned from reserve images names "
        f"{_percent(labels['synthetic'])} of the synthetic images as they are labelled (of the "
        f"training images {_percent(labels['train'])}): a ratio of "
        f"{_with_interval(labels['ratio'])}."
    )


def _distance(figures: Mapping[str, Any]) -> tuple[Light, str]:
    """Distance within the classes."""
    if len(figures["per_class"]) == 1:
        return "green", " With one class there is no scale for distances, which do not count."
    distances = figures["class_distances"]
    if "not_computed" in distances:
        return "grey", f" {distances['not_computed']}"
    excess = distances["excess"]
    low, high = excess["interval"]
    light = NEAR.light({"value": -excess["value"], "interval": [-high, -low]})
    if distances["fewest_groups"] < GROUPS_FOR_DISTANCES:
        light = "grey"
    return light, (
        f" Synthetic images of a class are {distances['synthetic']:.2f} times as far from real "
        f"ones of it as two real classes are from each other (other real images "
        f"{distances['train']:.2f} times): a difference of {_with_interval(excess)}."
    )


# Ratio of coverages where half of the kinds of images of a class are missing (docs/audit.md).
_HALF_MISSING = 0.75


def _worst(lights: Iterable[Light]) -> Light:
    return max(lights, key=("green", "grey", "amber", "red").index)


def _with_interval(estimate: Estimate) -> str:
    low, high = estimate["interval"]
    return f"{estimate['value']:.2f} ({low:.2f} to {high:.2f})"


def _too_few(groups: int, images: str, more: str = "") -> str:
    more = f", {more}" if more else ""
    return f" Too few groups for an answer: {groups} of {images}{more}."


def _list(names: list[str]) -> str:
    return ", ".join(names)


def judge_privacy(privacy: Mapping[str, Any], assumed: bool = False) -> Verdict:
    """Whether the set holds copies, and whether the model reveals its training images.

    Args:
        privacy: the content of ``privacy.json``.
        assumed: whether the images that the generator learned from are not known.
    """
    copies, membership = privacy["copies"], privacy["membership"]
    if "not_computed" in copies:
        return Verdict("private", "grey", f"Not answered: {copies['not_computed']}", _PRIVATE_RULE)
    found, fresh, hidden = len(copies["found"]), copies["fresh"], _best_hidden(copies["power"])
    noticed = copies["noticed"][f"{COPIES_TO_NOTICE:g}"]
    answer = (
        f"{found} of {copies['images']} synthetic images are called copies of a training image, "
        f"and {fresh['copies']} of {fresh['images']} real images that it was not trained on (p "
        f"{copies['p_value']:.2g}). Of copies planted in the set the search finds "
        f"{_percent(hidden['found'])} or more ({hidden['alteration']}); it would notice "
        f"{_percent(noticed)} of sets like this one with {_percent(COPIES_TO_NOTICE)} copies."
    )
    if copies["filter"] is None:
        answer += " Copies were not filtered out while the images were drawn."
    else:
        drawn, rejected = copies["filter"]["drawn"], copies["filter"]["rejected"]
        answer += f" The filter had left out {rejected} of {drawn} that were drawn."
    if "levels" in membership:
        attack = _declared_attack(membership)
        low, high = attack["interval"]
        answer += (
            " Whoever has the model itself tells training images from others with an area under "
            f"the curve of {attack['auc']:.2f} ({low:.2f} to {high:.2f}; 0.5 is guessing)."
        )
    elif "not_asked" in membership:
        answer += f" Not tested: {membership['not_asked']}"
    red, amber = _reasons_for_red(copies), _reasons_for_amber(copies, privacy, membership, assumed)
    light: Light = "red" if red else "amber" if amber else "green"
    if red + amber:
        answer += f" Beware: {'; '.join(red + amber)}."
    if light == "green" and noticed < NOTICED:
        light = "grey"
        answer += " The set, or the reserve, is too small for an answer."
    return Verdict("private", light, answer, _PRIVATE_RULE)


def _reasons_for_red(copies: dict[str, Any]) -> list[str]:
    reasons = []
    for role, count in copies["identical"].items():
        if count:
            reasons.append(f"{count} images have the pixels of a real image of the role {role}")
    if _beyond_chance(len(copies["found"]), copies["images"]) and _beyond_real_images(copies):
        reasons.append(f"more than {_percent(COPIES_BY_CHANCE)} of the set are copies")
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
    reasons += [
        f"not everything could be measured ({figures['not_computed']})"
        for figures in (privacy["in_pixels"], membership)
        if "not_computed" in figures
    ]
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
