"""Precision, recall, density and coverage of a generated set."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from kerasmed.errors import InputError

# Neighbours that make an image's surroundings in precision, recall, density and coverage.
NEIGHBOURS = 5


@dataclass(frozen=True)
class Overlap:
    """How two sets cover each other, by the surroundings of their images.

    The surroundings of an image reach to the k-th nearest other one of its own set, of those that
    are not of its group: among five slices of one patient they would reach nowhere.

    Attributes:
        precision: share of generated images within the surroundings of any real one
            (Kynkäänniemi et al., arXiv:1904.06991).
        recall: share of real images within the surroundings of any generated one.
        density: mean number of real surroundings that a generated image lies in, over k
            (Naeem et al., arXiv:2002.09797); about 1 where both are alike, and more where the
            generated ones crowd.
        coverage: share of real images with a generated one within their surroundings.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def overlap(
    real: np.ndarray,
    generated: np.ndarray,
    neighbours: int = NEIGHBOURS,
    real_groups: np.ndarray | None = None,
    generated_groups: np.ndarray | None = None,
) -> Overlap:
    """Precision, recall, density and coverage of a generated set.

    Args:
        real: float (n, d).
        generated: float (m, d).
        neighbours: k.
        real_groups: (n,), equal for images of one group; each image for itself if None.
        generated_groups: (m,).

    Raises:
        InputError: an image of which fewer than k others are of another group.
    """
    between = cdist(real, generated)
    reach_of_real, reach_of_generated = (
        _reach(each, np.arange(len(each)) if groups is None else groups, neighbours)
        for each, groups in ((real, real_groups), (generated, generated_groups))
    )
    inside_real = between < reach_of_real[:, None]
    return Overlap(
        precision=float(inside_real.any(axis=0).mean()),
        recall=float((between < reach_of_generated).any(axis=1).mean()),
        density=float(inside_real.sum(axis=0).mean() / neighbours),
        coverage=float((between.min(axis=1) < reach_of_real).mean()),
    )


def _reach(images: np.ndarray, groups: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance of each image (n, d) to its k-th nearest of another group: float (n,)."""
    _, of_image, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    others = len(images) - int(sizes.max())
    if others < neighbours:
        raise InputError(
            f"Precision and recall: expected at least {neighbours} images beside those of any one "
            f"group, received {others}; add images of others."
        )
    apart = cdist(images, images)
    apart[of_image[:, None] == of_image] = np.inf
    return np.partition(apart, neighbours - 1, axis=1)[:, neighbours - 1]
