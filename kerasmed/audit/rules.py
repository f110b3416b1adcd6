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
    ("useful", "amber"): "Synthetic images are, or may be, less useful than real ones.",
    ("useful", "red"): "Synthetic images cannot stand in for the real ones.",
    ("useful", "grey"): "It is not known whether synthetic images can stand in for real ones.",
    ("faithful", "green"): "The images look real, and are as varied as real ones.",
    ("faithful", "amber"): "The images may differ from real ones.",
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
    """An answer in one sentence without numbers, for readers who are not statisticians."""
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
    "Grey if there are too few groups: the interval contains the limit of green, and is so wide "
    "that even real images would clear the limit in less than 90% of studies."
)
# Of phantoms, smears and MRI slices.
_MEASURED = "Green, measured with 180 test and 360 synthetic images of known faults"
USEFUL_RULE = (
    "The accuracy of CNNs trained only on synthetic images, divided by that of the same CNNs "
    "trained on the training images of the diffusion model. It is the mean over the networks, with "
    "a 95% interval over groups of test images and seeds. Green if the whole interval is at least "
    f"{USEFUL.green:.2f}, red if the whole interval is below {USEFUL.red:.2f}, otherwise amber. So "
    f"a true ratio of {USEFUL.green:.2f} is green in at most 2.5% of studies. {_MEASURED}: sets "
    "with 20% wrong labels in 0 to 2%, real images in 33 to 98%. Green needs two seeds or more. "
    f"{_GREY} A network that does not beat guessing when trained on real images is left out: the "
    "interval of its accuracy must lie above the fraction of the most frequent class. At most "
    "amber if another network does not beat guessing when trained on synthetic images."
)
FAITHFUL_RULE = (
    "Four figures, in the features of a network that was not trained on these images, with 95% "
    "intervals over groups. Each compares the synthetic images with the training images. Realism: "
    "the fraction of images that lie among reserve images (precision), green from "
    f"{REALISTIC.green:.2f} times that of the training images, red below {REALISTIC.red:.1f}. "
    "Variety: the fraction of the reserve images of each class that have such an image near them "
    f"(coverage), green from {VARIED.green:.2f} times, red below {VARIED.red:.1f}. Labels: the "
    "fraction of images whose label agrees with a logistic regression on these features, trained "
    f"on reserve images, green from {LABELLED.green:.1f} times, red below {LABELLED.red:.2f}. "
    "Distance: the kernel distance to reserve images of the same class, over that between two "
    "classes of real images, less the same figure of the training images, green up to "
    f"{-NEAR.green:.1f}, red beyond {-NEAR.red:.1f}. The whole interval must be on that side, and "
    f"the worst figure decides. {_GREY} The distance is grey with fewer than "
    f"{GROUPS_FOR_DISTANCES} groups of a class. At most amber in the features of a CNN that was "
    f"trained on the training images. {_MEASURED}: sets without half of the kinds of images of a "
    "class in 0 to 2%, with a blur of one pixel or 20% wrong labels in none, real images in 0 to "
    "29%, and otherwise mostly grey."
)
PRIVATE_RULE = (
    "The search for copies uses another method than the copy filter of the sampling: an image is a "
    "copy if its nearest training image is much nearer than its nearest other real image. Red: an "
    f"image has the pixels of a real one; or more than {_BY_CHANCE} of the set are copies, and "
    "more than among real images (Fisher's exact test, 5%; images of one group count as fewer if "
    "they are called copies together); or the filter rejected more than "
    f"{percent(COPIES_IF_MEMORISED)} of the draws. Amber: copies are more frequent in the set than "
    "among real images that the model was not trained on (the same test); or the filter "
    f"rejected more than {_BY_CHANCE} of the draws; or the synthetic images crowd around the "
    f"training images (C_T in pixels below {COPYING:g}); or the loss of the model distinguishes "
    "training images from others (95% interval of the area under the curve above "
    f"{MEMBERSHIP_REVEALED}, by the mean rank over all timesteps); or one of these could not be "
    f"measured. Grey: the test would notice fewer than {percent(NOTICED)} of sets with "
    f"{percent(COPIES_TO_NOTICE)} copies, altered in the way that hides them best, as always with "
    "a few hundred synthetic images. Green: none of these. No light is a proof of privacy."
)
