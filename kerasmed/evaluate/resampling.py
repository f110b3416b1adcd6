"""Intervals from bootstrap resamples of whole groups."""

import numpy as np
from scipy.stats import norm, t


def expanded_interval(resampled: np.ndarray, groups: int) -> np.ndarray:
    """95% interval from what a statistic came to in resamples of so many groups.

    Percentiles, moved outwards so that few groups make it as wide as a t interval would be
    (Hesterberg, arXiv:1411.5279, "expanded percentile interval"): with five groups the 0.1st and
    99.9th, with a thousand the 2.5th and 97.5th.

    Args:
        resampled: float (resamples, ...), NaN where a resample does not have the statistic.
        groups: of the sample, of the lesser one where there are two: at least 2.

    Returns:
        float64 (2, ...), the lower and the upper end.
    """
    tail = 100 * norm.cdf(t.ppf(0.025, groups - 1) * np.sqrt(groups / (groups - 1)))
    return np.nanpercentile(resampled, [tail, 100 - tail], axis=0)
