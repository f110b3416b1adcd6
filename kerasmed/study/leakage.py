"""Accuracy under random splits, against that under splits by group."""

from typing import Any

import numpy as np

from kerasmed.metrics.linear_probe import probe_accuracy


def leakage(
    features: np.ndarray,
    labels: np.ndarray,
    grouped: list[tuple[np.ndarray, np.ndarray]],
    random: list[tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    """Accuracy of logistic regression under both kinds of split.

    Args:
        features: float (n, d), from a network that was not trained on any of the images.
        labels: int (n,).
        grouped: positions to train on and to test on, for each split that keeps groups together.
        random: the same for as many splits by image.

    Returns:
        ``grouped`` and ``random``: mean and standard deviation over the splits, and each value.
        ``gap``: by how much random splits overstate the accuracy.
    """
    accuracies = {
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
            for name, values in accuracies.items()
        },
        "gap": float(np.mean(accuracies["random"]) - np.mean(accuracies["grouped"])),
    }
