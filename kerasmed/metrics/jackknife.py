"""Figures with intervals over whole groups, by the delete-one-group jackknife."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import t

from kerasmed.result_types import Estimate


@dataclass(frozen=True)
class Figure:
    """A figure of one or more independent samples, and its values without each of their groups.

    The groups of a sample, such as patients, are its independent observations. Figures of the
    same sample vary together, and ``combine`` keeps that: the interval of a ratio of two figures of
    the same test images is narrower than those of the figures would suggest.

    Attributes:
        value: the figure.
        without: by sample, float (groups,): the figure without each group of it.
        counted: by sample, bool (groups,): which of its groups the figure is of; all if not given.

    Example:
        >>> import numpy as np
        >>> from kerasmed.metrics.jackknife import combine, mean_figure
        >>> right, patients = np.array([1, 1, 0, 1, 1, 0, 1, 1]), np.arange(8) // 2
        >>> accuracy = mean_figure(right, {"test": patients})
        >>> accuracy.value, [round(end, 2) for end in accuracy.interval()]
        (0.75, [0.29, 1.21])
        >>> combine(lambda a, b: a / b, accuracy, accuracy).interval()
        (1.0, 1.0)
    """

    value: float
    without: Mapping[str, np.ndarray] = field(default_factory=dict)
    counted: Mapping[str, np.ndarray] = field(default_factory=dict)

    def corrected(self) -> "Figure":
        """The figure less its bias, which is estimated to first order in one over the groups."""
        bias = sum(
            (len(values) - 1) * (values.mean() - self.value) for values in self.without.values()
        )
        return Figure(float(self.value - bias), self.without)

    @property
    def standard_error(self) -> float:
        """Standard deviation of the figure over samples of as many groups."""
        return float(np.sqrt(sum(self._variances()[0])))

    def quantile(self, probability: float) -> float:
        """The figure's bound that the truth stays below with this probability.

        That of a t distribution, with the degrees of freedom of Welch and Satterthwaite.
        """
        if self.standard_error == 0:
            return self.value
        return float(self.value + self.standard_error * t.ppf(probability, self._degrees))

    @property
    def p_value(self) -> float:
        """Two-sided p value of the figure against 0, by the same t distribution."""
        if self.standard_error == 0:
            return float(self.value == 0)
        return float(2 * t.sf(abs(self.value) / self.standard_error, self._degrees))

    @property
    def _degrees(self) -> float:
        variances, groups = self._variances()
        return variances.sum() ** 2 / np.sum(np.square(variances) / (groups - 1))

    def _variances(self) -> tuple[np.ndarray, np.ndarray]:
        """The variance from each sample, and how many groups of it the figure is of."""
        counted = {
            name: values[self.counted[name]] if name in self.counted else values
            for name, values in self.without.items()
        }
        groups = np.array([len(values) for values in counted.values()])
        return np.array([_variance(values) for values in counted.values()]), groups

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The central interval of this level."""
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    def estimate(self) -> Estimate:
        """The figure and its 95% interval, as a result file has them."""
        return {"value": self.value, "interval": list(self.interval())}


def combine(function: Callable[..., Any], *figures: Figure) -> Figure:
    """``function`` of the figures' values, with the intervals that follow.

    Args:
        function: of as many numbers; it must also accept arrays.
        figures: a group has the same place in all figures of its sample.
    """
    samples = dict.fromkeys(name for figure in figures for name in figure.without)
    without = {
        name: np.asarray(function(*(figure.without.get(name, figure.value) for figure in figures)))
        for name in samples
    }
    counted = {
        name: np.logical_or.reduce(
            [
                figure.counted.get(name, np.full(len(values), name in figure.without))
                for figure in figures
            ]
        )
        for name, values in without.items()
    }
    return Figure(float(function(*(figure.value for figure in figures))), without, counted)


def ratio_of(first: Figure, second: Figure) -> Figure:
    """The first figure over the second one, which may be 0 where the first is too."""
    return combine(lambda a, b: a / np.maximum(b, 1e-9), first, second)


def mean_of(*figures: Figure) -> Figure:
    """The mean of figures."""
    return combine(lambda *values: sum(values) / len(values), *figures)


def mean_figure(
    values: np.ndarray,
    groups: Mapping[str, np.ndarray],
    added: Sequence[float] = (),
    count: int | None = None,
) -> Figure:
    """The mean of values, such as an accuracy.

    Args:
        values: float (n,).
        groups: one sample, by its name: (n,), 0 to the number of groups less 1.
        added: values of further groups of mean size, which only the interval knows. Where every
            image is classified correctly the groups do not vary, and yet the next one may differ.
            So of two fractions that are compared, one gets ``(1, 0)`` and the other ``(0, 1)``, and
            of their difference ``(1, -1)`` (Bonett and Price, Statistical Methods in Medical
            Research 15, 2006).
        count: number of groups, if some have no value.
    """
    ((name, group_of_value),) = groups.items()
    count = int(group_of_value.max()) + 1 if count is None else count
    sums = np.bincount(group_of_value, values, count)
    sizes = np.bincount(group_of_value, minlength=count)
    size = len(values) / np.count_nonzero(sizes)
    sums = np.append(sums, np.multiply(added, size))
    sizes = np.append(sizes, np.full(len(added), size))
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    return Figure(float(values.mean()), {name: without})


def _variance(without: np.ndarray) -> float:
    count = len(without)
    return float((count - 1) / count * np.square(without - without.mean()).sum())
