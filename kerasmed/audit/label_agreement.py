"""Whether synthetic images show what their labels say."""

from collections.abc import Sequence

import numpy as np
from typing_extensions import TypedDict

from kerasmed.errors import InputError
from kerasmed.metrics.jackknife import Figure, mean_figure, mean_of, ratio_of
from kerasmed.metrics.linear_probe import fit_probe
from kerasmed.metrics.sample import Sample
from kerasmed.metrics.sample_size import require_groups, require_images
from kerasmed.result_types import Estimate
from kerasmed.settings import UnitInterval


class LabelAgreement(TypedDict):
    """How often a classifier that learned from reserve images names images as they are labelled.

    Each class counts alike.
    """

    synthetic: UnitInterval
    """Fraction of the synthetic images."""
    train: UnitInterval
    """Fraction of the training images of the diffusion model."""
    ratio: Estimate
    """The former over the latter."""


def label_agreement(
    features: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    class_names: Sequence[str],
    groups: dict[str, np.ndarray] | None = None,
) -> LabelAgreement:
    """How often synthetic images are named as labelled, and how often training images are.

    The classifier is a logistic regression on the features of the reserve images, none of which is
    of either set. The interval takes it as given.

    Args:
        features: float (n, d) of the sets ``reserve``, ``train`` and ``synthetic``.
        labels: int (n,) of each set.
        class_names: names of the classes.
        groups: (n,) of ``reserve`` and ``train``, equal for images that belong together. If None,
            each image is a group.

    Raises:
        InputError: there is one class only, a class has fewer than 20 images in one of the sets, or
            the training images are of fewer than five groups.

    Example:
        >>> import numpy as np
        >>> from kerasmed.audit.label_agreement import label_agreement
        >>> rng, labels = np.random.default_rng(0), np.arange(200) % 2
        >>> sets = ("reserve", "train", "synthetic")
        >>> features = {name: rng.normal(labels[:, None], 0.2, (200, 8)) for name in sets}
        >>> wrong = {**dict.fromkeys(sets, labels), "synthetic": np.where(rng.random(200) < 0.3,
        ...     1 - labels, labels)}
        >>> round(label_agreement(features, wrong, ["a", "b"])["ratio"]["value"], 1)
        0.7
    """
    if len(class_names) < 2:
        raise InputError("Labels: expected two classes or more, received one.")
    for name, of_set in labels.items():
        counts = np.bincount(of_set, minlength=len(class_names))
        of_classes = zip(class_names, counts.tolist(), strict=True)
        require_images("Labels", {f"{name} images of {c}": count for c, count in of_classes})
    probe = fit_probe(features["reserve"], labels["reserve"], len(class_names))

    def agreement(name: str, added: tuple[float, float]) -> Figure:
        is_named = probe.logits(features[name]).argmax(axis=1) == labels[name]
        sample = Sample(name, features[name], (groups or {}).get(name))
        require_groups("Labels", {f"{name} images": sample.num_groups})
        of_class = [labels[name] == label for label in range(len(class_names))]
        return mean_of(
            *(
                mean_figure(is_named[at], {name: sample.groups[at]}, added, sample.num_groups)
                for at in of_class
            )
        )

    synthetic, train = agreement("synthetic", (0, 1)), agreement("train", (1, 0))
    return {
        "synthetic": synthetic.value,
        "train": train.value,
        "ratio": ratio_of(synthetic, train).estimate(),
    }
