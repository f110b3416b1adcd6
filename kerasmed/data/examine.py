"""Findings about a set: counts, copies, outliers, and shortcuts to the class."""

from typing import Annotated

import numpy as np
from pydantic import Field
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.tree import DecisionTreeClassifier
from typing_extensions import TypedDict

from kerasmed.data.duplicates import Duplicates, linked_groups
from kerasmed.data.measurements import Measurements
from kerasmed.result_types import NotNegative, Whole
from kerasmed.settings import Count, UnitInterval

# An image is an outlier if its brightness lies this many robust standard deviations (1.4826 times
# the median absolute deviation) from the median of its class.
_OUTLIER = 5.0
_FOLDS = 5


_Size = Annotated[list[Count], Field(min_length=2, max_length=2)]
_NamePair = Annotated[list[str], Field(min_length=2, max_length=2)]
_Grey = Annotated[float, Field(ge=0, le=255)]


class DuplicatesFound(TypedDict):
    """Copies and near-duplicates in a set."""

    byte_identical: Whole
    """Images whose bytes equal those of an earlier one."""
    pixel_identical: Whole
    """Pairs of images with equal pixels."""
    near_duplicates: Whole
    """Images that nearly equal another one."""
    only_mirrored_or_turned: Whole
    """Further images that do so only after mirroring or turning."""
    label_conflicts: list[_NamePair]
    """Pairs with equal pixels and different classes, by name."""
    near_across_labels: list[_NamePair]
    """Pairs of near-duplicates with different classes, by name."""


class Sizes(TypedDict):
    """Sizes of the images as stored: width and height in pixels."""

    different: Count
    """How many different sizes there are."""
    most_common: _Size
    """The most frequent size."""
    fraction_of_most_common: UnitInterval
    """Fraction of the images that have it."""
    smallest: _Size
    """The size of the least area."""
    largest: _Size
    """The size of the greatest area."""


BrightnessOutlier = TypedDict(
    "BrightnessOutlier",
    {
        "image": Annotated[str, Field(description="Name of the image.")],
        "class": Annotated[str, Field(description="Its class.")],
        "brightness": Annotated[_Grey, Field(description="Its mean grey value, 0 to 255.")],
        "median_of_class": Annotated[_Grey, Field(description="The median of its class.")],
    },
)


class Shortcut(TypedDict):
    """How well a clue that says nothing about the patient predicts the class."""

    clue: str
    """What the class is predicted from."""
    accuracy: UnitInterval
    """Accuracy of a small decision tree in cross-validation."""
    most_frequent_class: UnitInterval
    """Accuracy of always naming the most frequent class."""


class Findings(TypedDict):
    """What ``kerasmed data check`` finds in the images."""

    images: Count
    """Number of readable images."""
    classes: dict[str, Count]
    """Number of images of each class."""
    imbalance: NotNegative
    """Images of the largest class over those of the smallest."""
    patients: Count | None
    """Number of patients; null where an image names none."""
    unreadable: list[str]
    """Files that cannot be read, each with the reason."""
    sizes: Sizes
    """Sizes of the images."""
    kinds: dict[str, dict[str, Count]]
    """Number of images by format and pixel layout, then by class."""
    duplicates: DuplicatesFound
    """Copies and near-duplicates."""
    brightness_outliers: list[BrightnessOutlier]
    """Images far brighter or darker than their class."""
    shortcuts: list[Shortcut]
    """How well each clue predicts the class; empty where there are too few images."""


def examine(measurements: Measurements, duplicates: Duplicates) -> Findings:
    """The findings of ``kerasmed data check``, as plain values for JSON."""
    names, counts = np.unique(measurements.classes, return_counts=True)
    patients = np.unique(measurements.patients[measurements.patients != ""])
    return {
        "images": len(measurements),
        "classes": dict(zip(names.tolist(), counts.tolist(), strict=True)),
        "imbalance": round(float(counts.max() / counts.min()), 2),
        "patients": len(patients) if (measurements.patients != "").all() else None,
        "unreadable": measurements.unreadable.tolist(),
        "sizes": sizes_of(measurements),
        "kinds": kinds_of(measurements),
        "duplicates": describe_duplicates(measurements, duplicates),
        "brightness_outliers": _brightness_outliers(measurements),
        "shortcuts": _shortcuts(measurements, duplicates),
    }


def describe_duplicates(measurements: Measurements, duplicates: Duplicates) -> DuplicatesFound:
    """Numbers of copies, and the pairs of copies that have different labels."""
    exact, near = duplicates.exact, duplicates.near
    plain = np.unique(near[~duplicates.altered])
    turned = np.setdiff1d(near[duplicates.altered], plain)
    return {
        "byte_identical": len(measurements) - len(np.unique(measurements.hashes)),
        "pixel_identical": len(exact),
        "near_duplicates": len(plain),
        "only_mirrored_or_turned": len(turned),
        "label_conflicts": _across_labels(exact, measurements),
        "near_across_labels": _across_labels(near, measurements),
    }


def _across_labels(pairs: np.ndarray, measurements: Measurements) -> list[list[str]]:
    first, second = pairs[:, 0], pairs[:, 1]
    differ = pairs[measurements.classes[first] != measurements.classes[second]]
    return [measurements.names[pair].tolist() for pair in differ]


def sizes_of(measurements: Measurements) -> Sizes:
    """The sizes of the images as stored."""
    sizes = np.stack([measurements.appearance["width"], measurements.appearance["height"]], axis=1)
    different, counts = np.unique(sizes, axis=0, return_counts=True)
    area = different.astype(np.int64).prod(axis=1)
    return {
        "different": len(different),
        "most_common": different[counts.argmax()].tolist(),
        "fraction_of_most_common": round(float(counts.max() / len(sizes)), 3),
        "smallest": different[area.argmin()].tolist(),
        "largest": different[area.argmax()].tolist(),
    }


def kinds_of(measurements: Measurements) -> dict[str, dict[str, int]]:
    """Images of each class by format and pixel layout."""
    kinds: dict[str, dict[str, int]] = {}
    for kind, class_name in zip(measurements.appearance["kind"], measurements.classes, strict=True):
        row = kinds.setdefault(str(kind), {})
        row[str(class_name)] = row.get(str(class_name), 0) + 1
    return kinds


def _brightness_outliers(measurements: Measurements) -> list[BrightnessOutlier]:
    brightness = measurements.appearance["brightness"]
    outliers: list[BrightnessOutlier] = []
    for class_name in np.unique(measurements.classes):
        rows = np.flatnonzero(measurements.classes == class_name)
        median = np.median(brightness[rows])
        deviation = max(1.4826 * np.median(np.abs(brightness[rows] - median)), 1.0)
        distances = np.abs(brightness[rows] - median) / deviation
        outliers += [
            {
                "image": str(measurements.names[row]),
                "class": str(class_name),
                "brightness": round(float(brightness[row]), 1),
                "median_of_class": round(float(median), 1),
            }
            for row in rows[distances > _OUTLIER]
        ]
    return outliers


def _shortcuts(measurements: Measurements, duplicates: Duplicates) -> list[Shortcut]:
    """How well the class can be predicted from clues that say nothing about the patient.

    The accuracy is that of a decision tree of depth 4 by five-fold cross-validation, with copies in
    one fold. It is compared with always predicting the most frequent class.
    """
    appearance = measurements.appearance
    width, height = appearance["width"].astype(float), appearance["height"].astype(float)
    _, kind = np.unique(appearance["kind"], return_inverse=True)
    clues = {
        "image size": np.stack([width, height], axis=1),
        "aspect ratio": (width / height)[:, None],
        "format": np.eye(kind.max() + 1)[kind],
        "border colour": appearance["border"],
        "brightness": appearance["brightness"][:, None],
    }
    _, labels, counts = np.unique(measurements.classes, return_inverse=True, return_counts=True)
    groups = linked_groups(duplicates.pairs, len(measurements))
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
