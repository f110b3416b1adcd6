"""Whether CNNs of two regimes differ on the same test images by more than chance."""

from itertools import combinations
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from kerasmed.classify.config import Regime
from kerasmed.errors import InputError
from kerasmed.metrics.statistics import SIGNIFICANT, grouped_interval, holm, permutation_p_value
from kerasmed.result_types import Pair, Signed, UnitPair
from kerasmed.settings import UnitInterval

_REGIMES: tuple[Regime, ...] = get_args(Regime)


class TrainedOn(NamedTuple):
    """Backbone and training set of CNNs that differ only in the seed."""

    backbone: str
    regime: Regime
    variant: str | None = None


Conclusion = Literal["higher", "lower", "no difference shown"]


class Comparison(TypedDict):
    """Two regimes of one CNN, tested on the same images."""

    backbone: str
    """Name of the network."""
    regimes: Annotated[list[Regime], Field(min_length=2, max_length=2)]
    """What the CNNs were trained on, the first and the second."""
    variants: Annotated[list[str | None], Field(min_length=2, max_length=2)]
    """The synthetic set of each; null for the main one, and for real images."""
    accuracy: UnitPair
    """Accuracy of each, the mean over the seeds."""
    difference: Signed
    """Accuracy of the second minus that of the first."""
    interval: Pair
    """95% interval of the difference, by bootstrap over groups of images."""
    p_value: UnitInterval
    """Of a permutation test within groups, corrected by Holm's method for all comparisons."""
    conclusion: Conclusion
    """Whether the second is higher or lower; p values below 0.05 count."""


def compare_regimes(
    correct: dict[TrainedOn, np.ndarray], groups: np.ndarray, samples: int, seed: int
) -> list[Comparison]:
    """Comparisons of every two regimes of each backbone, tested on the same images.

    The variants of a sweep are compared only with the main sets, not with one another.

    The difference of the accuracies has a 95% interval by bootstrap over groups. Its p value is
    that of a permutation test that swaps the two regimes within whole groups. Where each group is
    one image and there is one seed, that is McNemar's test. All p values are corrected together by
    Holm's method.

    Args:
        correct: float (n_test,), fraction of the seeds whose CNN is right about each test image.
        groups: (n_test,), equal for images of one group.
        samples: Resamples of the bootstrap.
        seed: Seed of bootstrap and permutations.

    Raises:
        InputError: The predictions are not of the same test images.
    """
    # The baseline comes first, whatever the order in the study.
    ordered = sorted(correct, key=lambda trained_on: _REGIMES.index(trained_on.regime))
    pairs = [
        (first, second)
        for first, second in combinations(ordered, 2)
        if first.backbone == second.backbone and not (first.variant and second.variant)
    ]
    p_values = []
    for first, second in pairs:
        of_first, of_second = correct[first], correct[second]
        if not of_first.shape == of_second.shape == groups.shape:
            raise InputError(
                f"Predictions: expected one for each of {len(groups)} test images, received "
                f"{of_first.shape} and {of_second.shape}; evaluate both on the same images."
            )
        p_values.append(permutation_p_value(of_second - of_first, groups, seed))
    comparisons = [
        _comparison(first, second, correct, groups, samples, seed, p_value)
        for (first, second), p_value in zip(pairs, holm(p_values), strict=True)
    ]
    backbones = list(dict.fromkeys(trained_on.backbone for trained_on in correct))
    return sorted(comparisons, key=lambda row: backbones.index(row["backbone"]))


def _comparison(
    first: TrainedOn,
    second: TrainedOn,
    correct: dict[TrainedOn, np.ndarray],
    groups: np.ndarray,
    samples: int,
    seed: int,
    p_value: float,
) -> Comparison:
    """One comparison, with its corrected p value."""
    of_first, of_second = correct[first], correct[second]
    difference = of_second - of_first
    mean = float(difference.mean())
    conclusion: Conclusion = "no difference shown"
    if p_value < SIGNIFICANT:
        conclusion = "higher" if mean > 0 else "lower"
    return {
        "backbone": first.backbone,
        "regimes": [first.regime, second.regime],
        "variants": [first.variant, second.variant],
        "accuracy": [float(of_first.mean()), float(of_second.mean())],
        "difference": mean,
        "interval": list(grouped_interval(difference, groups, samples, seed, (-1.0, 1.0))),
        "p_value": p_value,
        "conclusion": conclusion,
    }
