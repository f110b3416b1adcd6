"""Whether two ways of training differ on the same test images by more than chance."""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from kerasmed.errors import InputError
from kerasmed.metrics.statistics import (
    grouped_interval,
    holm,
    permutation_p_value,
)

_REGIMES = ("real", "synthetic", "both", "real_all")

SIGNIFICANT = 0.05


class TrainedOn(NamedTuple):
    """What CNNs that differ in the seed alone were trained on."""

    backbone: str
    regime: str
    variant: str | None = None


def compare_regimes(
    correct: dict[TrainedOn, np.ndarray], groups: np.ndarray, samples: int, seed: int
) -> list[dict[str, Any]]:
    """Every two regimes of each backbone, tested on the same images.

    The variants of a sweep are compared with the main sets alone, not with one another.

    The difference of the accuracies has a 95% interval by bootstrap over groups, and a p value by
    a permutation test that swaps the two regimes within whole groups; where each group is one
    image and there is one seed, that is McNemar's test. All p values are corrected together by
    Holm's method.

    Args:
        correct: float (n_test,): share of the seeds whose CNN is right about each test image.
        groups: (n_test,), equal for images of one group.
        samples: of the bootstrap.
        seed: of bootstrap and permutations.

    Returns:
        ``backbone``, ``regimes`` and ``variants`` (two each), ``accuracy`` (of each),
        ``difference`` (second minus first), ``interval``, ``p_value`` (corrected) and
        ``conclusion``: "higher" or "lower" of the second regime where the p value is below 0.05,
        else "no difference shown".

    Raises:
        InputError: predictions of other test images.
    """
    found: list[dict[str, Any]] = []
    p_values = []
    # The baseline first, in whatever order the study names them.
    ordered = sorted(correct, key=lambda each: _REGIMES.index(each.regime))
    for first, second in combinations(ordered, 2):
        if first.backbone != second.backbone or (first.variant and second.variant):
            continue
        one, two = correct[first], correct[second]
        if not one.shape == two.shape == groups.shape:
            raise InputError(
                f"Predictions: expected one for each of {len(groups)} test images, received "
                f"{one.shape} and {two.shape}; evaluate both on the same images."
            )
        difference = two - one
        p_values.append(permutation_p_value(difference, groups, seed))
        found.append(
            {
                "backbone": first.backbone,
                "regimes": [first.regime, second.regime],
                "variants": [first.variant, second.variant],
                "accuracy": [float(one.mean()), float(two.mean())],
                "difference": float(difference.mean()),
                "interval": list(grouped_interval(difference, groups, samples, seed, (-1.0, 1.0))),
            }
        )
    for each, p_value in zip(found, holm(p_values), strict=True):
        each["p_value"] = p_value
        higher = "higher" if each["difference"] > 0 else "lower"
        each["conclusion"] = higher if p_value < SIGNIFICANT else "no difference shown"
    backbones = list(dict.fromkeys(each.backbone for each in correct))
    return sorted(found, key=lambda each: backbones.index(each["backbone"]))
