"""How close a synthetic set is to the real one, in features of any kind."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple, NotRequired

import numpy as np
from typing_extensions import TypedDict

from kerasmed.errors import InputError
from kerasmed.metrics.frechet import frechet_distance
from kerasmed.metrics.kernel_distance import kernel_distance, kernel_distance_interval
from kerasmed.metrics.manifold import overlap
from kerasmed.metrics.sample_size import computed_or_reason, require_groups, require_images
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import NotComputed, NotNegative, Pair
from kerasmed.settings import Count, UnitInterval

# At most this many images of a set are compared: memory grows with the square.
_COMPARED = 4000


class Distances(TypedDict):
    """How close one set is to reserve images, in some features."""

    kid: float
    """Kernel distance (arXiv:1801.01401); about 0 where both sets are distributed alike."""
    interval: Pair
    """Its 95% interval."""
    fid: float | None
    """Fréchet distance; null where there are no more images than features."""
    precision: UnitInterval
    """Fraction of its images within the neighbourhood of a reserve image (arXiv:1904.06991)."""
    recall: UnitInterval
    """Fraction of the reserve images within the neighbourhood of one of its images."""
    density: NotNegative
    """Mean number of reserve neighbourhoods that hold an image of it, over 5 (arXiv:2002.09797)."""
    coverage: UnitInterval
    """Fraction of the reserve images with an image of it in their neighbourhood."""


class Fidelity(TypedDict):
    """Distance of the synthetic set to reserve images, and that of training to reserve images."""

    compared: Count
    """Number of images of each set."""
    synthetic_to_reserve: Distances
    """Of the synthetic set."""
    train_to_reserve: Distances
    """Of the training images of the diffusion model, for comparison."""


class ClassDistances(TypedDict):
    """Distance of each class to reserve images of it, relative to the distance between classes."""

    between: float
    """Mean kernel distance of two classes of reserve images."""
    synthetic: float
    """Mean over the classes of the synthetic set, over ``between``."""
    train: float
    """The same of the training images."""


class FidelityByClass(TypedDict):
    """Fidelity in one space, over all classes and within each."""

    compared: NotRequired[Count]
    """Number of images of each set."""
    synthetic_to_reserve: NotRequired[Distances]
    """Of the synthetic set."""
    train_to_reserve: NotRequired[Distances]
    """Of the training images of the diffusion model, for comparison."""
    not_computed: NotRequired[str]
    """Instead of the three above: why they could not be computed."""
    class_distances: ClassDistances | NotComputed
    """Distances within the classes."""
    per_class: dict[str, Fidelity | NotComputed]
    """Fidelity within each class."""


class _Sample(NamedTuple):
    """Features (n, d) of chosen images, divided by a scale, and their groups (n,)."""

    features: np.ndarray
    groups: np.ndarray


def fidelity(
    features: dict[str, np.ndarray], groups: dict[str, np.ndarray] | None = None, seed: int = 0
) -> Fidelity:
    """Distance of the synthetic set to reserve images, and that of training to reserve images.

    Most figures depend on the number of images. So each set contributes equally many, 4,000 at
    most, in one random choice. Features are divided by their overall standard deviation on the
    reserve images, so that networks of different scales can be compared.

    Args:
        features: float (n, d) of ``reserve`` (real images that the diffusion model was not trained
            on), ``train`` (its training images, for comparison) and ``synthetic``.
        groups: (n,) of ``reserve`` and ``train``, equal for images that belong together. If None,
            each image is a group.
        seed: Seed of the choice and the interval.

    Raises:
        InputError: One of the sets has fewer than 20 images, or fewer than five groups.
    """
    counts = {f"{name} images": len(of_set) for name, of_set in features.items()}
    require_images("Fidelity", counts)
    compared = min(_COMPARED, *counts.values())
    rng = random_stream(seed, Purpose.FIDELITY_CHOICE)
    chosen = {
        name: rng.choice(len(of_set), compared, replace=False) for name, of_set in features.items()
    }
    samples = {name: _sample(name, at, features, groups) for name, at in chosen.items()}
    num_groups = {
        f"{name} images": len(np.unique(sample.groups)) for name, sample in samples.items()
    }
    require_groups("Fidelity", num_groups)
    return {
        "compared": compared,
        "synthetic_to_reserve": _distances(samples["reserve"], samples["synthetic"], seed),
        "train_to_reserve": _distances(samples["reserve"], samples["train"], seed),
    }


def _sample(
    name: str,
    positions: np.ndarray,
    features: dict[str, np.ndarray],
    groups: dict[str, np.ndarray] | None,
) -> _Sample:
    scale = max(float(features["reserve"].std()), 1e-12)
    of_set = (groups or {}).get(name)
    return _Sample(
        features[name][positions] / scale, positions if of_set is None else of_set[positions]
    )


def _distances(real: _Sample, others: _Sample, seed: int) -> Distances:
    """The figures of one set against reserve images."""
    try:
        frechet = frechet_distance(real.features, others.features)
    except InputError:  # too few images
        frechet = None
    sets = (real.features, others.features, real.groups, others.groups)
    shared = overlap(
        real.features, others.features, real_groups=real.groups, synthetic_groups=others.groups
    )
    return {
        "kid": kernel_distance(*sets),
        "interval": list(kernel_distance_interval(*sets, seed)),
        "fid": frechet,
        "precision": shared.precision,
        "recall": shared.recall,
        "density": shared.density,
        "coverage": shared.coverage,
    }


def fidelity_by_class(
    features: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    class_names: Sequence[str],
    groups: dict[str, np.ndarray] | None = None,
    seed: int = 0,
) -> FidelityByClass:
    """As ``fidelity``, over all classes and within each, or the reason where it is not computed.

    Over all classes, synthetic images are chosen so that their classes are as frequent as among the
    reserve images. The figures then compare images and not class frequencies.

    Args:
        features: float (n, d) of the sets ``reserve``, ``train`` and ``synthetic``.
        labels: int (n,) of each set.
        class_names: Names of the classes.
        groups: As of ``fidelity``.
        seed: Seed of the choices.
    """

    def compare(label: int | None) -> Fidelity | NotComputed:
        chosen = {
            name: np.arange(len(of_set)) if label is None else np.flatnonzero(of_set == label)
            for name, of_set in labels.items()
        }
        if label is None:
            chosen["synthetic"] = _as_frequent(labels["synthetic"], labels["reserve"], seed)
        features_of = {name: of_set[chosen[name]] for name, of_set in features.items()}
        groups_of = {name: of_set[chosen[name]] for name, of_set in (groups or {}).items()}
        return computed_or_reason(lambda: fidelity(features_of, groups_of, seed))

    by_class = {name: compare(label) for label, name in enumerate(class_names)}
    distances = computed_or_reason(
        lambda: class_distances(features, labels, class_names, groups, seed)
    )
    return {**compare(None), "class_distances": distances, "per_class": by_class}


def _as_frequent(labels: np.ndarray, reference: np.ndarray, seed: int) -> np.ndarray:
    """Positions of as many images as possible, of classes as frequent as in the reference."""
    wanted = np.bincount(reference)
    available = np.bincount(labels, minlength=len(wanted))
    scale = min(available[label] / count for label, count in enumerate(wanted) if count)
    rng = random_stream(seed, Purpose.FIDELITY_FREQUENCIES)
    chosen = [
        rng.choice(np.flatnonzero(labels == label), int(scale * count), replace=False)
        for label, count in enumerate(wanted)
    ]
    return np.sort(np.concatenate(chosen))


def class_distances(
    features: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    class_names: Sequence[str],
    groups: dict[str, np.ndarray] | None = None,
    seed: int = 0,
) -> ClassDistances:
    """Distance of each class to reserve images of it, relative to the distance between classes.

    Args:
        features: float (n, d) of the sets ``reserve``, ``train`` and ``synthetic``.
        labels: int (n,) of each set.
        class_names: Names of the classes.
        groups: As of ``fidelity``.
        seed: Seed of the choice of at most 4,000 images of a class, and of the intervals.

    Returns:
        The relative distances are 0 where images of a class are distributed alike, and 1 where they
        are as far apart as two classes.

    Raises:
        InputError: A class has fewer than 20 images or fewer than five groups in one of the sets,
            or classes of real images are not apart, so that there is no scale.
    """
    samples = _class_samples(features, labels, class_names, groups, seed)
    between = _between_classes(samples["reserve"], seed)

    def within(name: str) -> float:
        distances = [
            kernel_distance(real.features, others.features, real.groups, others.groups)
            for real, others in zip(samples["reserve"], samples[name], strict=True)
        ]
        return float(np.mean(distances)) / between

    return {"between": between, "synthetic": within("synthetic"), "train": within("train")}


def _class_samples(
    features: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    class_names: Sequence[str],
    groups: dict[str, np.ndarray] | None,
    seed: int,
) -> dict[str, list[_Sample]]:
    """A random choice of the images of each class, by set."""
    rng = random_stream(seed, Purpose.CLASS_DISTANCE_CHOICE)

    def positions(name: str, label: int) -> np.ndarray:
        of_class = np.flatnonzero(labels[name] == label)
        return rng.choice(of_class, min(len(of_class), _COMPARED), replace=False)

    samples = {
        name: [
            _sample(name, positions(name, label), features, groups)
            for label in range(len(class_names))
        ]
        for name in features
    }
    group_names = {
        f"{name} images of {class_name}": sample.groups
        for name, of_set in samples.items()
        for class_name, sample in zip(class_names, of_set, strict=True)
    }
    counts = {name: len(of_class) for name, of_class in group_names.items()}
    require_images("Distance of classes", counts)
    num_groups = {name: len(np.unique(of_class)) for name, of_class in group_names.items()}
    require_groups("Distance of classes", num_groups)
    return samples


def _between_classes(reserve: list[_Sample], seed: int) -> float:
    """Mean kernel distance of two classes of real images, refused if within chance of 0."""
    pairs = [
        (first.features, second.features, first.groups, second.groups)
        for first, second in combinations(reserve, 2)
    ]
    between = float(np.mean([kernel_distance(*pair) for pair in pairs]))
    lows = [kernel_distance_interval(*pair, seed)[0] for pair in pairs]
    if np.mean(lows) <= 0:
        raise InputError(
            "Distance of classes: expected classes of real images that lie apart in these "
            f"features, received a kernel distance of {between:.3g}, within chance of 0; compare "
            "in features that separate the classes."
        )
    return between
