"""Accuracy and related figures from probabilities and labels."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired

import numpy as np
from sklearn.metrics import (
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)
from typing_extensions import TypedDict

from kerasmed.errors import InputError
from kerasmed.metrics.statistics import grouped_interval
from kerasmed.result_types import NotComputed, NotNegative, Probability, UnitPair, Whole
from kerasmed.settings import Count, UnitInterval

_CALIBRATION_BINS = 15
# CNNs that agree in these differ in the seed only.
_ALL_BUT_SEED = ("backbone", "trained_on", "variant", "precision")
_SPREAD = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece")


class Bin(TypedDict):
    """The images in one of 15 equal ranges of confidence."""

    confidence: Probability
    """Mean probability of the predicted class."""
    accuracy: UnitInterval
    """Fraction of them that are classified correctly."""
    fraction: UnitInterval
    """Fraction of all images."""


class RocCurve(TypedDict):
    """One class against the rest, by falling threshold."""

    false_positives: list[UnitInterval]
    """Rising fractions of the images of other classes."""
    true_positives: list[UnitInterval]
    """Rising fractions of the images of the class."""


class Curves(TypedDict):
    """ROC curves and reliability of one CNN on the test images."""

    roc: dict[str, RocCurve | NotComputed]
    """ROC curve of each class."""
    reliability: list[Bin]
    """The bins that have images, by rising confidence."""


class ClassFigures(TypedDict):
    """Figures of one class."""

    n: Whole
    """Number of test images."""
    precision: UnitInterval | None
    """Fraction of the images predicted as this class that are of it; 0 where none is."""
    recall: UnitInterval | None
    """Fraction of its images that are predicted as this class (sensitivity)."""
    f1: UnitInterval | None
    """Harmonic mean of both."""
    not_computed: NotRequired[str]
    """Which figures are null, and why."""


class ClassifierMetrics(TypedDict):
    """All figures of one CNN on one set of images."""

    n_test: Count
    """Number of test images."""
    accuracy: UnitInterval
    """Fraction of the images that are classified correctly."""
    accuracy_ci95: UnitPair
    """Its 95% interval, by bootstrap over groups of images."""
    balanced_accuracy: UnitInterval | None
    """Mean recall over the classes."""
    macro_precision: UnitInterval | None
    """Mean precision over the classes."""
    macro_recall: UnitInterval | None
    """Mean recall over the classes."""
    macro_f1: UnitInterval | None
    """Mean F1 over the classes."""
    auroc: Probability | None
    """Mean area under the ROC curve of each class against the rest."""
    ece: Probability | None
    """Expected calibration error over 15 equal bins (arXiv:1706.04599)."""
    per_class: dict[str, ClassFigures]
    """Figures of each class."""
    confusion: list[list[Whole]]
    """Number of images: a row for each true class, a column for each predicted one, in the order
    of ``per_class``."""
    not_computed: NotRequired[str]
    """Which figures are null for lack of images of some classes, and why."""


class Spread(TypedDict):
    """A value for each of these figures; null where it could not be computed."""

    accuracy: NotNegative | None
    balanced_accuracy: NotNegative | None
    macro_f1: NotNegative | None
    auroc: NotNegative | None
    ece: NotNegative | None


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> list[Bin]:
    """Confidence and accuracy of the images in each of 15 equal bins of confidence.

    Args:
        probabilities: float (n, classes), rows summing to 1.
        labels: int (n,).

    Returns:
        The bins that have images.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    # scikit-learn's calibration_curve has no counts, and refuses float32 softmax of 1 + 1e-7.
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    return [
        {
            "confidence": float(confidence[bins == b].mean()),
            "accuracy": float(correct[bins == b].mean()),
            "fraction": float((bins == b).mean()),
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
    return sum(b["fraction"] * abs(b["accuracy"] - b["confidence"]) for b in bins)


def classification_curves(
    probabilities: np.ndarray, labels: np.ndarray, class_names: list[str]
) -> Curves:
    """ROC curves and reliability of one classifier on one set, as the report draws them.

    Args:
        probabilities: float (n, classes), rows summing to 1.
        labels: int (n,).
        class_names: names, in the order of the columns.
    """
    roc: dict[str, RocCurve | NotComputed] = {}
    for i, name in enumerate(class_names):
        if len(np.unique(labels == i)) < 2:
            roc[name] = {"not_computed": f"the images are all of {name!r}, or none is"}
            continue
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
) -> ClassifierMetrics:
    """All the figures of one classifier on one set.

    Precision of a class that is never predicted is 0. ``auroc`` is the mean over classes of one
    against the rest. Where the set lacks classes, the means are over those that it has. Images of
    only one class give its sensitivity and no other figure.

    Args:
        probabilities: float (n, classes), rows summing to 1.
        labels: int (n,), not empty.
        class_names: names, in the order of the columns.
        bootstrap_samples: resamples for the interval of the accuracy.
        seed: Seed of the resampling.
        groups: (n,), equal for images that belong together and are drawn together. If None, each
            image is a group.

    Returns:
        Plain values. Where classes are missing, ``not_computed`` says which figures are None, and
        why.

    Raises:
        InputError: There is no image, or the shapes do not match.
    """
    _check_shapes(probabilities, labels, len(class_names))
    predicted = probabilities.argmax(axis=1)
    correct = (predicted == labels).astype(np.float64)
    resampled_groups = np.arange(len(labels)) if groups is None else groups
    confusion = confusion_matrix(labels, predicted, labels=np.arange(len(class_names)))
    counts = confusion.sum(axis=1)
    per_class = _figures_by_class(labels, predicted, class_names)
    present = [per_class[class_names[i]] for i in np.flatnonzero(counts)]

    def macro(figure: Literal["precision", "recall", "f1"]) -> float | None:
        if len(present) == 1:
            return None
        return float(np.array([figures[figure] for figures in present], np.float64).mean())

    recall = macro("recall")
    metrics: ClassifierMetrics = {
        "n_test": len(labels),
        "accuracy": float(correct.mean()),
        "accuracy_ci95": list(grouped_interval(correct, resampled_groups, bootstrap_samples, seed)),
        "balanced_accuracy": recall,
        "macro_precision": macro("precision"),
        "macro_recall": recall,
        "macro_f1": macro("f1"),
        "auroc": _mean_auroc(probabilities, labels) if len(present) > 1 else None,
        "ece": expected_calibration_error(probabilities, labels) if len(present) > 1 else None,
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }
    if reason := _not_computed(counts, class_names):
        metrics["not_computed"] = reason
    return metrics


def _check_shapes(probabilities: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    if probabilities.shape != (len(labels), num_classes):
        raise InputError(
            f"Probabilities: expected shape {(len(labels), num_classes)}, "
            f"received {probabilities.shape}; give one row a label and one column a class."
        )
    if not len(labels):
        raise InputError("Labels: expected at least one, received none; add test images.")
    if not np.isfinite(probabilities).all():
        raise InputError(
            "Probabilities: expected finite numbers, received NaN or infinity; check the model."
        )


def _figures_by_class(
    labels: np.ndarray, predicted: np.ndarray, class_names: list[str]
) -> dict[str, ClassFigures]:
    """Number of images, precision, recall and F1 of each class; None where not computable."""
    precision, recall, f1, counts = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(class_names)), zero_division=0
    )
    single_class = (counts > 0).sum() == 1
    per_class: dict[str, ClassFigures] = {}
    for i, name in enumerate(class_names):
        figures: ClassFigures = {
            "n": int(counts[i]),
            "precision": None if single_class else float(precision[i]),
            "recall": float(recall[i]),
            "f1": None if single_class else float(f1[i]),
        }
        if not counts[i]:
            figures["precision"] = figures["recall"] = figures["f1"] = None
            figures["not_computed"] = f"no test image of {name!r}"
        elif single_class:
            figures["not_computed"] = f"precision and F1: every test image is of {name!r}"
        per_class[name] = figures
    return per_class


def _mean_auroc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean area under the ROC curve of each present class against the rest."""
    present = np.unique(labels)
    return float(roc_auc_score(labels[:, None] == present, probabilities[:, present]))


def _not_computed(counts: np.ndarray, class_names: list[str]) -> str | None:
    """The figures that were not computed, and why; None where every class has images."""
    absent = ", ".join(repr(class_names[i]) for i in np.flatnonzero(counts == 0))
    if not absent:
        return None
    if (counts > 0).sum() > 1:
        reason = f"figures of {absent}, for lack of test images; means are over the other classes"
    else:
        name = class_names[int(counts.argmax())]
        reason = (
            f"all but the sensitivity of {name!r}, which is the accuracy, since every test image "
            "is of that class"
        )
    return reason


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over the seeds of each network, training set and precision.

    Args:
        rows: Those of ``metrics.json``.

    Returns:
        In the order of ``rows``: ``backbone``, ``trained_on``, ``variant``, ``precision``,
        ``seeds`` (their number), and ``mean`` and ``standard_deviation`` (n - 1) of accuracy,
        balanced accuracy, macro F1, AUROC and ECE. The deviation of one seed is None. So are mean
        and deviation of a figure that was not computed.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in _ALL_BUT_SEED), []).append(row)
    summaries = []
    for key, members in groups.items():
        spread = {name: _mean_and_deviation([row[name] for row in members]) for name in _SPREAD}
        summaries.append(
            {
                **dict(zip(_ALL_BUT_SEED, key, strict=True)),
                "seeds": len(members),
                "mean": {name: mean for name, (mean, _) in spread.items()},
                "standard_deviation": {name: deviation for name, (_, deviation) in spread.items()},
            }
        )
    return summaries


def _mean_and_deviation(values: list[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None, None
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None
