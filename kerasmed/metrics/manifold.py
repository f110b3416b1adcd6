"""Precision, recall, density and coverage of a set of images."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances

from kerasmed.errors import InputError
from kerasmed.metrics.jackknife import Figure, mean_figure
from kerasmed.metrics.sample import Sample

# The neighbourhood of an image reaches to its k-th nearest neighbour: this is k.
NEIGHBOURS = 5
_ROWS = 1024  # of a matrix of distances that are in memory at once


@dataclass(frozen=True)
class Overlap:
    """How two sets cover each other, by the neighbourhoods of their images.

    The neighbourhood of a reserve image reaches to the k-th nearest reserve image. Images of its
    own group do not count: among five slices of one patient it would have almost no extent. So
    precision, density and coverage treat any two other sets alike.

    The neighbourhoods of ``recall`` are those of the other set, whose groups are ignored: a set of
    few large groups has small ones. Compare it only between sets that are grouped alike.

    Attributes:
        precision: fraction of the images within the neighbourhood of any reserve image
            (Kynkäänniemi et al., arXiv:1904.06991).
        recall: fraction of the reserve images within the neighbourhood of any image.
        density: mean number of reserve neighbourhoods that hold an image, over k (Naeem et al.,
            arXiv:2002.09797). About 1 where both sets are distributed alike, and more where the
            images crowd.
        coverage: fraction of the reserve images with an image within their neighbourhood.
    """

    precision: Figure
    recall: float
    density: float
    coverage: Figure


def overlap(
    reserve: Sample,
    images: Sample,
    neighbours: int = NEIGHBOURS,
    added: tuple[bool, bool] = (True, False),
) -> Overlap:
    """Precision, recall, density and coverage of a set of images.

    The intervals of precision and coverage take the neighbourhoods as given. They are of the
    groups whose images these are, and of the groups that are found in them.

    Args:
        reserve: real images that the images are compared with.
        images: the set in question.
        neighbours: k.
        added: where all groups are covered they do not vary, and yet the next one may not be. So
            the intervals are those of two groups more, which are covered or not. Of two sets whose
            ratio is wanted, the second gets ``(False, True)``: each covers one that the other does
            not (Bonett and Price, Statistical Methods in Medical Research 15, 2006).

    Raises:
        InputError: fewer than k images are of other groups than some image of ``reserve``; or there
            are no more than k images.
    """
    radii = _radii(reserve.features, reserve.groups, neighbours)
    own_radii = _radii(images.features, np.arange(len(images)), neighbours)
    inside = np.empty((len(reserve), len(images)), bool)
    recalled = np.empty(len(reserve), bool)
    for start in range(0, len(reserve), _ROWS):
        rows = slice(start, start + _ROWS)
        distances = euclidean_distances(reserve.features[rows], images.features)
        inside[rows] = distances < radii[rows, None]
        recalled[rows] = (distances < own_radii).any(axis=1)
    return Overlap(
        precision=_fraction_covered(inside, reserve, images, added),
        recall=float(recalled.mean()),
        density=float(inside.sum(axis=0).mean() / neighbours),
        coverage=_fraction_covered(inside.T, images, reserve, added),
    )


def _fraction_covered(
    hits: np.ndarray, by: Sample, covered: Sample, added: tuple[bool, bool]
) -> Figure:
    """Fraction of the images of one sample that any image of another one covers.

    Args:
        hits: bool (n, m), whether each image of ``by`` covers each image of ``covered``.
        by: the sample that covers, (n,).
        covered: the sample of the fraction, (m,).
        added: whether each of two further groups is covered, for the interval.
    """
    order = np.argsort(by.groups, kind="stable")
    starts = np.flatnonzero(np.diff(by.groups[order], prepend=-1))
    of_group = np.logical_or.reduceat(hits[order], starts, axis=0)  # by any image of each group
    is_covered = np.asarray(of_group.any(axis=0))
    # Without a group, only images that no other group covers are lost.
    lost = np.zeros(by.num_groups)
    lost[by.groups[order][starts]] = of_group[:, of_group.sum(axis=0) == 1].sum(axis=1)
    count = len(is_covered)
    of_groups = mean_figure(
        is_covered, {covered.name: covered.groups}, added, covered.num_groups
    ).without
    return Figure(
        float(is_covered.mean()), {by.name: (is_covered.sum() - lost) / count, **of_groups}
    )


def _radii(features: np.ndarray, groups: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance of each image (n, d) to its k-th nearest of another group: float (n,)."""
    _, sizes = np.unique(groups, return_counts=True)
    others = len(features) - int(sizes.max())
    if others < neighbours:
        raise InputError(
            f"Precision and recall: expected at least {neighbours} images outside the largest "
            f"group, received {others}; add images of other groups."
        )
    radii = np.empty(len(features))
    for start in range(0, len(features), _ROWS):
        rows = slice(start, start + _ROWS)
        distances = euclidean_distances(features[rows], features)
        distances[groups[rows, None] == groups] = np.inf
        radii[rows] = np.partition(distances, neighbours - 1, axis=1)[:, neighbours - 1]
    return radii
