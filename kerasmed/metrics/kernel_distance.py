"""The kernel distance (KID) of two sets of features, and its interval."""

import numpy as np
from sklearn.metrics.pairwise import polynomial_kernel

from kerasmed.metrics.statistics import expanded_interval
from kerasmed.random_streams import Purpose, random_stream

_RESAMPLES = 200


def kernel_distance(
    first: np.ndarray,
    second: np.ndarray,
    first_groups: np.ndarray | None = None,
    second_groups: np.ndarray | None = None,
) -> float:
    """Unbiased squared maximum mean discrepancy: the estimator of KID.

    Kernel (x.y / d + 1)^3 (Binkowski et al., arXiv:1801.01401, section 4). Unbiased, so it may be
    negative when both sets come from one distribution. Within a set no image is paired with itself
    or with another of its group. Two images of one patient are more similar than two patients are,
    so such pairs would make two sets of different patients seem different.

    Args:
        first: float (n, d).
        second: float (m, d).
        first_groups: (n,), equal for images of one group, at least two groups. If None, each image
            is a group.
        second_groups: (m,).
    """
    distances = _weighted_kernel_distances(
        first,
        second,
        np.ones((1, len(first))),
        np.ones((1, len(second))),
        np.arange(len(first)) if first_groups is None else first_groups,
        np.arange(len(second)) if second_groups is None else second_groups,
    )
    return float(distances[0])


def kernel_distance_interval(
    first: np.ndarray,
    second: np.ndarray,
    first_groups: np.ndarray,
    second_groups: np.ndarray,
    seed: int,
) -> tuple[float, float]:
    """95% interval of ``kernel_distance`` over resamples of whole groups of both sets.

    Args:
        first: float (n, d).
        second: float (m, d).
        first_groups: (n,), equal for images of one group, at least five groups.
        second_groups: (m,).
        seed: Seed of the resampling.
    """
    rng = random_stream(seed, Purpose.KERNEL_DISTANCE_INTERVAL)
    times_first = _times_drawn(first_groups, rng)
    times_second = _times_drawn(second_groups, rng)
    distances = _weighted_kernel_distances(
        first, second, times_first, times_second, first_groups, second_groups
    )
    num_groups = min(len(np.unique(groups)) for groups in (first_groups, second_groups))
    low, high = expanded_interval(distances, num_groups)
    return float(low), float(high)


def _times_drawn(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How often each image is in a resample of groups: float (resamples, n)."""
    names, group_of_image = np.unique(groups, return_inverse=True)
    chances = np.full(len(names), 1 / len(names))
    return rng.multinomial(len(names), chances, _RESAMPLES)[:, group_of_image].astype(np.float64)


def _weighted_kernel_distances(
    first: np.ndarray,
    second: np.ndarray,
    times_first: np.ndarray,
    times_second: np.ndarray,
    first_groups: np.ndarray,
    second_groups: np.ndarray,
) -> np.ndarray:
    """The kernel distance with each image weighted by ``times``: float (resamples,)."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    # The kernel of KID is scikit-learn's default: degree 3, gamma 1 / d, coef0 1.

    def within(features: np.ndarray, times: np.ndarray, groups: np.ndarray) -> np.ndarray:
        other_group = (groups[:, None] != groups).astype(np.float64)
        pairs = (times @ other_group * times).sum(axis=1)
        pairs[pairs == 0] = np.nan  # the resample holds only one group
        return (times @ (other_group * polynomial_kernel(features)) * times).sum(axis=1) / pairs

    between = (times_first @ polynomial_kernel(first, second) * times_second).sum(axis=1)
    between /= times_first.sum(axis=1) * times_second.sum(axis=1)
    within_both = within(first, times_first, first_groups)
    within_both += within(second, times_second, second_groups)
    return within_both - 2 * between
