"""Whether two ways of training differ on the same test images by more than chance."""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from kerasmed.errors import InputError
from kerasmed.evaluate.enough import MINIMUM_GROUPS
from kerasmed.evaluate.resampling import expanded_interval

_REGIMES = ("real", "synthetic", "both", "real_all")
# Orders of signs that the permutation test draws.
_PERMUTATIONS = 10_000
_DRAWS_AT_ONCE = 20_000_000  # bounds the memory
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


def grouped_interval(
    values: np.ndarray,
    groups: np.ndarray,
    samples: int,
    seed: int,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """95% interval of a mean, over resamples of whole groups with replacement.

    Where there are fewer than five groups, or all have the same mean, resamples tell nothing of
    groups that are not there. The interval then reaches from the lowest to the highest mean of a
    group, and beyond by what as many groups of the extreme value could change as so many draws may
    well have missed: where all test images are right, that is Clopper and Pearson's.

    Args:
        values: float (n,).
        groups: (n,), equal for values of one group.
        samples: resamples.
        seed: of the resampling.
        bounds: least and greatest value that there could be.
    """
    _, of_value = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(of_value, values), np.bincount(of_value)
    count, means = len(sums), sums / sizes
    if count < MINIMUM_GROUPS or np.ptp(means) < 1e-12:
        missed = 1 - 0.025 ** (1 / count)
        low, high = means.min(), means.max()
        return float(low - missed * (low - bounds[0])), float(high + missed * (bounds[1] - high))
    rng, at_once = np.random.default_rng(seed), max(1, _DRAWS_AT_ONCE // count)
    resampled = []
    for start in range(0, samples, at_once):
        draws = rng.integers(count, size=(min(at_once, samples - start), count))
        resampled.append(sums[draws].sum(axis=1) / sizes[draws].sum(axis=1))
    low, high = expanded_interval(np.concatenate(resampled), count)
    return float(low), float(high)


def permutation_p_value(difference: np.ndarray, groups: np.ndarray, seed: int) -> float:
    """Two-sided p value of a mean paired difference, the sign of each group drawn at random.

    Args:
        difference: float (n,).
        groups: (n,), equal for values of one group.
        seed: of the draws.
    """
    _, of_value = np.unique(groups, return_inverse=True)
    sums = np.bincount(of_value, difference)
    sums = sums[sums != 0]
    rng, least = np.random.default_rng(seed), np.abs(sums.sum()) - 1e-9
    at_once = max(1, min(_PERMUTATIONS, _DRAWS_AT_ONCE // max(1, len(sums))))
    extreme = 0
    for start in range(0, _PERMUTATIONS, at_once):
        signs = rng.integers(0, 2, (min(at_once, _PERMUTATIONS - start), len(sums)), np.int8)
        extreme += int((np.abs((2 * signs - 1) @ sums) >= least).sum())
    # The observed order of signs is one of those that could be drawn.
    return (1 + extreme) / (1 + _PERMUTATIONS)


def holm(p_values: list[float]) -> list[float]:
    """P values corrected for their number (Holm, 1979), in the given order."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.minimum(1, np.maximum.accumulate(np.array(p_values)[order] * factors))
    result = np.empty(len(p_values))
    result[order] = corrected
    return result.tolist()
