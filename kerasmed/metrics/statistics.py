"""Intervals over groups, and tests between paired results."""

import numpy as np
from scipy.stats import bootstrap, norm, permutation_test, t

from kerasmed.metrics.sample_size import MINIMUM_GROUPS
from kerasmed.random_streams import Purpose, random_stream

SIGNIFICANT = 0.05  # p values below it count
_PERMUTATIONS = 9_999  # assignments of signs that the permutation test draws
_DRAWS_AT_ONCE = 5_000_000  # bounds the memory


def grouped_interval(
    values: np.ndarray,
    groups: np.ndarray,
    samples: int,
    seed: int,
) -> tuple[float, float]:
    """95% interval of a mean of values from 0 to 1, over resamples of whole groups.

    Fewer than five groups, or groups of equal means, say nothing about groups outside the sample.
    The interval then reaches from the lowest to the highest mean of a group. It is extended as if
    a fraction of groups that so few draws may have missed had the extreme value. Where all test
    images are right, that is the interval of Clopper and Pearson.

    Args:
        values: float (n,).
        groups: (n,), equal for values of one group.
        samples: Number of resamples.
        seed: Seed of the resampling.
    """
    _, group_of_value = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(group_of_value, values), np.bincount(group_of_value)
    count, means = len(sums), sums / sizes
    if count < MINIMUM_GROUPS or np.ptp(means) < 1e-12:
        missed = 1 - 0.025 ** (1 / count)
        low, high = means.min(), means.max()
        return float(low - missed * low), float(high + missed * (1 - high))
    resamples = bootstrap(
        (sums, sizes),
        lambda drawn, drawn_sizes, axis: drawn.sum(axis) / drawn_sizes.sum(axis),
        n_resamples=samples,
        batch=max(1, _DRAWS_AT_ONCE // count),
        paired=True,
        method="percentile",
        rng=random_stream(seed, Purpose.INTERVAL),
    )
    low, high = expanded_interval(resamples.bootstrap_distribution, count)
    return float(low), float(high)


def permutation_p_value(difference: np.ndarray, groups: np.ndarray, seed: int) -> float:
    """Two-sided p value of a mean paired difference, the sign of each group drawn at random.

    With up to 13 groups that differ, it is exact: all assignments of signs are counted.

    Args:
        difference: float (n,).
        groups: (n,), equal for values of one group.
        seed: Seed of the draws.
    """
    _, group_of_value = np.unique(groups, return_inverse=True)
    sums = np.bincount(group_of_value, difference)
    sums = sums[sums != 0]
    if len(sums) < 2:
        return 1.0
    result = permutation_test(
        (sums,),
        # Rounded, so that totals that differ only by rounding errors are equal.
        lambda signed, axis: np.abs(signed.sum(axis)).round(9),
        permutation_type="samples",
        alternative="greater",
        n_resamples=_PERMUTATIONS,
        batch=max(1, _DRAWS_AT_ONCE // len(sums)),
        rng=random_stream(seed, Purpose.PERMUTATION),
    )
    return float(result.pvalue)


def design_effect(values: np.ndarray, groups: np.ndarray) -> float:
    """How many images in groups say as much about a mean as one independent image.

    The variance of the mean over groups, divided by that of as many independent values (Kish,
    1965). Counts divided by it can be compared by tests of independent images (Rao and Scott,
    1992).

    Args:
        values: 0 or 1, (n,).
        groups: (n,), equal for values of one group.

    Returns:
        1 or more; 1 for groups of one image, and where all values are equal.

    Example:
        >>> import numpy as np
        >>> from kerasmed.metrics.statistics import design_effect
        >>> values = np.repeat([1, 0, 0, 0, 0], 4)
        >>> design_effect(values, groups=np.repeat(np.arange(5), 4))
        4.75
    """
    mean, count = values.mean(), len(values)
    _, group_of_value = np.unique(groups, return_inverse=True)
    residuals = np.bincount(group_of_value, values - mean)
    if mean in (0, 1) or len(residuals) == 1:
        return 1.0
    of_groups = len(residuals) / (len(residuals) - 1) * np.square(residuals / count).sum()
    of_images = mean * (1 - mean) / (count - 1)
    return max(1.0, float(of_groups / of_images))


def holm(p_values: list[float]) -> list[float]:
    """P values corrected for their number (Holm, 1979), in the given order."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.minimum(1, np.maximum.accumulate(np.array(p_values)[order] * factors))
    result = np.empty(len(p_values))
    result[order] = corrected
    return result.tolist()


def expanded_interval(resampled: np.ndarray, groups: int) -> np.ndarray:
    """95% interval of a statistic from its values in resamples of groups.

    Percentiles, moved outwards so that with few groups the interval is as wide as a t interval
    (Hesterberg, arXiv:1411.5279, "expanded percentile interval"). With five groups these are the
    0.1st and 99.9th, with a thousand the 2.5th and 97.5th.

    Args:
        resampled: float (resamples, ...), NaN where a resample does not have the statistic.
        groups: Number of groups of the sample, at least 2; of two samples that of the smaller one.

    Returns:
        float64 (2, ...), the lower and the upper end.
    """
    tail = 100 * norm.cdf(t.ppf(0.025, groups - 1) * np.sqrt(groups / (groups - 1)))
    return np.nanpercentile(resampled, [tail, 100 - tail], axis=0)
