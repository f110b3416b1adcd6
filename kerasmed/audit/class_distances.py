"""Distance of the classes of a synthetic set to real images of them."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from typing_extensions import TypedDict

from kerasmed.errors import InputError
from kerasmed.metrics.jackknife import Figure, combine, mean_of
from kerasmed.metrics.kernel_distance import kernel_distance
from kerasmed.metrics.sample import Sample, sample_of
from kerasmed.metrics.sample_size import require_groups, require_images
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import Estimate
from kerasmed.settings import Count

# At most this many images of a set are compared: time grows with the square.
COMPARED = 10_000
_ROUNDING = 1e-9  # kernel distances of constant features differ from 0 by less


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


def class_distances(
    features: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    class_names: Sequence[str],
    groups: dict[str, np.ndarray] | None = None,
    seed: int = 0,
    most: int = COMPARED,
) -> ClassDistances:
    """Distance of each class to reserve images of it, relative to the distance between classes.

    Args:
        features: float (n, d) of the sets ``reserve``, ``train`` and ``synthetic``.
        labels: int (n,) of each set.
        class_names: Names of the classes.
        groups: As of ``fidelity``.
        seed: Seed of the choice of images.
        most: At most this many images of a set are compared.

    Returns:
        The relative distances are 0 where images of a class are distributed alike, and 1 where they
        are as far apart as two classes.

    Raises:
        InputError: A class has fewer than 20 images or fewer than five groups in one of the sets,
            or classes of real images are not apart, so that there is no scale.
    """
    samples = _class_samples(features, labels, class_names, groups, seed, most)
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
    most: int,
) -> dict[str, list[Sample]]:
    """A random choice of the images of each class, by set."""
    rng = random_stream(seed, Purpose.CLASS_DISTANCE_CHOICE)
    samples = {}
    for name, of_set in features.items():
        chosen = rng.choice(len(of_set), min(len(of_set), most), replace=False)
        sample = sample_of(name, features, groups, chosen)
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
            "Distance of classes: expected classes of real images that differ in these features, "
            f"received a kernel distance of {corrected.value:.3g}, within chance of 0; compare "
            "in features that separate the classes."
        )
    return between


def _between(first: Sample, second: Sample) -> Figure:
    """Kernel distance of two classes of one sample, whose groups may have images of both."""
    other = Sample("other class", second.features, second.groups, second.num_groups)
    distance = kernel_distance(first, other)
    of_first, of_second = distance.without[first.name], distance.without[other.name]
    # To first order, what a group does to both classes adds up.
    return Figure(distance.value, {first.name: of_first + of_second - distance.value})
