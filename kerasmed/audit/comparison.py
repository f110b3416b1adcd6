"""Whether CNNs of two regimes differ on the same test images by more than chance."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from kerasmed.classify.config import Regime
from kerasmed.errors import InputError
from kerasmed.metrics.jackknife import Figure, combine, mean_figure, mean_of
from kerasmed.metrics.statistics import SIGNIFICANT, holm, permutation_p_value
from kerasmed.result_types import Pair, Signed, UnitPair
from kerasmed.settings import UnitInterval

_REGIMES: tuple[Regime, ...] = get_args(Regime)


class TrainedOn(NamedTuple):
    """Backbone and training set of CNNs that differ only in the seed."""

    backbone: str
    regime: Regime
    variant: str | None = None


Conclusion = Literal["higher", "lower", "no difference shown"]


class Difference(TypedDict):
    """A figure of two regimes."""

    of_each: UnitPair
    """The figure of each, the mean over the seeds."""
    difference: Signed
    """That of the second minus that of the first."""
    interval: Pair
    """Its 95% interval, over groups of test images and over trainings."""


class Comparison(TypedDict):
    """Two regimes of one CNN, tested on the same images."""

    backbone: str
    """Name of the network."""
    regimes: Annotated[list[Regime], Field(min_length=2, max_length=2)]
    """What the CNNs were trained on, the first and the second."""
    variants: Annotated[list[str | None], Field(min_length=2, max_length=2)]
    """The synthetic set of each; null for the main one, and for real images."""
    accuracy: Difference
    """Fraction of the test images that are classified correctly."""
    balanced_accuracy: Difference
    """Mean of the sensitivities of the classes."""
    sensitivity: dict[str, Difference]
    """Fraction of each class that is classified correctly."""
    p_value: UnitInterval
    """That the accuracies are equal, corrected by Holm's method for all comparisons."""
    conclusion: Conclusion
    """Whether the second is higher or lower in accuracy; p values below 0.05 count."""


def compare_regimes(
    correct: Mapping[TrainedOn, Sequence[np.ndarray]],
    labels: np.ndarray,
    class_names: Sequence[str],
    groups: np.ndarray,
    seed: int,
    studies: np.ndarray | None = None,
) -> list[Comparison]:
    """Comparisons of every two regimes of each backbone, tested on the same images.

    The variants of a sweep are compared only with the main sets, not with one another.

    Intervals are over groups of test images and, with several seeds, over trainings. The p value is
    the larger of two: of a permutation test that swaps the two regimes within whole groups, which
    with single images and one seed is McNemar's; and of the same t distribution as the interval,
    which knows the seeds. All are corrected together by Holm's method.

    Args:
        correct: float (n,) for each seed, 1 where the CNN is right about a test image.
        labels: int (n,), class indices of the test images.
        class_names: names of the classes.
        groups: (n,), equal for images of one group.
        seed: seed of the permutations.
        studies: int (n,), the study of each answer, from 0 on, if several are pooled. Intervals are
            then over studies in place of trainings.

    Raises:
        InputError: the predictions are not of the same test images.
    """
    _, group_of_image = np.unique(groups, return_inverse=True)
    # The baseline comes first, whatever the order in the study.
    ordered = sorted(correct, key=lambda trained_on: _REGIMES.index(trained_on.regime))
    pairs = [
        (first, second)
        for first, second in combinations(ordered, 2)
        if first.backbone == second.backbone and not (first.variant and second.variant)
    ]
    tested = {trained_on: np.array(of_seeds) for trained_on, of_seeds in correct.items()}
    for of_seeds in tested.values():
        if of_seeds.shape[1:] != groups.shape:
            raise InputError(
                f"Predictions: expected one for each of {len(groups)} test images, received "
                f"{of_seeds.shape[-1]}; evaluate all CNNs on the same images."
            )
    differences, p_values = [], []
    for pair in pairs:
        of_classes = {
            name: _difference(pair, tested, group_of_image, studies, labels == label)
            for label, name in enumerate(class_names)
            if np.any(labels == label)
        }
        everything = np.full(len(labels), True)
        of_all = _difference(pair, tested, group_of_image, studies, everything)
        differences.append((of_all, of_classes))
        first, second = (tested[trained_on].mean(axis=0) for trained_on in pair)
        by_chance = permutation_p_value(second - first, groups, seed)
        p_values.append(max(by_chance, of_all.figure.p_value))
    comparisons = [
        _comparison(pair, *of_pair, p_value)
        for pair, of_pair, p_value in zip(pairs, differences, holm(p_values), strict=True)
    ]
    backbones = list(dict.fromkeys(trained_on.backbone for trained_on in correct))
    return sorted(comparisons, key=lambda row: backbones.index(row["backbone"]))


def accuracy_figure(
    trained_on: TrainedOn,
    of_seeds: np.ndarray,
    groups: np.ndarray,
    added: Sequence[float],
    studies: np.ndarray | None = None,
    chosen: np.ndarray | slice = slice(None),
) -> Figure:
    """Mean accuracy, over the groups of test images and over the trainings or the studies.

    Args:
        trained_on: what the CNNs were trained on.
        of_seeds: float (seeds, n), 1 where a CNN is right about a test image.
        groups: int (n,), the group of each test image, from 0 on.
        added: see ``mean_figure``.
        studies: see ``compare_regimes``.
        chosen: which test images count, bool (n,); all if not given.
    """
    right, count = of_seeds[:, chosen], int(groups.max()) + 1
    of_images = mean_figure(right.mean(axis=0), {"test": groups[chosen]}, added, count)
    without = dict(of_images.without)
    if studies is not None:
        of_study = {"studies": studies[chosen]}
        without |= mean_figure(right.mean(axis=0), of_study, count=int(studies.max()) + 1).without
    elif len(of_seeds) > 1:
        trainings = {" ".join(map(str, trained_on)): np.arange(len(of_seeds))}
        without |= mean_figure(right.mean(axis=1), trainings).without
    # A class or a subgroup may lack images of many groups, which then say nothing of it.
    there = np.bincount(groups[chosen], minlength=count) > 0
    counted = {"test": np.append(there, np.full(len(added), True))}
    return Figure(of_images.value, without, counted)


class _Difference(NamedTuple):
    """The figure of two regimes, and their difference."""

    first: float
    second: float
    figure: Figure

    def as_result(self) -> Difference:
        low, high = np.clip(self.figure.interval(), -1, 1)  # of few seeds it is wide
        return {
            "of_each": [self.first, self.second],
            "difference": self.figure.value,
            "interval": [float(low), float(high)],
        }


def _difference(
    pair: tuple[TrainedOn, TrainedOn],
    tested: Mapping[TrainedOn, np.ndarray],
    groups: np.ndarray,
    studies: np.ndarray | None,
    chosen: np.ndarray,
) -> _Difference:
    first, second = (
        accuracy_figure(trained_on, tested[trained_on], groups, added, studies, chosen)
        for trained_on, added in zip(pair, ((1, 0), (0, 1)), strict=True)
    )
    return _Difference(first.value, second.value, combine(lambda a, b: b - a, first, second))


def _comparison(
    pair: tuple[TrainedOn, TrainedOn],
    of_all: _Difference,
    of_classes: dict[str, _Difference],
    p_value: float,
) -> Comparison:
    """One comparison, with its corrected p value."""
    first, second = pair
    conclusion: Conclusion = "no difference shown"
    if p_value < SIGNIFICANT:
        conclusion = "higher" if of_all.figure.value > 0 else "lower"
    firsts, seconds, figures = zip(*of_classes.values(), strict=True)
    balanced = _Difference(float(np.mean(firsts)), float(np.mean(seconds)), mean_of(*figures))
    return {
        "backbone": first.backbone,
        "regimes": [first.regime, second.regime],
        "variants": [first.variant, second.variant],
        "accuracy": of_all.as_result(),
        "balanced_accuracy": balanced.as_result(),
        "sensitivity": {name: of_class.as_result() for name, of_class in of_classes.items()},
        "p_value": p_value,
        "conclusion": conclusion,
    }
