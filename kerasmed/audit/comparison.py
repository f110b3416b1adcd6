"""Whether CNNs of two regimes differ on the same test images by more than chance."""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from kerasmed.errors import InputError
from kerasmed.metrics.statistics import grouped_interval, holm, permutation_p_value

_REGIMES = ("real", "synthetic", "both", "real_all")
SIGNIFICANT = 0.05


class TrainedOn(NamedTuple):
    """Backbone and training set of CNNs that differ only in the seed."""

    backbone: str
    regime: str
    variant: str | None = None


def compare_regimes(
    correct: dict[TrainedOn, np.ndarray], groups: np.ndarray, samples: int, seed: int
) -> list[dict[str, Any]]:
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

    Returns:
        ``backbone``, ``regimes`` and ``variants`` (two each), ``accuracy`` (of each),
        ``difference`` (second minus first), ``interval``, ``p_value`` (corrected) and
        ``conclusion``: "higher" or "lower" of the second regime where the p value is below 0.05,
        else "no difference shown".

    Raises:
        InputError: The predictions are not of the same test images.
    """
    comparisons: list[dict[str, Any]] = []
    p_values = []
    # The baseline comes first, whatever the order in the study.
    ordered = sorted(correct, key=lambda trained_on: _REGIMES.index(trained_on.regime))
    for first, second in combinations(ordered, 2):
        if first.backbone != second.backbone or (first.variant and second.variant):
            continue
        of_first, of_second = correct[first], correct[second]
        if not of_first.shape == of_second.shape == groups.shape:
            raise InputError(
                f"Predictions: expected one for each of {len(groups)} test images, received "
                f"{of_first.shape} and {of_second.shape}; evaluate both on the same images."
            )
        difference = of_second - of_first
        p_values.append(permutation_p_value(difference, groups, seed))
        comparisons.append(
            {
                "backbone": first.backbone,
                "regimes": [first.regime, second.regime],
                "variants": [first.variant, second.variant],
                "accuracy": [float(of_first.mean()), float(of_second.mean())],
                "difference": float(difference.mean()),
                "interval": list(grouped_interval(difference, groups, samples, seed, (-1.0, 1.0))),
            }
        )
    for row, p_value in zip(comparisons, holm(p_values), strict=True):
        row["p_value"] = p_value
        direction = "higher" if row["difference"] > 0 else "lower"
        row["conclusion"] = direction if p_value < SIGNIFICANT else "no difference shown"
    backbones = list(dict.fromkeys(trained_on.backbone for trained_on in correct))
    return sorted(comparisons, key=lambda row: backbones.index(row["backbone"]))
