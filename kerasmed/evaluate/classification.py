"""Accuracy and its kin from probabilities and labels."""

from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from kerasmed.errors import InputError
from kerasmed.evaluate.comparison import grouped_interval

_CALIBRATION_BINS = 15


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, int64 (num_classes, num_classes): rows are the true class, columns the predicted."""
    cells = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> list[dict[str, float]]:
    """Confidence and accuracy of the images in each of 15 equal bins of confidence.

    Args:
        probabilities: float (n, classes), rows summing to 1.
        labels: int (n,).

    Returns:
        ``confidence``, ``accuracy`` (means) and ``share`` of the images, for each bin that has any.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    return [
        {
            "confidence": float(confidence[bins == b].mean()),
            "accuracy": float(correct[bins == b].mean()),
            "share": float((bins == b).mean()),
        }
        for b in np.unique(bins)
    ]


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean gap between confidence and accuracy over 15 equal bins (Guo et al., 1706.04599).

    Args:
        probabilities: float (n, classes), rows summing to 1.
        labels: int (n,).
    """
    bins = reliability(probabilities, labels)
    return sum(b["share"] * abs(b["accuracy"] - b["confidence"]) for b in bins)


def classification_curves(
    probabilities: np.ndarray, labels: np.ndarray, class_names: list[str]
) -> dict[str, Any]:
    """What is drawn of one classifier on one set.

    Args:
        probabilities: float (n, classes), rows summing to 1.
        labels: int (n,), every class present.
        class_names: names, in the order of the columns.

    Returns:
        ``roc``, by class against the rest, ``false_positives`` and ``true_positives`` (shares,
        rising); ``reliability``, see there.
    """
    roc = {}
    for i, name in enumerate(class_names):
        false_positives, true_positives, _ = roc_curve(labels == i, probabilities[:, i])
        roc[name] = {
            "false_positives": false_positives.round(5).tolist(),
            "true_positives": true_positives.round(5).tolist(),
        }
    return {"roc": roc, "reliability": reliability(probabilities, labels)}


def classification_metrics(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: list[str],
    bootstrap_samples: int = 1000,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """All the figures of one classifier on one set.

    Precision of a class that is never predicted is 0. ``auroc`` is the mean over classes of one
    against the rest.

    Args:
        probabilities: float (n, classes), rows summing to 1.
        labels: int (n,), every class present.
        class_names: names, in the order of the columns.
        bootstrap_samples: resamples for the interval of the accuracy.
        seed: of the resampling.
        groups: (n,), equal for images that belong together, which are drawn together; every
            image for itself if None.

    Returns:
        Plain values under the names of ``evaluation/metrics.json``.

    Raises:
        InputError: shapes that do not fit, or a class without a sample.
    """
    num_classes = len(class_names)
    if probabilities.shape != (len(labels), num_classes):
        raise InputError(
            f"Probabilities: expected shape {(len(labels), num_classes)}, "
            f"received {probabilities.shape}; give one row a label and one column a class."
        )
    if not np.isfinite(probabilities).all():
        raise InputError(
            "Probabilities: expected finite numbers, received NaN or infinity; check the model."
        )
    present = np.bincount(labels, minlength=num_classes)
    if not present.all():
        absent = [class_names[i] for i in np.flatnonzero(present == 0)]
        raise InputError(
            f"Labels: expected every class at least once, received none of {absent}; "
            "add test images of these classes."
        )
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, num_classes)
    hits = np.diag(confusion)
    recall = hits / confusion.sum(axis=1)
    precision = hits / np.maximum(confusion.sum(axis=0), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    correct = (predicted == labels).astype(np.float64)
    drawn = np.arange(len(labels)) if groups is None else groups
    one_hot = np.eye(num_classes)[labels]
    aurocs = [roc_auc_score(one_hot[:, i], probabilities[:, i]) for i in range(num_classes)]
    return {
        "n_test": len(labels),
        "accuracy": float(correct.mean()),
        "accuracy_ci95": list(grouped_interval(correct, drawn, bootstrap_samples, seed)),
        "balanced_accuracy": float(recall.mean()),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "auroc": float(np.mean(aurocs)),
        "ece": expected_calibration_error(probabilities, labels),
        "per_class": {
            name: {
                "n": int(present[i]),
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
            }
            for i, name in enumerate(class_names)
        },
        "confusion": confusion.tolist(),
    }


def over_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over the seeds of each network, training set and precision.

    Args:
        rows: of ``metrics.json``.

    Returns:
        In the order of ``rows``: ``backbone``, ``trained_on``, ``variant``, ``precision``,
        ``seeds`` (how many), and ``mean`` and ``standard_deviation`` (n - 1) of accuracy, balanced
        accuracy, macro F1, AUROC and ECE; the deviation of one seed is None.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in _CELL), []).append(row)
    found = []
    for key, members in groups.items():
        values = np.array([[row[name] for name in _SPREAD] for row in members], float)
        one = len(members) == 1
        deviations = [None] * len(_SPREAD) if one else values.std(axis=0, ddof=1).tolist()
        found.append(
            {
                **dict(zip(_CELL, key, strict=True)),
                "seeds": len(members),
                "mean": dict(zip(_SPREAD, values.mean(axis=0).tolist(), strict=True)),
                "standard_deviation": dict(zip(_SPREAD, deviations, strict=True)),
            }
        )
    return found


_CELL = ("backbone", "trained_on", "variant", "precision")
_SPREAD = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece")
