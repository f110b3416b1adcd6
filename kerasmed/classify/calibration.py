"""The temperature that calibrates probabilities, and the loss at that temperature."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp


def mean_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood of labels (n,) under logits (n, classes)."""
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, from 0.05 to 20, that maximises the likelihood of the labels.

    The labels count as slightly uncertain, as if there were one more image of every class (Platt
    1999). Otherwise the lowest temperature would be best if all images are classified correctly.

    Args:
        logits: float (n, classes).
        labels: int (n,).
    """
    images, classes = logits.shape
    uncertain = classes / (images + classes)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        of_any_class = float((logsumexp(scaled, axis=1) - scaled.mean(axis=1)).mean())
        return (1 - uncertain) * mean_cross_entropy(scaled, labels) + uncertain * of_any_class

    bounds = (np.log(0.05), np.log(20.0))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def calibrated_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy at the temperature that calibrates these logits.

    Without calibration, a network that is more often right but overconfident would count as worse
    than a less accurate one.

    Args:
        logits: float (n, classes).
        labels: int (n,).
    """
    return mean_cross_entropy(logits / fit_temperature(logits, labels), labels)
