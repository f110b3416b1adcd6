"""What a random split would have claimed, beside what the split by group says."""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# Strong enough for a few hundred features of a few hundred images.
_INVERSE_REGULARISATION = 0.01


def leakage(
    features: np.ndarray,
    labels: np.ndarray,
    grouped: list[tuple[np.ndarray, np.ndarray]],
    random: list[tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    """Accuracy of logistic regression under both kinds of split.

    Args:
        features: float (n, d), of a network that none of the images trained.
        labels: int (n,).
        grouped: positions to train and to test on, for some splits that keep groups together.
        random: as many, for splits by image.

    Returns:
        ``grouped`` and ``random``: mean and standard deviation over the splits, and each value;
        ``gap``: how much the random ones flatter.
    """
    found = {
        name: [
            probe_accuracy(features[train], labels[train], features[test], labels[test])
            for train, test in splits
        ]
        for name, splits in (("grouped", grouped), ("random", random))
    }
    return {
        **{
            name: {
                "mean": float(np.mean(values)),
                "standard_deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "values": values,
            }
            for name, values in found.items()
        },
        "gap": float(np.mean(found["random"]) - np.mean(found["grouped"])),
    }


def probe_accuracy(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
) -> float:
    """Accuracy of a logistic regression on standardised features, float (n, d)."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=1000)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train_features, train_labels)
    return float(model.score(test_features, test_labels))
