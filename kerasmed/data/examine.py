"""What is remarkable about a set: counts, copies, outliers, and shortcuts to the class."""

from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.tree import DecisionTreeClassifier

from kerasmed.data.duplicates import Duplicates, linked_groups
from kerasmed.data.fingerprints import Fingerprints

# An image is an outlier in brightness if it lies this many robust standard deviations (1.4826 times
# the median absolute deviation) from the median of its class.
_OUTLIER = 5.0
_FOLDS = 5


def examine(found: Fingerprints, duplicates: Duplicates) -> dict[str, Any]:
    """Everything that ``kerasmed data check`` tells, as plain values for JSON."""
    names, counts = np.unique(found.classes, return_counts=True)
    patients = np.unique(found.patients[found.patients != ""])
    return {
        "images": len(found),
        "classes": dict(zip(names.tolist(), counts.tolist(), strict=True)),
        "imbalance": round(float(counts.max() / counts.min()), 2),
        "patients": len(patients) if (found.patients != "").all() else None,
        "unreadable": found.unreadable.tolist(),
        "sizes": _sizes(found),
        "kinds": _kinds(found),
        "duplicates": describe_duplicates(found, duplicates),
        "brightness_outliers": _brightness_outliers(found),
        "shortcuts": _shortcuts(found, duplicates),
    }


def describe_duplicates(found: Fingerprints, duplicates: Duplicates) -> dict[str, Any]:
    """Numbers of copies, and every pair that stands under two labels."""
    exact, near = duplicates.exact, duplicates.near
    plain = np.unique(near[~duplicates.altered])
    turned = np.setdiff1d(near[duplicates.altered], plain)
    return {
        "byte_identical": len(found) - len(np.unique(found.hashes)),
        "pixel_identical": len(exact),
        "near_duplicates": len(plain),
        "only_mirrored_or_turned": len(turned),
        "label_conflicts": _across_labels(exact, found),
        "near_across_labels": _across_labels(near, found),
    }


def _across_labels(pairs: np.ndarray, found: Fingerprints) -> list[list[str]]:
    first, second = pairs[:, 0], pairs[:, 1]
    differ = pairs[found.classes[first] != found.classes[second]]
    return [found.names[pair].tolist() for pair in differ]


def _sizes(found: Fingerprints) -> dict[str, Any]:
    sizes = np.stack([found.appearance["width"], found.appearance["height"]], axis=1)
    different, counts = np.unique(sizes, axis=0, return_counts=True)
    area = different.astype(np.int64).prod(axis=1)
    return {
        "different": len(different),
        "most_common": different[counts.argmax()].tolist(),
        "share_of_most_common": round(float(counts.max() / len(sizes)), 3),
        "smallest": different[area.argmin()].tolist(),
        "largest": different[area.argmax()].tolist(),
    }


def _kinds(found: Fingerprints) -> dict[str, dict[str, int]]:
    """Images of each class by format and pixel layout."""
    kinds: dict[str, dict[str, int]] = {}
    for kind, class_name in zip(found.appearance["kind"], found.classes, strict=True):
        row = kinds.setdefault(str(kind), {})
        row[str(class_name)] = row.get(str(class_name), 0) + 1
    return kinds


def _brightness_outliers(found: Fingerprints) -> list[dict[str, Any]]:
    brightness = found.appearance["brightness"]
    outliers = []
    for class_name in np.unique(found.classes):
        rows = np.flatnonzero(found.classes == class_name)
        median = np.median(brightness[rows])
        deviation = max(1.4826 * np.median(np.abs(brightness[rows] - median)), 1.0)
        far = np.abs(brightness[rows] - median) / deviation
        outliers += [
            {
                "image": str(found.names[row]),
                "class": str(class_name),
                "brightness": round(float(brightness[row]), 1),
                "median_of_class": round(float(median), 1),
            }
            for row in rows[far > _OUTLIER]
        ]
    return outliers


def _shortcuts(found: Fingerprints, duplicates: Duplicates) -> list[dict[str, Any]]:
    """How well the class is told by what says nothing about the patient.

    A tree of depth 4 by five-fold cross-validation, copies kept in one fold; against always naming
    the most frequent class.
    """
    seen = found.appearance
    width, height = seen["width"].astype(float), seen["height"].astype(float)
    _, kind = np.unique(seen["kind"], return_inverse=True)
    clues = {
        "image size": np.stack([width, height], axis=1),
        "aspect ratio": (width / height)[:, None],
        "format": np.eye(kind.max() + 1)[kind],
        "border colour": seen["border"],
        "brightness": seen["brightness"][:, None],
    }
    _, labels, counts = np.unique(found.classes, return_inverse=True, return_counts=True)
    groups = linked_groups(duplicates.pairs, len(found))
    if min(counts) < _FOLDS or len(np.unique(groups)) < _FOLDS:
        return []
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    tree = DecisionTreeClassifier(max_depth=4, min_samples_leaf=5, random_state=0)

    def accuracy(x: np.ndarray) -> float:
        scores = cross_val_score(tree, x, labels, groups=groups, cv=folds)
        return round(float(scores.mean()), 3)

    chance = round(float(counts.max() / len(labels)), 3)
    return [
        {"clue": clue, "accuracy": accuracy(x), "most_frequent_class": chance}
        for clue, x in clues.items()
    ]
