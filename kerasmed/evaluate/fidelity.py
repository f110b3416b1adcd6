"""How close a generated set is to the real one, in the features of a classifier."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.linalg import eigvals
from scipy.spatial.distance import cdist

from kerasmed.errors import InputError
from kerasmed.evaluate.enough import or_reason, require_enough

# Neighbours that make an image's surroundings in precision, recall, density and coverage.
NEIGHBOURS = 5


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy: the Kernel Inception Distance's estimator.

    Kernel (x.y / d + 1)^3 (Binkowski et al., arXiv:1801.01401, section 4). Unbiased, so it
    may be negative when both sets come from one distribution.

    Args:
        first: float (n, d).
        second: float (m, d).
    """
    n, m, d = len(first), len(second), first.shape[1]
    first, second = first.astype(np.float64), second.astype(np.float64)
    within_first = (first @ first.T / d + 1) ** 3
    within_second = (second @ second.T / d + 1) ** 3
    between = (first @ second.T / d + 1) ** 3
    return float(
        (within_first.sum() - np.trace(within_first)) / (n * (n - 1))
        + (within_second.sum() - np.trace(within_second)) / (m * (m - 1))
        - 2 * between.mean()
    )


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

    The surroundings of an image reach to the k-th nearest other one of its own set.

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


def overlap(real: np.ndarray, generated: np.ndarray, neighbours: int = NEIGHBOURS) -> Overlap:
    """Precision, recall, density and coverage of a generated set.

    Args:
        real: float (n, d).
        generated: float (m, d).
        neighbours: k.
    """
    between = cdist(real, generated)
    reach_of_real, reach_of_generated = (
        np.partition(cdist(each, each), neighbours, axis=1)[:, neighbours]
        for each in (real, generated)
    )
    inside_real = between < reach_of_real[:, None]
    return Overlap(
        precision=float(inside_real.any(axis=0).mean()),
        recall=float((between < reach_of_generated).any(axis=1).mean()),
        density=float(inside_real.sum(axis=0).mean() / neighbours),
        coverage=float((between.min(axis=1) < reach_of_real).mean()),
    )


def fidelity(
    held_out_features: np.ndarray,
    seen_features: np.ndarray,
    generated_features: np.ndarray,
    subsets: int = 50,
    seed: int = 0,
) -> dict[str, Any]:
    """Distance of the generated set to held-out real images, beside that of real to real.

    The kernel distance is the mean over random subsets of one size, its interval the 2.5 and 97.5
    percentiles over them. All else is of one random choice of as many images of each set, since it
    depends on their number. Features are divided by their overall standard deviation on the
    held-out images, so that networks of different scales can be compared.

    Args:
        held_out_features: of real images that the diffusion model did not see, (n, d).
        seen_features: of the real images that it learned from, (m, d); the reference.
        generated_features: of the generated images, (k, d).
        subsets: how many.
        seed: of the subsets.

    Returns:
        ``generated_to_held_out`` and ``seen_to_held_out``, each with ``kid``, ``interval``, ``fid``
        (None where there are no more images than features), and what ``Overlap`` has;
        ``subset_size``, ``subsets``, and ``compared``, the images of each set.

    Raises:
        InputError: fewer than 20 images in one of the sets.
    """
    sets = {"held out": held_out_features, "seen": seen_features, "generated": generated_features}
    require_enough("Fidelity", {f"{name} images": len(each) for name, each in sets.items()})
    compared = min(len(features) for features in sets.values())
    size = min(100, compared)
    scale = max(float(held_out_features.std()), 1e-12)
    rng = np.random.default_rng(seed)
    real = _some(held_out_features, compared, rng) / scale

    def distances(features: np.ndarray) -> dict[str, Any]:
        values = [
            kernel_distance(
                _some(held_out_features, size, rng) / scale, _some(features, size, rng) / scale
            )
            for _ in range(subsets)
        ]
        low, high = np.percentile(values, [2.5, 97.5])
        others = _some(features, compared, rng) / scale
        try:
            frechet = frechet_distance(real, others)
        except InputError:  # too few images
            frechet = None
        return {
            "kid": float(np.mean(values)),
            "interval": [float(low), float(high)],
            "fid": frechet,
            **asdict(overlap(real, others)),
        }

    return {
        "subset_size": size,
        "subsets": subsets,
        "compared": compared,
        "generated_to_held_out": distances(generated_features),
        "seen_to_held_out": distances(seen_features),
    }


def fidelity_by_class(
    features: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    class_names: Sequence[str],
    seed: int = 0,
) -> dict[str, Any]:
    """As ``fidelity``, over all classes and within each, or the reason where it is not computed.

    Args:
        features: float (n, d) of the sets ``held_out``, ``seen`` and ``generated``.
        labels: int (n,) of each.
        class_names: names of the classes.
        seed: of the subsets.

    Returns:
        What ``fidelity`` returns, or ``not_computed``; ``class_distances``, see there; and
        ``per_class``, the same by class name.
    """

    def compare(label: int | None) -> dict[str, Any]:
        chosen = {
            name: each if label is None else each[labels[name] == label]
            for name, each in features.items()
        }
        return or_reason(
            lambda: fidelity(chosen["held_out"], chosen["seen"], chosen["generated"], seed=seed)
        )

    by_class = {name: compare(label) for label, name in enumerate(class_names)}
    distances = or_reason(lambda: class_distances(features, labels, class_names))
    return {**compare(None), "class_distances": distances, "per_class": by_class}


def class_distances(
    features: dict[str, np.ndarray], labels: dict[str, np.ndarray], class_names: Sequence[str]
) -> dict[str, float]:
    """How far the images of a class are from held-out real ones of it, where classes lie apart.

    Args:
        features: float (n, d) of the sets ``held_out``, ``seen`` and ``generated``.
        labels: int (n,) of each.
        class_names: names of the classes.

    Returns:
        ``between``, the mean kernel distance of two classes of held-out images; ``generated`` and
        ``seen``, the mean over the classes of the distance of their images to held-out ones of the
        same class, over ``between``: 0 where they are alike, 1 where they are as far apart as
        classes are.

    Raises:
        InputError: fewer than 20 images of a class in one of the sets.
    """
    scale = max(float(features["held_out"].std()), 1e-12)
    of_class = {
        name: [features[name][labels[name] == i] / scale for i in range(len(class_names))]
        for name in ("held_out", "seen", "generated")
    }
    counts = {
        f"{name.replace('_', ' ')} images of {class_name}": len(each)
        for name, sets in of_class.items()
        for class_name, each in zip(class_names, sets, strict=True)
    }
    require_enough("Distance of classes", counts)
    real = of_class["held_out"]
    between = float(np.mean([kernel_distance(one, two) for one, two in combinations(real, 2)]))

    def within(name: str) -> float:
        pairs = zip(real, of_class[name], strict=True)
        within_classes = float(np.mean([kernel_distance(one, two) for one, two in pairs]))
        return within_classes / max(between, 1e-12)  # 0 / 0 where all features are constant

    return {"between": between, "generated": within("generated"), "seen": within("seen")}


def _some(features: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(features, count, replace=False)
