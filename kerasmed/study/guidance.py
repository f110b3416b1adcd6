"""How strongly draws are guided to their class, where the settings leave it open."""

from collections.abc import Callable, Iterator

import numpy as np
from typing_extensions import TypedDict

from kerasmed.progress import say
from kerasmed.settings import Rate, UnitInterval
from kerasmed.study.kept_draws import RealImages

# The scales that are tried, each with so many draws.
_SCALES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
_DRAWS = 192

Draw = Callable[[list[tuple[int, int]], float], Iterator[tuple[int, int, np.ndarray]]]


class Guidance(TypedDict):
    """How the guidance scale was chosen."""

    scale: Rate
    """The scale."""
    named_as_labelled: dict[str, UnitInterval]
    """Fraction of draws that classifiers name as they are labelled, by the scales tried."""
    real: UnitInterval
    """How often the same classifiers name real images rightly that they did not learn from."""


def choose_guidance(real: RealImages, draw: Draw, num_classes: int) -> Guidance:
    """The least scale at which draws are named as labelled as often as real images are.

    If none is enough, the one at which they are named so most often. It depends on nothing but the
    draws, so each of several processes comes to the same.

    Args:
        real: classifiers that learned from training images.
        draw: ``draw(wanted, scale)`` gives class, index and pixels of these classes and indices.
        num_classes: number of classes.
    """
    each = -(-_DRAWS // num_classes)
    wanted = [(label, i) for label in range(num_classes) for i in range(each)]
    labels = np.array([label for label, _ in wanted])
    named: dict[float, float] = {}
    for scale in _SCALES:
        images = np.stack([image for *_, image in draw(wanted, scale)])
        named[scale] = real.named_as_labelled(images, labels)
        if named[scale] >= real.sensitivity:
            break
    best = max(named, key=lambda scale: (min(named[scale], real.sensitivity), -scale))
    say(
        f"Guidance {best:g}: classifiers of real images agree with the labels of {named[best]:.0%} "
        f"of the draws, and of {real.sensitivity:.0%} of real images."
    )
    return {
        "scale": best,
        "named_as_labelled": {f"{scale:g}": fraction for scale, fraction in named.items()},
        "real": real.sensitivity,
    }
