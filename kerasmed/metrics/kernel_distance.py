"""The kernel distance (KID) of two sets of features."""

import numpy as np
from sklearn.metrics.pairwise import polynomial_kernel

from kerasmed.metrics.jackknife import Figure
from kerasmed.metrics.sample import Sample

_ROWS = 1024  # of a kernel matrix that are in memory at once


def kernel_distance(first: Sample, second: Sample) -> Figure:
    """Squared maximum mean discrepancy over groups: the estimator of KID, before its correction.

    Kernel (x.y / d + 1)^3 (Binkowski et al., arXiv:1801.01401, section 4). Each image counts alike
    on both sides. Within a set no image is paired with itself or with another of its group: two
    images of one patient are more similar than two patients are, so such pairs would make two sets
    of different patients seem different.

    Over single images this is the unbiased estimator of the paper, negative at times. Over groups
    whose size depends on their content it is biased downwards, which ``corrected()`` removes.

    Args:
        first: a set of at least three groups.
        second: another one.

    Example:
        >>> import numpy as np
        >>> from kerasmed.metrics.kernel_distance import kernel_distance
        >>> from kerasmed.metrics.sample import Sample
        >>> rng = np.random.default_rng(0)
        >>> real, other = Sample("real", rng.normal(size=(90, 8))), Sample("b", np.ones((90, 8)))
        >>> distance = kernel_distance(real, other).corrected()
        >>> bool(distance.interval()[0] > 0)
        True
    """
    within_first, without_first = _within(first)
    within_second, without_second = _within(second)
    between = np.empty(len(first.features)), np.zeros(len(second.features))
    for rows in _chunks(len(first.features)):
        kernel = polynomial_kernel(first.features[rows], second.features)
        between[0][rows] = kernel.sum(axis=1)
        between[1][:] += kernel.sum(axis=0)
    pairs = len(first.features) * len(second.features)
    total = between[0].sum()

    def between_without(sample: Sample, sums: np.ndarray, others: int) -> np.ndarray:
        of_group = np.bincount(sample.groups, sums, sample.num_groups)
        return (total - of_group) / ((len(sample.features) - sample.sizes) * others)

    both_first = between_without(first, between[0], len(second.features))
    both_second = between_without(second, between[1], len(first.features))
    return Figure(
        float(within_first + within_second - 2 * total / pairs),
        {
            first.name: without_first + within_second - 2 * both_first,
            second.name: within_first + without_second - 2 * both_second,
        },
    )


def _within(sample: Sample) -> tuple[float, np.ndarray]:
    """Mean kernel of pairs of different groups, and without each group: float (groups,)."""
    groups, sizes = sample.groups, sample.sizes.astype(np.float64)
    sums = np.empty(len(groups))  # of each image, over those of other groups
    for rows in _chunks(len(groups)):
        kernel = polynomial_kernel(sample.features[rows], sample.features)
        sums[rows] = np.where(groups[rows, None] == groups, 0, kernel).sum(axis=1)
    of_group = np.bincount(groups, sums, sample.num_groups)
    total, pairs = sums.sum(), np.square(sizes.sum()) - np.square(sizes).sum()
    pairs_without = pairs - 2 * sizes * (sizes.sum() - sizes)
    return total / pairs, (total - 2 * of_group) / pairs_without


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, count, _ROWS)]
