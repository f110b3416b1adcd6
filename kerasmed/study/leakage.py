"""What a random split would have claimed, beside what the split by group says."""

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
