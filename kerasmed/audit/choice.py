"""Which regime gives the best CNN, as far as the validation images can show."""

from collections.abc import Mapping, Sequence

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.comparison import TrainedOn, accuracy_figure
from kerasmed.classify.config import SYNTHETIC_REGIMES, Regime
from kerasmed.metrics.jackknife import combine
from kerasmed.result_types import Signed
from kerasmed.settings import Count

_LEVEL = 0.05  # of the one-sided test, over all candidates together


class Gain(TypedDict):
    """What a use of synthetic images gains on the validation images."""

    regime: Regime
    """What its CNNs learned from."""
    variant: str | None
    """The synthetic set; null for the main one."""
    gain: Signed
    """Accuracy less that of the best regime without synthetic images, the mean over the seeds."""
    lower_end: Signed
    """One-sided 95% lower end of the gain over groups, corrected for the number of candidates."""


class Choice(TypedDict):
    """Which regime the CNNs of ``best`` are of, and by what margin."""

    regime: Regime
    """The regime."""
    variant: str | None
    """The synthetic set that it learned from; null for the main one, and for real images."""
    without_synthetic: Regime
    """The regime without synthetic images that has the lowest validation loss."""
    gains: list[Gain]
    """What each use of synthetic images gains over it."""
    groups: Count
    """Number of groups, such as patients, of the validation images."""


def choose_regime(
    correct: Mapping[TrainedOn, Sequence[np.ndarray]],
    losses: Mapping[TrainedOn, float],
    groups: np.ndarray,
) -> Choice:
    """The regime whose CNNs are used: one without synthetic images unless another clearly helps.

    The candidates are the regimes with synthetic images. One is chosen if the lower end of its gain
    is above 0, and of several the one whose lower end is highest. These very CNNs are used
    afterwards, so the gain is theirs, and its interval is over groups of images alone.

    Args:
        correct: float (n,) for each seed, 1 where the CNN is right about a validation image; of the
            regimes of one backbone.
        losses: the loss of each on the validation images, the mean over its seeds.
        groups: (n,), equal for images of one group.

    Example:
        >>> import numpy as np
        >>> from kerasmed.audit.choice import choose_regime
        >>> from kerasmed.audit.comparison import TrainedOn
        >>> real, both = TrainedOn("VGG16", "real"), TrainedOn("VGG16", "both")
        >>> right = {real: [np.repeat([1.0, 0.0], 50)], both: [np.ones(100)]}
        >>> choice = choose_regime(right, {real: 0.9, both: 0.2}, np.arange(100))
        >>> choice["regime"], choice["gains"][0]["gain"]
        ('both', 0.5)
    """
    _, groups = np.unique(groups, return_inverse=True)
    uses = [key for key in correct if key.regime in SYNTHETIC_REGIMES]
    plain = min((key for key in correct if key not in uses), key=losses.__getitem__)

    def accuracy(key: TrainedOn, added: Sequence[float]):
        return accuracy_figure(key, np.mean(correct[key], axis=0)[None], groups, added)

    chosen, highest = plain, 0.0
    gains: list[Gain] = []
    for key in uses:
        figure = combine(lambda a, b: b - a, accuracy(plain, (1, 0)), accuracy(key, (0, 1)))
        lower_end = max(-1.0, figure.quantile(_LEVEL / len(uses)))
        gains.append(
            {
                "regime": key.regime,
                "variant": key.variant,
                "gain": figure.value,
                "lower_end": lower_end,
            }
        )
        if lower_end > highest:
            chosen, highest = key, lower_end
    return {
        "regime": chosen.regime,
        "variant": chosen.variant,
        "without_synthetic": plain.regime,
        "gains": gains,
        "groups": int(groups.max()) + 1,
    }
