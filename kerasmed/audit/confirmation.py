"""Whether classifiers that learned from real images see in a synthetic one what its label says."""

import numpy as np
from scipy.special import softmax
from sklearn.metrics import pairwise_distances_argmin
from sklearn.model_selection import StratifiedGroupKFold

from kerasmed.classify.calibration import fit_temperature
from kerasmed.errors import InputError
from kerasmed.metrics.linear_probe import fit_probe
from kerasmed.metrics.sample_size import MINIMUM_GROUPS

_FOLDS = 5


class Confirmation:
    """Probabilities of the classes by logistic regressions on features of the training images.

    Five of them each leave out a fifth of the groups. An image is judged by the one that did not
    learn from the fold of its nearest training image: a classifier that knows an image would also
    confirm its copy. One temperature, by the training images that each left out, calibrates them.

    Args:
        features: of the training images, float (n, d).
        labels: int (n,).
        groups: (n,), equal for images that belong together.
        num_classes: number of classes.

    Attributes:
        temperature: divides the logits.
        sensitivity: how often an image is named rightly by the one that did not learn from it, the
            mean over the classes.

    Raises:
        InputError: a class has fewer than five groups.

    Example:
        >>> import numpy as np
        >>> from kerasmed.audit.confirmation import Confirmation
        >>> rng, labels = np.random.default_rng(0), np.arange(60) % 2
        >>> confirmation = Confirmation(
        ...     rng.normal(labels[:, None], 0.3, (60, 4)), labels, np.arange(60), num_classes=2
        ... )
        >>> confirmation.probabilities(np.array([[0.0] * 4, [1.0] * 4])).argmax(axis=1)
        array([0, 1])
    """

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, groups: np.ndarray, num_classes: int
    ):
        check_groups(labels, groups, num_classes)
        self._scale = np.maximum(features.std(axis=0), 1e-6)
        self._features = features / self._scale
        self._fold = np.empty(len(labels), int)
        self._probes = []
        left_out = np.empty((len(labels), num_classes))
        folds = StratifiedGroupKFold(_FOLDS).split(features, labels, groups)
        for number, (learned, left) in enumerate(folds):
            probe = fit_probe(features[learned], labels[learned], num_classes)
            self._probes.append(probe)
            self._fold[left] = number
            left_out[left] = probe.logits(features[left])
        self.temperature = fit_temperature(left_out, labels)
        right = left_out.argmax(axis=1) == labels
        self.sensitivity = float(np.mean([right[labels == c].mean() for c in range(num_classes)]))

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probability of each class for images by their features (n, d): (n, classes)."""
        nearest = pairwise_distances_argmin(features / self._scale, self._features)
        logits = np.stack([probe.logits(features) for probe in self._probes])
        chosen = logits[self._fold[nearest], np.arange(len(features))]
        return softmax(chosen / self.temperature, axis=1)


def check_groups(labels: np.ndarray, groups: np.ndarray, num_classes: int) -> None:
    """Refuse classes with too few groups to leave a fifth of them out.

    Args:
        labels: int (n,), of the training images.
        groups: (n,), equal for images that belong together.
        num_classes: number of classes.

    Raises:
        InputError: a class has fewer than five groups.
    """
    for label in range(num_classes):
        count = len(np.unique(groups[labels == label]))
        if count < MINIMUM_GROUPS:
            raise InputError(
                f"Confirmation: expected at least {MINIMUM_GROUPS} groups of training images "
                f"of each class, received {count} of class {label}; add images, or set "
                "sampling.keep: all."
            )
