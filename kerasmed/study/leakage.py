"""Accuracy under random splits, against that under splits by group."""

import numpy as np
from typing_extensions import TypedDict

from kerasmed.metrics.linear_probe import probe_accuracy
from kerasmed.result_types import NotNegative, Signed
from kerasmed.settings import UnitInterval


class SplitAccuracy(TypedDict):
    """Accuracy under splits of one kind."""

    mean: UnitInterval
    """Mean over the splits."""
    standard_deviation: NotNegative | None
    """Standard deviation (n - 1) over the splits; null for a single one."""
    values: list[UnitInterval]
    """Accuracy of each split."""


class Gap(TypedDict):
    """Accuracy under random splits, against that under splits by group."""

    grouped: SplitAccuracy
    """Under splits that keep groups, such as patients, together."""
    random: SplitAccuracy
    """Under splits by image."""
    gap: Signed
    """By how much random splits overstate the accuracy."""


class LeakageResult(Gap):
    """By how much a random split would overstate the accuracy (``evaluation/leakage.json``)."""

    features_of: str
    """The frozen features that logistic regression classifies."""


def leakage(
    features: np.ndarray,
    labels: np.ndarray,
    grouped: list[tuple[np.ndarray, np.ndarray]],
    random: list[tuple[np.ndarray, np.ndarray]],
) -> Gap:
    """Accuracy of logistic regression under both kinds of split.

    Args:
        features: float (n, d), from a network that was not trained on any of the images.
        labels: int (n,).
        grouped: positions to train on and to test on, for each split that keeps groups together.
        random: the same for as many splits by image.
    """

    def accuracy(splits: list[tuple[np.ndarray, np.ndarray]]) -> SplitAccuracy:
        values = [
            probe_accuracy(features[train], labels[train], features[test], labels[test])
            for train, test in splits
        ]
        return {
            "mean": float(np.mean(values)),
            "standard_deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "values": values,
        }

    by_group, by_image = accuracy(grouped), accuracy(random)
    return {
        "grouped": by_group,
        "random": by_image,
        "gap": by_image["mean"] - by_group["mean"],
    }
