"""How much of the accuracy of real images a synthetic set reaches, with an interval."""

from collections.abc import Mapping, Sequence
from typing import NotRequired

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.comparison import TrainedOn, accuracy_figure
from kerasmed.classify.config import Regime
from kerasmed.data.image_set import ImageSet
from kerasmed.metrics.copy_detector import identical_images
from kerasmed.metrics.jackknife import Figure, mean_of, ratio_of
from kerasmed.result_types import Estimate
from kerasmed.settings import Count, UnitInterval

# Groups that only the interval of the ratio knows, see ``mean_figure``.
_ADDED: dict[Regime, tuple[float, float]] = {"real": (1, 0), "synthetic": (0, 1)}


class TestedOn(TypedDict):
    """CNNs of one network and regime, tested on unseen real images; means over the seeds."""

    accuracy: Estimate
    """Fraction of the test images that are classified correctly, over groups and seeds."""
    balanced_accuracy: UnitInterval
    """Mean of the sensitivities of the classes."""
    sensitivity: dict[str, UnitInterval]
    """Fraction of each class that is classified correctly."""


class NetworkUsefulness(TypedDict):
    """One network, trained on real and on synthetic images."""

    backbone: str
    """Name of the network."""
    seeds: Count
    """Number of trainings of each regime; the fewer of both."""
    real: TestedOn
    """Trained on the training images of the diffusion model."""
    synthetic: TestedOn
    """Trained on the synthetic set."""
    ratio: Estimate
    """Accuracy of the latter over that of the former."""
    beats_guessing: dict[str, bool]
    """Of ``real`` and ``synthetic``: whether the interval lies above ``guessing``."""


class Usefulness(TypedDict):
    """Synthetic against real images as a training set (``evaluation/usefulness.json``)."""

    groups: Count
    """Number of groups, such as patients, of the test images."""
    guessing: UnitInterval
    """Fraction of the test images that are of the most frequent class."""
    networks: list[NetworkUsefulness]
    """Each network that was trained on both."""
    not_computed: NotRequired[str]
    """Why no network was trained, if that has a reason."""
    ratio: NotRequired[Estimate]
    """The mean ratio of the networks that beat guessing when trained on real images."""


def usefulness(
    correct: Mapping[TrainedOn, Sequence[np.ndarray]],
    labels: np.ndarray,
    class_names: Sequence[str],
    groups: np.ndarray,
) -> Usefulness:
    """Accuracy of CNNs trained on synthetic images over that of the same CNNs trained on real ones.

    Test images of one group, and trainings of one network and regime, are drawn together. The
    interval of the ratio is over both.

    Args:
        correct: float (n,) for each seed, 1 where the CNN is right about a test image.
        labels: int (n,), class indices of the test images.
        class_names: names of the classes.
        groups: (n,), equal for test images of one group.
    """
    _, groups = np.unique(groups, return_inverse=True)
    guessing = float(np.bincount(labels).max() / len(labels))
    networks: list[NetworkUsefulness] = []
    ratios: list[Figure] = []
    for backbone in dict.fromkeys(trained_on.backbone for trained_on in correct):
        regimes = {
            trained_on.regime: np.array(of_seeds)
            for trained_on, of_seeds in correct.items()
            if trained_on in (TrainedOn(backbone, "real"), TrainedOn(backbone, "synthetic"))
        }
        if len(regimes) < 2:
            continue
        accuracies = {
            regime: accuracy_figure(TrainedOn(backbone, regime), regimes[regime], groups, added)
            for regime, added in _ADDED.items()
        }
        ratio = ratio_of(accuracies["synthetic"], accuracies["real"])
        beats = {str(r): f.interval()[0] > guessing for r, f in accuracies.items()}
        if beats["real"]:
            ratios.append(ratio)
        networks.append(
            {
                "backbone": backbone,
                "seeds": min(map(len, regimes.values())),
                "real": _tested(regimes["real"], accuracies["real"], labels, class_names),
                "synthetic": _tested(
                    regimes["synthetic"], accuracies["synthetic"], labels, class_names
                ),
                "ratio": ratio.estimate(),
                "beats_guessing": beats,
            }
        )
    result: Usefulness = {
        "groups": int(groups.max()) + 1,
        "guessing": guessing,
        "networks": networks,
    }
    if ratios:
        result["ratio"] = mean_of(*ratios).estimate()
    return result


def test_images_in(synthetic: ImageSet, test: ImageSet) -> str | None:
    """Why no CNN can be tested: the synthetic set holds test images. None if it does not."""
    count = len(identical_images(np.asarray(test.images), np.asarray(synthetic.images)))
    if not count:
        return None
    have = "image has" if count == 1 else "images have"
    return f"{count} synthetic {have} the pixels of test images."


def _tested(
    of_seeds: np.ndarray, accuracy: Figure, labels: np.ndarray, class_names: Sequence[str]
) -> TestedOn:
    right = of_seeds.mean(axis=0)
    sensitivity = {
        name: float(right[labels == label].mean())
        for label, name in enumerate(class_names)
        if np.any(labels == label)
    }
    return {
        "accuracy": {
            "value": accuracy.value,
            "interval": np.clip(accuracy.interval(), 0, 1).tolist(),  # of few seeds it is wide
        },
        "balanced_accuracy": float(np.mean(list(sensitivity.values()))),
        "sensitivity": sensitivity,
    }
