"""The kernel distance (KID) of two sets of features, and its interval."""

import numpy as np

from kerasmed.metrics.statistics import expanded_interval
from kerasmed.random_streams import Purpose, random_stream

_RESAMPLES = 200


def kernel_distance(
    first: np.ndarray,
    second: np.ndarray,
    first_groups: np.ndarray | None = None,
    second_groups: np.ndarray | None = None,
) -> float:
    """Unbiased squared maximum mean discrepancy: the Kernel Inception Distance's estimator.

    Kernel (x.y / d + 1)^3 (Binkowski et al., arXiv:1801.01401, section 4). Unbiased, so it
    may be negative when both sets come from one distribution. Within a set no image is paired with
    itself, nor with another of its group: two images of one patient are more alike than two
    patients are, and two sets of other patients would seem to lie apart.

    Args:
        first: float (n, d).
        second: float (m, d).
        first_groups: (n,), equal for images of one group, at least two of them; each image for
            itself if None.
        second_groups: (m,).
    """
    found = _weighted_kernel_distances(
        first,
        second,
        np.ones((1, len(first))),
        np.ones((1, len(second))),
        np.arange(len(first)) if first_groups is None else first_groups,
        np.arange(len(second)) if second_groups is None else second_groups,
    )
    return float(found[0])


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
        first_groups: (n,), equal for images of one group, at least five of them.
        second_groups: (m,).
        seed: of the resampling.
    """
    rng = random_stream(seed, Purpose.KERNEL_DISTANCE_INTERVAL)
    times_first, times_second = (_times_drawn(each, rng) for each in (first_groups, second_groups))
    found = _weighted_kernel_distances(
        first, second, times_first, times_second, first_groups, second_groups
    )
    groups = min(len(np.unique(each)) for each in (first_groups, second_groups))
    low, high = expanded_interval(found, groups)
    return float(low), float(high)


def _times_drawn(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How often each image is in a resample of groups: float (resamples, n)."""
    names, of_image = np.unique(groups, return_inverse=True)
    chances = np.full(len(names), 1 / len(names))
    return rng.multinomial(len(names), chances, _RESAMPLES)[:, of_image].astype(np.float64)


def _weighted_kernel_distances(
    first: np.ndarray,
    second: np.ndarray,
    times_first: np.ndarray,
    times_second: np.ndarray,
    first_groups: np.ndarray,
    second_groups: np.ndarray,
) -> np.ndarray:
    """The kernel distance with each group counted so often: float (resamples,)."""
    first, second = first.astype(np.float64), second.astype(np.float64)

    def kernel(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        return (one @ two.T / one.shape[1] + 1) ** 3

    def within(images: np.ndarray, times: np.ndarray, groups: np.ndarray) -> np.ndarray:
        others = (groups[:, None] != groups).astype(np.float64)
        pairs = (times @ others * times).sum(axis=1)
        pairs[pairs == 0] = np.nan  # one group alone, as often as it was drawn
        return (times @ (others * kernel(images, images)) * times).sum(axis=1) / pairs

    between = (times_first @ kernel(first, second) * times_second).sum(axis=1)
    between /= times_first.sum(axis=1) * times_second.sum(axis=1)
    within_both = within(first, times_first, first_groups)
    within_both += within(second, times_second, second_groups)
    return within_both - 2 * between
