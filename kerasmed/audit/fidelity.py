"""How close a generated set is to the real one, in the features of a classifier."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from kerasmed.errors import InputError
from kerasmed.metrics.frechet import frechet_distance
from kerasmed.metrics.kernel_distance import kernel_distance, kernel_distance_interval
from kerasmed.metrics.manifold import overlap
from kerasmed.metrics.sample_size import or_reason, require_enough, require_groups
from kerasmed.random_streams import Purpose, random_stream

# Images of a set that are compared at most: memory grows with the square.
_COMPARED = 4000


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
    rng = random_stream(seed, Purpose.FIDELITY_CHOICE)
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
    rng = random_stream(seed, Purpose.FIDELITY_FREQUENCIES)
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
    rng = random_stream(seed, Purpose.CLASS_DISTANCE_CHOICE)

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
