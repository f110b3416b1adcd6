"""How close a generated set is to the real one, in the features of a classifier."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.linalg import eigvals
from scipy.spatial.distance import cdist

from kerasmed.errors import InputError
from kerasmed.evaluate.enough import or_reason, require_enough, require_groups
from kerasmed.evaluate.resampling import expanded_interval

# Neighbours that make an image's surroundings in precision, recall, density and coverage.
NEIGHBOURS = 5
# Images of a set that are compared at most: memory grows with the square.
_COMPARED = 4000
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
    rng = np.random.default_rng(seed)
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


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Distance of two Gaussians with the sets' means and covariances: the FID of these features.

    Heusel et al., arXiv:1706.08500, equation 6. With n images it is too large by about a constant
    over n, so compare only values of equal n.

    Args:
        first: float (n, d).
        second: float (m, d).

    Raises:
        InputError: no more images than features, so that a covariance is singular.
    """
    smallest, width = min(len(first), len(second)), first.shape[1]
    if smallest <= width:
        raise InputError(
            f"Frechet distance: expected more images than the {width} features, received "
            f"{smallest}; use the kernel distance, which has no such bias."
        )
    first, second = first.astype(np.float64), second.astype(np.float64)
    covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    covariance_a, covariance_b = (np.atleast_2d(each) for each in covariances)
    # The trace of the root of their product is the sum of the roots of its eigenvalues.
    roots = np.sqrt(np.maximum(eigvals(covariance_a @ covariance_b).real, 0)).sum()
    offset = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    return float(offset + np.trace(covariance_a) + np.trace(covariance_b) - 2 * roots)


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


def fidelity(
    features: dict[str, np.ndarray], groups: dict[str, np.ndarray] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Distance of the generated set to held-out real images, beside that of real to real.

    All is of one random choice of as many images of each set, 4,000 at most, since most of it
    depends on their number. Features are divided by their overall standard deviation on the
    held-out images, so that networks of different scales can be compared.

    Args:
        features: float (n, d) of ``held_out`` (real images that the diffusion model did not see),
            ``seen`` (those that it learned from; the reference) and ``generated``.
        groups: (n,) of ``held_out`` and ``seen``, equal for images that belong together; each image
            for itself if None.
        seed: of the choice and the interval.

    Returns:
        ``generated_to_held_out`` and ``seen_to_held_out``, each with ``kid`` (the kernel distance),
        its 95% ``interval``, ``fid`` (None where there are no more images than features), and what
        ``Overlap`` has; ``compared``, the images of each set.

    Raises:
        InputError: fewer than 20 images in one of the sets, or of fewer than five groups.
    """
    counts = {f"{name.replace('_', ' ')} images": len(each) for name, each in features.items()}
    require_enough("Fidelity", counts)
    compared = min(_COMPARED, *counts.values())
    scale = max(float(features["held_out"].std()), 1e-12)
    rng = np.random.default_rng(seed)
    chosen = {n: rng.choice(len(each), compared, replace=False) for n, each in features.items()}
    some = {name: features[name][at] / scale for name, at in chosen.items()}
    of_group = {
        name: groups[name][at] if groups and name in groups else at for name, at in chosen.items()
    }
    require_groups(
        "Fidelity",
        {f"{n.replace('_', ' ')} images": len(np.unique(each)) for n, each in of_group.items()},
    )

    def distances(name: str) -> dict[str, Any]:
        real, others = some["held_out"], some[name]
        try:
            frechet = frechet_distance(real, others)
        except InputError:  # too few images
            frechet = None
        interval = kernel_distance_interval(
            real, others, of_group["held_out"], of_group[name], seed
        )
        return {
            "kid": kernel_distance(real, others, of_group["held_out"], of_group[name]),
            "interval": list(interval),
            "fid": frechet,
            **asdict(
                overlap(
                    real,
                    others,
                    real_groups=of_group["held_out"],
                    generated_groups=of_group[name],
                )
            ),
        }

    return {
        "compared": compared,
        "generated_to_held_out": distances("generated"),
        "seen_to_held_out": distances("seen"),
    }


def fidelity_by_class(
    features: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    class_names: Sequence[str],
    groups: dict[str, np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """As ``fidelity``, over all classes and within each, or the reason where it is not computed.

    Over all classes as many generated images of each are taken as make the classes as frequent as
    among the held-out ones, so that what differs is the images and not their classes.

    Args:
        features: float (n, d) of the sets ``held_out``, ``seen`` and ``generated``.
        labels: int (n,) of each.
        class_names: names of the classes.
        groups: as of ``fidelity``.
        seed: of the choices.

    Returns:
        What ``fidelity`` returns, or ``not_computed``; ``class_distances``, see there; and
        ``per_class``, the same by class name.
    """

    def compare(label: int | None) -> dict[str, Any]:
        chosen = {
            name: np.arange(len(of)) if label is None else np.flatnonzero(of == label)
            for name, of in labels.items()
        }
        if label is None:
            chosen["generated"] = _as_frequent(labels["generated"], labels["held_out"], seed)
        parts = {name: each[chosen[name]] for name, each in features.items()}
        of_group = {name: each[chosen[name]] for name, each in (groups or {}).items()}
        return or_reason(lambda: fidelity(parts, of_group, seed))

    by_class = {name: compare(label) for label, name in enumerate(class_names)}
    distances = or_reason(lambda: class_distances(features, labels, class_names, groups, seed))
    return {**compare(None), "class_distances": distances, "per_class": by_class}


def _as_frequent(labels: np.ndarray, reference: np.ndarray, seed: int) -> np.ndarray:
    """Positions of as many images as can be, of classes as frequent as in the reference."""
    wanted = np.bincount(reference)
    there = np.bincount(labels, minlength=len(wanted))
    scale = min(there[label] / count for label, count in enumerate(wanted) if count)
    rng = np.random.default_rng(seed)
    taken = [
        rng.choice(np.flatnonzero(labels == label), int(scale * count), replace=False)
        for label, count in enumerate(wanted)
    ]
    return np.sort(np.concatenate(taken))


def class_distances(
    features: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    class_names: Sequence[str],
    groups: dict[str, np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """How far the images of a class are from held-out real ones of it, where classes lie apart.

    Args:
        features: float (n, d) of the sets ``held_out``, ``seen`` and ``generated``.
        labels: int (n,) of each.
        class_names: names of the classes.
        groups: as of ``fidelity``.
        seed: of the choice of at most 4,000 images of a class, and of the intervals.

    Returns:
        ``between``, the mean kernel distance of two classes of held-out images; ``generated`` and
        ``seen``, the mean over the classes of the distance of their images to held-out ones of the
        same class, over ``between``: 0 where they are alike, 1 where they are as far apart as
        classes are.

    Raises:
        InputError: fewer than 20 images of a class in one of the sets, or of fewer than five
            groups, or classes of real images that do not lie apart, so that there is no scale.
    """
    scale = max(float(features["held_out"].std()), 1e-12)
    rng = np.random.default_rng(seed)

    def positions(name: str, label: int) -> np.ndarray:
        found = np.flatnonzero(labels[name] == label)
        return rng.choice(found, min(len(found), _COMPARED), replace=False)

    chosen = {name: [positions(name, i) for i in range(len(class_names))] for name in features}
    of_class = {name: [features[name][at] / scale for at in each] for name, each in chosen.items()}
    of_group = {
        name: [groups[name][at] if groups and name in groups else at for at in each]
        for name, each in chosen.items()
    }
    parts = {
        f"{name.replace('_', ' ')} images of {class_name}": each
        for name, sets in of_group.items()
        for class_name, each in zip(class_names, sets, strict=True)
    }
    require_enough("Distance of classes", {name: len(each) for name, each in parts.items()})
    groups_of_parts = {name: len(np.unique(each)) for name, each in parts.items()}
    require_groups("Distance of classes", groups_of_parts)
    real, drawn = of_class["held_out"], of_group["held_out"]
    pairs = list(combinations(range(len(real)), 2))
    between = float(
        np.mean([kernel_distance(real[i], real[j], drawn[i], drawn[j]) for i, j in pairs])
    )
    lows = [
        kernel_distance_interval(real[i], real[j], drawn[i], drawn[j], seed)[0] for i, j in pairs
    ]
    if np.mean(lows) <= 0:
        raise InputError(
            "Distance of classes: expected classes of real images that lie apart in these "
            f"features, received a kernel distance of {between:.3g}, within chance of 0; compare "
            "in features that tell the classes."
        )

    def within(name: str) -> float:
        pairs = zip(real, of_class[name], drawn, of_group[name], strict=True)
        return float(np.mean([kernel_distance(*each) for each in pairs])) / between

    return {"between": between, "generated": within("generated"), "seen": within("seen")}
