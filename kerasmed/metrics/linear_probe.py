"""Logistic regression on features: the linear probe."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

# Strong enough regularisation for a few hundred features of a few hundred images.
INVERSE_REGULARISATION = 0.01


@dataclass(frozen=True)
class Probe:
    """A linear map from features to logits.

    Attributes:
        kernel: float64 (d, classes).
        bias: float64 (classes,).
    """

    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits of features (n, d): float64 (n, classes)."""
        return features @ self.kernel + self.bias


def fit_probe(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    sample_weights: np.ndarray | None = None,
    inverse_regularisation: float = INVERSE_REGULARISATION,
) -> Probe:
    """Logistic regression on standardised features, as a linear map of the raw features.

    Args:
        features: float (n, d).
        labels: int (n,). A class without an image gets a bias that rules it out.
        num_classes: Width of the logits.
        sample_weights: float (n,).
        inverse_regularisation: scikit-learn's C.
    """
    scaler = StandardScaler().fit(features)
    regression = LogisticRegression(C=inverse_regularisation, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(scaler.transform(features), labels, sample_weights)
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # scikit-learn keeps one row for two classes
        coefficients, intercepts = (
            np.concatenate([-values / 2, values / 2]) for values in (coefficients, intercepts)
        )
    kernel = np.zeros((features.shape[1], num_classes))
    bias = np.full(num_classes, -1e3)
    kernel[:, regression.classes_] = coefficients.T / scaler.scale_[:, None]
    bias[regression.classes_] = intercepts - coefficients @ (scaler.mean_ / scaler.scale_)
    return Probe(kernel, bias)


def probe_accuracy(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
) -> float:
    """Accuracy on the test features (float (n, d)) of a probe fitted to the training features."""
    num_classes = int(max(train_labels.max(), test_labels.max())) + 1
    probe = fit_probe(train_features, train_labels, num_classes)
    return float((probe.logits(test_features).argmax(axis=1) == test_labels).mean())
