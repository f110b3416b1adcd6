"""What a synthetic set is worth: as many further real images as help a CNN as much."""

from collections.abc import Mapping
from typing import Annotated, Literal, NotRequired

import numpy as np
from pydantic import Field
from scipy.optimize import isotonic_regression
from typing_extensions import TypedDict

from kerasmed.audit.tables import trained_on
from kerasmed.classify.config import Regime
from kerasmed.metrics.jackknife import mean_figure
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import Estimate, UnitPair, Whole
from kerasmed.settings import Count, UnitInterval
from kerasmed.text import counted

_DRAWS = 1000  # of the accuracies, for the intervals

WorthAnswer = Literal["number", "at least", "none", "unknown"]


class CurvePoint(TypedDict):
    """The accuracy of real images alone, of one number of them."""

    images: Count
    """Number of real images."""
    trainings: Count
    """Number of CNNs, each with its own draw of groups; all of `train` is never drawn."""
    accuracy: UnitInterval
    """Their mean accuracy on the test images."""
    interval: UnitPair
    """Its 95% interval, over groups of test images and over trainings."""
    fitted: UnitInterval
    """The curve, which never falls."""


class Worth(TypedDict):
    """What a synthetic set is worth in real images (``evaluation/worth.json``)."""

    backbone: str
    """Name of the network."""
    regime: Regime
    """The use of the synthetic set."""
    variant: str | None
    """Name of the set; null for the main one."""
    train: Count
    """Number of real images that it was used with: those of the role `train`."""
    accuracy: Estimate
    """Accuracy of this use, over groups of test images and over trainings."""
    curve: list[CurvePoint]
    """Accuracy of real images alone, by their number."""
    answer: WorthAnswer
    """Whether there is a number."""
    images: NotRequired[Whole]
    """How many further real images would help as much; of "at least", all that there are."""
    interval: NotRequired[Annotated[list[Whole | None], Field(min_length=2, max_length=2)]]
    """Its 95% interval; null is more than there are."""
    gap_closed: NotRequired[float]
    """The gain over the gain of all further real images."""
    reason: NotRequired[str]
    """Why it is not known."""


class Accuracies:
    """Mean accuracies on the same test images, and how they vary together.

    Args:
        right: by anything, float (trainings, n), 1 where a CNN is right about a test image.
        groups: (n,), equal for test images of one group.
    """

    def __init__(self, right: Mapping[object, np.ndarray], groups: np.ndarray):
        _, group = np.unique(groups, return_inverse=True)
        figures = [mean_figure(r.mean(axis=0), {"test": group}) for r in right.values()]
        self.means = np.array([figure.value for figure in figures])
        without = np.stack([figure.without["test"] for figure in figures])
        centred = without - without.mean(axis=1, keepdims=True)
        count = without.shape[1]
        self.covariance = (count - 1) / count * centred @ centred.T
        spread = _spread([r.mean(axis=1) for r in right.values()])
        if spread is not None:
            trainings = np.array([len(r) for r in right.values()])
            self.covariance += np.diag(spread * self._binomial() / trainings)
        self.is_spread_known = spread is not None
        self.weights = np.array([len(r) for r in right.values()]) / self._binomial()

    def _binomial(self) -> np.ndarray:
        return np.maximum(self.means * (1 - self.means), 1e-4)

    def drawn(self, seed: int) -> np.ndarray:
        """What they might be, float (draws, accuracies)."""
        rng = random_stream(seed, Purpose.WORTH_INTERVAL)
        return rng.multivariate_normal(self.means, self.covariance, _DRAWS, method="eigh")


def _spread(of_trainings: list[np.ndarray]) -> float | None:
    """Variance of accuracy p over trainings, as a multiple of p (1 - p); None if not known.

    Sizes are trained a few times each, so that one multiple is estimated from all.
    """
    several = [values for values in of_trainings if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return None
    return float(
        sum(
            np.square(values - values.mean()).sum() / max(values.mean() * (1 - values.mean()), 1e-4)
            for values in several
        )
        / freedom
    )


def worth_of(
    curve: Mapping[int, np.ndarray],
    train: int,
    use: np.ndarray,
    groups: np.ndarray,
    seed: int,
    named: tuple[str, Regime, str | None],
) -> Worth:
    """How many further real images help as much as a synthetic set.

    The curve is the accuracy of real images alone by the logarithm of their number, an isotonic
    regression that never falls, with straight lines between the sizes. The set is worth N images
    where the curve reaches, at ``train`` + N images, the accuracy of ``train`` images with the set.
    For the interval all accuracies are drawn together from a normal distribution, whose covariance
    is that over groups of test images and, from several trainings of a size, over trainings.

    Args:
        curve: by number of real images, float (trainings, n), 1 where a CNN is right about a test
            image. One of the numbers is ``train``.
        train: number of real images that the set was used with.
        use: float (trainings, n), of CNNs that learned from these and from the set.
        groups: (n,), equal for test images of one group.
        seed: seed of the draws.
        named: backbone, regime and variant of the use.

    Example:
        >>> import numpy as np
        >>> from kerasmed.audit.worth import worth_of
        >>> right = lambda count: np.stack([np.arange(200) < count, np.arange(200) < count - 2])
        >>> curve = {100: right(120) * 1.0, 200: right(150) * 1.0, 400: right(180) * 1.0}
        >>> worth = worth_of(
        ...     curve, 100, curve[200], np.arange(200), 0, ("VGG16", "both", None)
        ... )
        >>> worth["answer"], worth["images"]
        ('number', 100)
    """
    sizes = np.array(sorted(curve))
    accuracies = Accuracies({**{n: curve[n] for n in sizes.tolist()}, "use": use}, groups)
    at_train = int(np.searchsorted(sizes, train))
    fitted = _fit(accuracies.means[:-1], accuracies.weights[:-1])
    drawn = accuracies.drawn(seed)
    ends = np.clip(np.quantile(drawn, [0.025, 0.975], axis=0), 0, 1)
    backbone, regime, variant = named
    worth: Worth = {
        "backbone": backbone,
        "regime": regime,
        "variant": variant,
        "train": train,
        "accuracy": {"value": float(accuracies.means[-1]), "interval": ends[:, -1].tolist()},
        "curve": [
            {
                "images": size,
                "trainings": len(curve[size]),
                "accuracy": float(accuracies.means[at]),
                "interval": ends[:, at].tolist(),
                "fitted": float(np.clip(fitted[at], 0, 1)),
            }
            for at, size in enumerate(sizes.tolist())
        ],
        "answer": "unknown",
    }
    number = _images(fitted, sizes, at_train, accuracies.means[-1])
    # Of a use that raises no accuracy, a flat curve tells that it is worth nothing.
    is_flat = np.quantile(drawn[:, -2] - drawn[:, at_train], 0.05) <= 0
    reason = _why_not(accuracies, at_train, bool(is_flat and number > 0))
    if reason is not None:
        worth["reason"] = reason
        return worth
    most = int(sizes[-1] - train)
    numbers = np.array(
        [
            _images(_fit(row[:-1], accuracies.weights[:-1]), sizes, at_train, row[-1])
            for row in drawn
        ]
    )
    low, high = np.quantile(numbers, [0.025, 0.975], method="nearest")
    worth["interval"] = [int(min(low, most)), None if np.isinf(high) else round(float(high))]
    if number <= 0:
        worth["answer"], worth["images"] = "none", 0
    elif np.isinf(number):
        worth["answer"], worth["images"] = "at least", most
    else:
        worth["answer"], worth["images"] = "number", round(number)
    gap = fitted[-1] - fitted[at_train]
    if gap > 0 and not is_flat:
        worth["gap_closed"] = float((accuracies.means[-1] - fitted[at_train]) / gap)
    return worth


def _why_not(accuracies: Accuracies, at_train: int, is_flat: bool) -> str | None:
    if at_train == len(accuracies.means) - 2:
        return "there are no further real images to compare with: the role reserve is empty"
    if not accuracies.is_spread_known:
        return "each size was trained once, so how much trainings differ is not known"
    if is_flat:
        return (
            "even all further real images do not raise the accuracy beyond chance, so no number "
            "of them can be read off"
        )
    return None


def _fit(accuracies: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return isotonic_regression(accuracies, weights=weights).x


def _images(fitted: np.ndarray, sizes: np.ndarray, at_train: int, accuracy: float) -> float:
    """How many images further than ``train`` the curve reaches an accuracy; infinite if never."""
    if accuracy <= fitted[at_train]:
        return 0.0
    if accuracy > fitted[-1]:
        return float("inf")
    above = int(np.argmax(fitted >= accuracy))
    between = (accuracy - fitted[above - 1]) / (fitted[above] - fitted[above - 1])
    low, high = np.log(sizes[above - 1]), np.log(sizes[above])
    return float(np.exp(low + between * (high - low)) - sizes[at_train])


def worth_sentence(worth: Worth) -> str:
    """The worth in one sentence."""
    use = f"{worth['backbone']} {trained_on(worth['regime'], worth['variant'])}"
    reached = (
        f"{use} reaches {100 * worth['accuracy']['value']:.1f}% with {worth['train']} real images"
    )
    if worth["answer"] == "unknown":
        return f"What the synthetic set is worth is not known: {worth['reason']} ({reached})."
    low, high = worth["interval"]
    interval = f"95% interval {low:,} to {'more than there are' if high is None else f'{high:,}'}"
    (alone,) = [point for point in worth["curve"] if point["images"] == worth["train"]]
    if worth["answer"] == "none":
        return (
            f"The synthetic set is worth no further real image ({interval}): {reached}, which "
            f"alone give {100 * alone['accuracy']:.1f}%."
        )
    at_least = "at least " if worth["answer"] == "at least" else ""
    return (
        f"The synthetic set is worth {at_least}{counted(worth['images'], 'further real image')} "
        f"({interval}): {reached} and the set, and {100 * alone['accuracy']:.1f}% without it."
    )
