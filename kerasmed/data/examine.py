"""Findings about a set: counts, copies, outliers, and shortcuts to the class."""

from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.tree import DecisionTreeClassifier

from kerasmed.data.duplicates import Duplicates, linked_groups
from kerasmed.data.fingerprints import Fingerprints

# An image is an outlier if its brightness lies this many robust standard deviations (1.4826 times
# the median absolute deviation) from the median of its class.
_OUTLIER = 5.0
_FOLDS = 5


def examine(fingerprints: Fingerprints, duplicates: Duplicates) -> dict[str, Any]:
    """The findings of ``kerasmed data check``, as plain values for JSON."""
    names, counts = np.unique(fingerprints.classes, return_counts=True)
    patients = np.unique(fingerprints.patients[fingerprints.patients != ""])
    return {
        "images": len(fingerprints),
        "classes": dict(zip(names.tolist(), counts.tolist(), strict=True)),
        "imbalance": round(float(counts.max() / counts.min()), 2),
        "patients": len(patients) if (fingerprints.patients != "").all() else None,
        "unreadable": fingerprints.unreadable.tolist(),
        "sizes": _sizes(fingerprints),
        "kinds": _kinds(fingerprints),
        "duplicates": describe_duplicates(fingerprints, duplicates),
        "brightness_outliers": _brightness_outliers(fingerprints),
        "shortcuts": _shortcuts(fingerprints, duplicates),
    }


def describe_duplicates(fingerprints: Fingerprints, duplicates: Duplicates) -> dict[str, Any]:
    """Numbers of copies, and the pairs of copies that have different labels."""
    exact, near = duplicates.exact, duplicates.near
    plain = np.unique(near[~duplicates.altered])
    turned = np.setdiff1d(near[duplicates.altered], plain)
    return {
        "byte_identical": len(fingerprints) - len(np.unique(fingerprints.hashes)),
        "pixel_identical": len(exact),
        "near_duplicates": len(plain),
        "only_mirrored_or_turned": len(turned),
        "label_conflicts": _across_labels(exact, fingerprints),
        "near_across_labels": _across_labels(near, fingerprints),
    }


def _across_labels(pairs: np.ndarray, fingerprints: Fingerprints) -> list[list[str]]:
    first, second = pairs[:, 0], pairs[:, 1]
    differ = pairs[fingerprints.classes[first] != fingerprints.classes[second]]
    return [fingerprints.names[pair].tolist() for pair in differ]


def _sizes(fingerprints: Fingerprints) -> dict[str, Any]:
    sizes = np.stack([fingerprints.appearance["width"], fingerprints.appearance["height"]], axis=1)
    different, counts = np.unique(sizes, axis=0, return_counts=True)
    area = different.astype(np.int64).prod(axis=1)
    return {
        "different": len(different),
        "most_common": different[counts.argmax()].tolist(),
        "fraction_of_most_common": round(float(counts.max() / len(sizes)), 3),
        "smallest": different[area.argmin()].tolist(),
        "largest": different[area.argmax()].tolist(),
    }


def _kinds(fingerprints: Fingerprints) -> dict[str, dict[str, int]]:
    """Images of each class by format and pixel layout."""
    kinds: dict[str, dict[str, int]] = {}
    for kind, class_name in zip(fingerprints.appearance["kind"], fingerprints.classes, strict=True):
        row = kinds.setdefault(str(kind), {})
        row[str(class_name)] = row.get(str(class_name), 0) + 1
    return kinds


def _brightness_outliers(fingerprints: Fingerprints) -> list[dict[str, Any]]:
    brightness = fingerprints.appearance["brightness"]
    outliers = []
    for class_name in np.unique(fingerprints.classes):
        rows = np.flatnonzero(fingerprints.classes == class_name)
        median = np.median(brightness[rows])
        deviation = max(1.4826 * np.median(np.abs(brightness[rows] - median)), 1.0)
        distances = np.abs(brightness[rows] - median) / deviation
        outliers += [
            {
                "image": str(fingerprints.names[row]),
                "class": str(class_name),
                "brightness": round(float(brightness[row]), 1),
                "median_of_class": round(float(median), 1),
            }
            for row in rows[distances > _OUTLIER]
        ]
    return outliers


def _shortcuts(fingerprints: Fingerprints, duplicates: Duplicates) -> list[dict[str, Any]]:
    """How well the class can be predicted from clues that say nothing about the patient.

    The accuracy is that of a decision tree of depth 4 by five-fold cross-validation, with copies in
    one fold. It is compared with always predicting the most frequent class.
    """
    appearance = fingerprints.appearance
    width, height = appearance["width"].astype(float), appearance["height"].astype(float)
    _, kind = np.unique(appearance["kind"], return_inverse=True)
    clues = {
        "image size": np.stack([width, height], axis=1),
        "aspect ratio": (width / height)[:, None],
        "format": np.eye(kind.max() + 1)[kind],
        "border colour": appearance["border"],
        "brightness": appearance["brightness"][:, None],
    }
    _, labels, counts = np.unique(fingerprints.classes, return_inverse=True, return_counts=True)
    groups = linked_groups(duplicates.pairs, len(fingerprints))
    if min(counts) < _FOLDS or len(np.unique(groups)) < _FOLDS:
        return []
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    tree = DecisionTreeClassifier(max_depth=4, min_samples_leaf=5, random_state=0)

    def accuracy(features: np.ndarray) -> float:
        scores = cross_val_score(tree, features, labels, groups=groups, cv=folds)
        return round(float(scores.mean()), 3)

    chance = round(float(counts.max() / len(labels)), 3)
    return [
        {"clue": clue, "accuracy": accuracy(features), "most_frequent_class": chance}
        for clue, features in clues.items()
    ]
