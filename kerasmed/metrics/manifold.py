"""Precision, recall, density and coverage of a synthetic set."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from kerasmed.errors import InputError

# The neighbourhood of an image reaches to its k-th nearest neighbour: this is k.
NEIGHBOURS = 5


@dataclass(frozen=True)
class Overlap:
    """How two sets cover each other, by the neighbourhoods of their images.

    The neighbourhood of an image reaches to the k-th nearest image of its own set. Images of its
    group do not count: among five slices of one patient it would have almost no extent.

    Attributes:
        precision: Fraction of synthetic images within the neighbourhood of any real one
            (Kynkäänniemi et al., arXiv:1904.06991).
        recall: Fraction of real images within the neighbourhood of any synthetic one.
        density: Mean number of real neighbourhoods that hold a synthetic image, over k (Naeem et
            al., arXiv:2002.09797). About 1 where both sets are distributed alike, and more where
            the synthetic images crowd.
        coverage: Fraction of real images with a synthetic one within their neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def overlap(
    real: np.ndarray,
    synthetic: np.ndarray,
    neighbours: int = NEIGHBOURS,
    real_groups: np.ndarray | None = None,
    synthetic_groups: np.ndarray | None = None,
) -> Overlap:
    """Precision, recall, density and coverage of a synthetic set.

    Args:
        real: float (n, d).
        synthetic: float (m, d).
        neighbours: k.
        real_groups: (n,), equal for images of one group. If None, each image is a group.
        synthetic_groups: (m,).

    Raises:
        InputError: Fewer than k images are of other groups than some image.
    """
    between = cdist(real, synthetic)
    real_radii, synthetic_radii = (
        _radii(features, np.arange(len(features)) if groups is None else groups, neighbours)
        for features, groups in ((real, real_groups), (synthetic, synthetic_groups))
    )
    inside_real = between < real_radii[:, None]
    return Overlap(
        precision=float(inside_real.any(axis=0).mean()),
        recall=float((between < synthetic_radii).any(axis=1).mean()),
        density=float(inside_real.sum(axis=0).mean() / neighbours),
        coverage=float((between.min(axis=1) < real_radii).mean()),
    )


def _radii(features: np.ndarray, groups: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance of each image (n, d) to its k-th nearest of another group: float (n,)."""
    _, group_of_image, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    others = len(features) - int(sizes.max())
    if others < neighbours:
        raise InputError(
            f"Precision and recall: expected at least {neighbours} images outside the largest "
            f"group, received {others}; add images of other groups."
        )
    distances = cdist(features, features)
    distances[group_of_image[:, None] == group_of_image] = np.inf
    return np.partition(distances, neighbours - 1, axis=1)[:, neighbours - 1]
