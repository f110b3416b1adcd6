"""What an answer is, and when its light is green, amber, red or grey: limits and rules in words."""

from dataclasses import dataclass
from typing import Literal

from scipy.stats import norm

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


Question = Literal["useful", "faithful", "private"]

_HEADLINES: dict[tuple[Question, Light], str] = {
    ("useful", "green"): "Synthetic images can stand in for the real ones.",
    ("useful", "amber"): "Synthetic images fall somewhat short of real ones, or it is not certain.",
    ("useful", "red"): "Synthetic images cannot stand in for the real ones.",
    ("useful", "grey"): "It is not known whether they can stand in for real ones.",
    ("faithful", "green"): "The images look real, and are as varied as real ones.",
    ("faithful", "amber"): "In some respects the images differ from real ones, or may do so.",
    ("faithful", "red"): "The images differ clearly from real ones.",
    ("faithful", "grey"): "There are too few images or patients to say whether they look real.",
    ("private", "green"): "Nothing indicates that they reveal a training image.",
    (
        "private",
        "amber",
    ): "They may reveal training images, or not everything was checked: look closer.",
    ("private", "red"): "They reveal training images: do not pass them on.",
    ("private", "grey"): "A few copies would not be noticed among so few images.",
}


@dataclass(frozen=True)
class Verdict:
    """One answer."""

    question: Question
    """Whether the synthetic set is that."""
    light: Light
    """Its traffic light; grey where it could not be answered."""
    answer: str
    """Sentences with the numbers."""
    rule: str
    """The rule for each light."""


def headline(question: Question, light: Light) -> str:
    """An answer in one sentence without numbers, for readers who are no statisticians."""
    return _HEADLINES[question, light]


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

    def chance_of_doubt(self, estimate: Estimate, truth: float) -> float:
        """How often a set with this true figure would be amber or red at this width."""
        to_high = estimate["interval"][1] - estimate["value"]
        if to_high <= 0:
            return float(truth < self.green)
        return float(norm.cdf((self.green - to_high - truth) / (to_high / _DEVIATIONS)))


_WANTED = 0.9  # chance of green that a set of real images should have
_DEVIATIONS = 1.96  # standard errors from a figure to the end of its interval

# Set by the error rates of made-up and real sets with known faults (docs/evidence/error_rates.md).
USEFUL = Bar(green=0.93, red=0.85, perfect=1.0)
REALISTIC = Bar(green=0.8, red=0.5, perfect=1.0)
VARIED = Bar(green=0.85, red=0.5, perfect=1.0)
# Ratio of coverages where half of the kinds of images of a class are missing (the same page).
HALF_MISSING = 0.83
LABELLED = Bar(green=0.9, red=0.75, perfect=1.0)
NEAR = Bar(green=-0.2, red=-0.5, perfect=0.0)  # of the excess distance, with its sign turned


def percent(fraction: float) -> str:
    """A fraction as a text in percent."""
    return f"{100 * fraction:.1f}%"


_BY_CHANCE = f"{percent(COPIES_BY_CHANCE)} (binomial test, 5%)"
_GREY = (
    "Grey where there are too few groups: the interval holds the limit of green, and is so wide "
    "that a set of real images would clear it in less than 90% of studies."
)
# Of phantoms, smears and MRI slices.
_MEASURED = "Green, measured with 180 test and 360 synthetic images of known faults"
USEFUL_RULE = (
    "The accuracy of CNNs trained on synthetic images alone, over that of the same CNNs trained on "
    "the training images of the diffusion model: the mean over the networks, with a 95% interval "
    f"over groups of test images and seeds. Green if all of it is at least {USEFUL.green:.2f}, red "
    f"if all of it is below {USEFUL.red:.2f}, otherwise amber. So a true ratio of "
    f"{USEFUL.green:.2f} is green in at most 2.5% of studies. {_MEASURED}: sets with 20% wrong "
    f"labels in 0 to 2%, real images in 33 to 98%. Green needs two seeds or more. {_GREY} "
    "A network that does not beat guessing when it is trained on real images is left out: the "
    "interval of its accuracy must lie above the fraction of the most frequent class. At most "
    "amber where one of the others does not beat guessing when trained on synthetic images."
)
FAITHFUL_RULE = (
    "In the features of a network that was not trained on these images, with 95% intervals over "
    "groups. Realism: the fraction of synthetic images that lie among reserve images (precision), "
    "over that of the training images. Variety: the fraction of the reserve images of each class "
    "that have a synthetic image near them (coverage), over that of as many training images. Green "
    f"from {REALISTIC.green:.2f} and {VARIED.green:.2f}, red below {VARIED.red:.1f}. Labels: the "
    "fraction of synthetic images that a logistic regression on these features, which learned from "
    "reserve images, names as they are labelled, over that of the training images: green from "
    f"{LABELLED.green:.1f}, red below {LABELLED.red:.2f}. Distance: the kernel distance "
    "of synthetic images to reserve images of the same class, over that between two "
    "classes of real images, less the same figure of the training images: green up to "
    f"{-NEAR.green:.1f}, red beyond {-NEAR.red:.1f}. The whole interval must be on that side, and "
    f"the worst figure decides. {_GREY} The distance is grey with fewer than "
    f"{GROUPS_FOR_DISTANCES} groups of a class. At most amber in the features of a CNN that was "
    f"trained on the training images. {_MEASURED}: sets without half of the kinds of images of a "
    "class in 0 to 2%, with a blur of one pixel or 20% wrong labels in none, real images in 0 to "
    "29%, and otherwise mostly grey."
)
PRIVATE_RULE = (
    "Copies are searched for by another method than the filter that the set was drawn with: an "
    "image is one if its nearest training image is much nearer than its nearest other real image. "
    "Red: an image has the pixels of a real one; or more than "
    f"{_BY_CHANCE} of the set are copies, and more than among real images (Fisher's exact test, "
    f"5%); or more than {percent(COPIES_IF_MEMORISED)} of the "
    "images that were drawn were copies by the filter. Amber: copies are more frequent in the set "
    "than among real images that it was not trained on (Fisher's exact test, 5%); or more than "
    f"{_BY_CHANCE} of the images that were drawn were copies by the filter; or the synthetic "
    f"images crowd around the training images (C_T in pixels below {COPYING:g}); or the loss of "
    "the model tells training images from others (95% interval of the area under the curve above "
    f"{MEMBERSHIP_REVEALED}, by the mean rank over all timesteps); or one of these could not be "
    f"measured. Grey: of sets with {percent(COPIES_TO_NOTICE)} copies, altered in the way that "
    f"hides them best, the test would notice fewer than {percent(NOTICED)}, as always with a few "
    "hundred synthetic images. Green: none of these. "
    "No light is a proof of privacy."
)
