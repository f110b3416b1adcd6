"""The Frechet distance (FID) of two sets of features."""

import numpy as np
from scipy.linalg import eigvals

from kerasmed.errors import InputError


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Distance of two Gaussians with the sets' means and covariances: the FID of these features.

    Heusel et al., arXiv:1706.08500, equation 6. With n images it is biased upwards by about a
    constant over n, so compare only values of equal n.

    Args:
        first: float (n, d).
        second: float (m, d).

    Raises:
        InputError: There are no more images than features, so that a covariance is singular.
    """
    smallest, width = min(len(first), len(second)), first.shape[1]
    if smallest <= width:
        raise InputError(
            f"Frechet distance: expected more images than the {width} features, received "
            f"{smallest}; use the kernel distance, which has no such bias."
        )
    first, second = first.astype(np.float64), second.astype(np.float64)
    covariance_a, covariance_b = (
        np.atleast_2d(np.cov(features, rowvar=False)) for features in (first, second)
    )
    # The trace of the root of their product is the sum of the roots of its eigenvalues.
    roots = np.sqrt(np.maximum(eigvals(covariance_a @ covariance_b).real, 0)).sum()
    offset = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    return float(offset + np.trace(covariance_a) + np.trace(covariance_b) - 2 * roots)
