"""How close a synthetic set is to the real one, in features of any kind."""

from collections.abc import Sequence
from typing import NotRequired

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.class_distances import COMPARED, ClassDistances, class_distances
from kerasmed.audit.label_agreement import LabelAgreement, label_agreement
from kerasmed.errors import InputError
from kerasmed.metrics.frechet import frechet_distance
from kerasmed.metrics.jackknife import ratio_of
from kerasmed.metrics.kernel_distance import kernel_distance
from kerasmed.metrics.manifold import Overlap, overlap
from kerasmed.metrics.sample import Sample, sample_of
from kerasmed.metrics.sample_size import computed_or_reason, require_groups, require_images
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import Estimate, NotComputed, NotNegative, Pair
from kerasmed.settings import Count, UnitInterval


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
    features: dict[str, np.ndarray],
    groups: dict[str, np.ndarray] | None = None,
    seed: int = 0,
    most: int = COMPARED,
) -> Fidelity:
    """Distance of the synthetic set to reserve images, and that of training to reserve images.

    Most figures depend on the number of images. So each set contributes equally many, in one
    random choice. Features are divided by their overall standard deviation on the
    reserve images, so that networks of different scales can be compared.

    Args:
        features: float (n, d) of ``reserve`` (real images that the diffusion model was not trained
            on), ``train`` (its training images, for comparison) and ``synthetic``.
        groups: (n,) of ``reserve`` and ``train``, equal for images that belong together. If None,
            each image is a group.
        seed: Seed of the choice.
        most: At most this many images of a set are compared.

    Raises:
        InputError: One of the sets has fewer than 20 images, or fewer than five groups.
    """
    counts = {f"{name} images": len(of_set) for name, of_set in features.items()}
    require_images("Fidelity", counts)
    compared = min(most, *counts.values())
    rng = random_stream(seed, Purpose.FIDELITY_CHOICE)
    chosen = {
        name: rng.choice(len(of_set), compared, replace=False) for name, of_set in features.items()
    }
    samples = {name: sample_of(name, features, groups, at) for name, at in chosen.items()}
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
    most: int = COMPARED,
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
        most: At most this many images of a set are compared.
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
        return computed_or_reason(lambda: fidelity(features_of, groups_of, seed, most))

    by_class = {name: compare(label) for label, name in enumerate(class_names)}
    distances = computed_or_reason(
        lambda: class_distances(features, labels, class_names, groups, seed, most)
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
