"""How close a synthetic set is to the real one, in features of any kind."""

from collections.abc import Sequence
from itertools import combinations
from typing import NotRequired

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.label_agreement import LabelAgreement, label_agreement
from kerasmed.errors import InputError
from kerasmed.metrics.frechet import frechet_distance
from kerasmed.metrics.jackknife import Figure, combine, mean_of, ratio_of
from kerasmed.metrics.kernel_distance import kernel_distance
from kerasmed.metrics.manifold import Overlap, overlap
from kerasmed.metrics.sample import Sample
from kerasmed.metrics.sample_size import computed_or_reason, require_groups, require_images
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import Estimate, NotComputed, NotNegative, Pair
from kerasmed.settings import Count, UnitInterval

# At most this many images of a set are compared: time grows with the square.
_COMPARED = 10_000
_ROUNDING = 1e-9  # kernel distances of constant features differ from 0 by less


class Distances(TypedDict):
    """How close one set is to reserve images, in some features."""

    kid: float
    """Kernel distance (arXiv:1801.01401); about 0 where both sets are distributed alike."""
    interval: Pair
    """Its 95% interval, over groups."""
    fid: float | None
    """Fréchet distance; null where there are no more images than features."""
    precision: UnitInterval
    """Fraction of its images within the neighbourhood of a reserve image (arXiv:1904.06991)."""
    recall: UnitInterval
    """Fraction of the reserve images within the neighbourhood of one of its images. It depends on
    the groups of the set, and decides nothing."""
    density: NotNegative
    """Mean number of reserve neighbourhoods that hold an image of it, over 5 (arXiv:2002.09797)."""
    coverage: UnitInterval
    """Fraction of the reserve images with an image of it in their neighbourhood."""


class Relative(TypedDict):
    """Figures of the synthetic set, over those of the training images."""

    precision: Estimate
    """Realism: the ratio of both precisions."""
    coverage: Estimate
    """Variety: the ratio of both coverages."""


class Fidelity(TypedDict):
    """Distance of the synthetic set to reserve images, and that of training to reserve images."""

    compared: Count
    """Number of images of each set."""
    groups: dict[str, Count]
    """Number of groups, such as patients, of the compared ``reserve`` and ``train`` images."""
    synthetic_to_reserve: Distances
    """Of the synthetic set."""
    train_to_reserve: Distances
    """Of the training images of the diffusion model, for comparison."""
    relative: Relative
    """One over the other."""


class ClassDistances(TypedDict):
    """Distance of each class to reserve images of it, relative to the distance between classes."""

    fewest_groups: Count
    """Number of groups of the class, of reserve or training images, that has fewest."""

    between: float
    """Mean kernel distance of two classes of reserve images."""
    synthetic: float
    """Mean over the classes of the synthetic set, over ``between``."""
    train: float
    """The same of the training images."""
    excess: Estimate
    """The former less the latter."""


class FidelityByClass(TypedDict):
    """Fidelity in one space, over all classes and within each."""

    compared: NotRequired[Count]
    """Number of images of each set."""
    groups: NotRequired[dict[str, Count]]
    """Number of groups, such as patients, of the compared ``reserve`` and ``train`` images."""
    synthetic_to_reserve: NotRequired[Distances]
    """Of the synthetic set."""
    train_to_reserve: NotRequired[Distances]
    """Of the training images of the diffusion model, for comparison."""
    relative: NotRequired[Relative]
    """One over the other."""
    not_computed: NotRequired[str]
    """Instead of the five above: why they could not be computed."""
    class_distances: ClassDistances | NotComputed
    """Distances within the classes."""
    labels: LabelAgreement | NotComputed
    """Whether images show what their labels say."""
    per_class: dict[str, Fidelity | NotComputed]
    """Fidelity within each class."""


def fidelity(
    features: dict[str, np.ndarray], groups: dict[str, np.ndarray] | None = None, seed: int = 0
) -> Fidelity:
    """Distance of the synthetic set to reserve images, and that of training to reserve images.

    Most figures depend on the number of images. So each set contributes equally many, 10,000 at
    most, in one random choice. Features are divided by their overall standard deviation on the
    reserve images, so that networks of different scales can be compared.

    Args:
        features: float (n, d) of ``reserve`` (real images that the diffusion model was not trained
            on), ``train`` (its training images, for comparison) and ``synthetic``.
        groups: (n,) of ``reserve`` and ``train``, equal for images that belong together. If None,
            each image is a group.
        seed: Seed of the choice.

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
    scale = _scale(features)
    samples = {
        name: Sample(name, features[name][at] / scale, _of_set(groups, name, at))
        for name, at in chosen.items()
    }
    require_groups("Fidelity", {f"{name} images": s.num_groups for name, s in samples.items()})
    synthetic = overlap(samples["reserve"], samples["synthetic"])
    train = overlap(samples["reserve"], samples["train"], added=(False, True))
    return {
        "compared": compared,
        "groups": {name: samples[name].num_groups for name in ("reserve", "train")},
        "synthetic_to_reserve": _distances(samples["reserve"], samples["synthetic"], synthetic),
        "train_to_reserve": _distances(samples["reserve"], samples["train"], train),
        "relative": {
            "precision": ratio_of(synthetic.precision, train.precision).estimate(),
            "coverage": ratio_of(synthetic.coverage, train.coverage).estimate(),
        },
    }


def _scale(features: dict[str, np.ndarray]) -> float:
    return float(features["reserve"].std()) or 1.0


def _of_set(
    groups: dict[str, np.ndarray] | None, name: str, positions: np.ndarray
) -> np.ndarray | None:
    of_set = (groups or {}).get(name)
    return None if of_set is None else of_set[positions]


def _distances(reserve: Sample, others: Sample, shared: Overlap) -> Distances:
    """The figures of one set against reserve images."""
    try:
        frechet = frechet_distance(reserve.features, others.features)
    except InputError:  # too few images
        frechet = None
    distance = kernel_distance(reserve, others).corrected()
    return {
        "kid": distance.value,
        "interval": list(distance.interval()),
        "fid": frechet,
        "precision": shared.precision.value,
        "recall": shared.recall,
        "density": shared.density,
        "coverage": shared.coverage.value,
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
    return {
        **compare(None),
        "class_distances": distances,
        "labels": computed_or_reason(
            lambda: label_agreement(features, labels, class_names, groups)
        ),
        "per_class": by_class,
    }


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
        seed: Seed of the choice of at most 10,000 images of a set.

    Returns:
        The relative distances are 0 where images of a class are distributed alike, and 1 where they
        are as far apart as two classes.

    Raises:
        InputError: A class has fewer than 20 images or fewer than five groups in one of the sets,
            or classes of real images are not apart, so that there is no scale.
    """
    samples = _class_samples(features, labels, class_names, groups, seed)
    between = _between_classes(samples["reserve"])
    synthetic, train = (
        mean_of(*map(kernel_distance, samples["reserve"], samples[name]))
        for name in ("synthetic", "train")
    )
    return {
        "fewest_groups": min(
            int(np.count_nonzero(of_class.sizes))
            for name in ("reserve", "train")
            for of_class in samples[name]
        ),
        "between": between.corrected().value,
        "synthetic": combine(np.divide, synthetic, between).corrected().value,
        "train": combine(np.divide, train, between).corrected().value,
        "excess": combine(lambda s, t, b: (s - t) / b, synthetic, train, between)
        .corrected()
        .estimate(),
    }


def _class_samples(
    features: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    class_names: Sequence[str],
    groups: dict[str, np.ndarray] | None,
    seed: int,
) -> dict[str, list[Sample]]:
    """A random choice of the images of each class, by set."""
    rng = random_stream(seed, Purpose.CLASS_DISTANCE_CHOICE)
    scale = _scale(features)
    samples = {}
    for name, of_set in features.items():
        chosen = rng.choice(len(of_set), min(len(of_set), _COMPARED), replace=False)
        sample = Sample(name, of_set[chosen] / scale, _of_set(groups, name, chosen))
        samples[name] = [
            sample.subset(np.flatnonzero(labels[name][chosen] == label))
            for label in range(len(class_names))
        ]
    by_name = {
        f"{name} images of {class_name}": sample
        for name, of_set in samples.items()
        for class_name, sample in zip(class_names, of_set, strict=True)
    }
    require_images(
        "Distance of classes", {name: len(of_class) for name, of_class in by_name.items()}
    )
    require_groups(
        "Distance of classes",
        {name: int(np.count_nonzero(of_class.sizes)) for name, of_class in by_name.items()},
    )
    return samples


def _between_classes(reserve: list[Sample]) -> Figure:
    """Mean kernel distance of two classes of real images, refused if within chance of 0."""
    if len(reserve) < 2:
        raise InputError("Distance of classes: expected two classes or more, received one.")
    between = mean_of(*(_between(*pair) for pair in combinations(reserve, 2)))
    corrected = between.corrected()
    if not corrected.quantile(0.025) > _ROUNDING:
        raise InputError(
            "Distance of classes: expected classes of real images that lie apart in these "
            f"features, received a kernel distance of {corrected.value:.3g}, within chance of 0; "
            "compare in features that separate the classes."
        )
    return between


def _between(first: Sample, second: Sample) -> Figure:
    """Kernel distance of two classes of one sample, whose groups may have images of both."""
    other = Sample("other class", second.features, second.groups, second.num_groups)
    distance = kernel_distance(first, other)
    of_first, of_second = distance.without[first.name], distance.without[other.name]
    # To first order, what a group does to both classes adds up.
    return Figure(distance.value, {first.name: of_first + of_second - distance.value})
