"""Accuracy by subgroup of the test images, such as sex, age, site or device."""

from collections.abc import Mapping, Sequence

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.comparison import TrainedOn, accuracy_figure
from kerasmed.metrics.sample_size import MINIMUM, MINIMUM_GROUPS
from kerasmed.result_types import Estimate, NotComputed
from kerasmed.settings import Count


class Subgroup(TypedDict):
    """Test images that have one value of a column in common."""

    images: Count
    """Number of test images."""
    groups: Count
    """Number of their groups, such as patients."""
    accuracy: dict[str, Estimate] | NotComputed
    """Of each network and regime, the mean over the seeds; by their names."""


# By column of the table and by value.
Subgroups = dict[str, dict[str, Subgroup]]

_AGES = ((20, "under 20"), (40, "20 to 39"), (60, "40 to 59"), (80, "60 to 79"))


def by_subgroup(
    correct: Mapping[TrainedOn, Sequence[np.ndarray]],
    groups: np.ndarray,
    columns: Mapping[str, Sequence[str]],
) -> Subgroups:
    """Accuracy on the test images of each value of each column.

    Values with few images or groups get no figure: it would say little, and something of a person.

    Args:
        correct: float (n,) for each seed, 1 where a CNN is right about a test image.
        groups: (n,), equal for test images of one group.
        columns: n values of each column, "" where unknown; numbers in "age" become bands.

    Example:
        >>> import numpy as np
        >>> from kerasmed.audit.comparison import TrainedOn
        >>> from kerasmed.audit.subgroups import by_subgroup
        >>> correct = {TrainedOn("MobileNet", "real"): [np.tile([1.0, 0.0], 30)]}
        >>> sex = ["F"] * 40 + ["M"] * 20
        >>> found = by_subgroup(correct, np.arange(60), {"sex": sex})["sex"]["F"]
        >>> found["images"], found["accuracy"]["MobileNet real"]["value"]
        (40, 0.5)
    """
    _, groups = np.unique(groups, return_inverse=True)
    found: Subgroups = {}
    for column, given in columns.items():
        values = np.array([_band(value) if column == "age" else value for value in given])
        found[column] = {
            str(value): _subgroup(correct, groups, values == value)
            for value in np.unique(values)
            if value
        }
    return found


def _subgroup(
    correct: Mapping[TrainedOn, Sequence[np.ndarray]], groups: np.ndarray, chosen: np.ndarray
) -> Subgroup:
    images, count = int(chosen.sum()), len(np.unique(groups[chosen]))
    accuracy: dict[str, Estimate] | NotComputed = {
        "not_computed": f"fewer than {MINIMUM} images or {MINIMUM_GROUPS} groups"
    }
    if images >= MINIMUM and count >= MINIMUM_GROUPS:
        accuracy = {}
        for trained_on, of_seeds in correct.items():
            figure = accuracy_figure(trained_on, np.array(of_seeds), groups, (1, 0), None, chosen)
            interval = np.clip(figure.interval(), 0, 1).tolist()
            name = " ".join(filter(None, trained_on))
            accuracy[name] = {"value": figure.value, "interval": interval}
    return {"images": images, "groups": count, "accuracy": accuracy}


def _band(age: str) -> str:
    """The band of an age in years; "" if it is none."""
    try:
        years = float(age.strip().rstrip("Yy"))
    except ValueError:
        return ""
    if not 0 <= years < 130:
        return ""
    return next((name for end, name in _AGES if years < end), "80 and over")
