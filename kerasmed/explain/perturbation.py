"""An image whose superpixels can be hidden, and what is predicted then."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kerasmed.errors import InputError
from kerasmed.explain.masks import (
    apply_masks,
)

# Perturbed images that are made and predicted at once, and after which LIME judges whether to stop.
ROUND = 128

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class PerturbedImage:
    """An image whose superpixels can be hidden, and what is predicted then."""

    image: np.ndarray
    segments: np.ndarray
    fill: np.ndarray
    predict: Predict

    @property
    def num_segments(self) -> int:
        """Superpixels of the image."""
        return int(self.segments.max()) + 1

    def probabilities(self, masks: np.ndarray) -> np.ndarray:
        """Probabilities (masks, classes) of the image with the superpixels that each mask keeps."""
        return np.concatenate(list(self.rounds(masks)))

    def rounds(self, masks: np.ndarray) -> Iterator[np.ndarray]:
        """As ``probabilities``, in rounds; the next is perturbed while one is predicted."""
        with ThreadPoolExecutor(1) as perturbing:
            ahead = perturbing.submit(self._perturb, masks[:ROUND])
            classes = None
            for start in range(0, len(masks), ROUND):
                images = ahead.result()
                ahead = perturbing.submit(self._perturb, masks[start + ROUND : start + 2 * ROUND])
                found = _checked(self.predict(images), len(images), classes)
                classes = found.shape[1]
                yield found

    def _perturb(self, masks: np.ndarray) -> np.ndarray:
        return apply_masks(self.image, self.fill, self.segments, masks)


def _checked(probabilities: np.ndarray, count: int, classes: int | None) -> np.ndarray:
    """What a predict function gave, if it is what it should be."""
    wanted = f"({count}, {classes or 'classes'}) numbers of 0 to 1 whose rows add up to 1"
    try:
        found = np.asarray(probabilities)
        found = found if found.dtype.kind in "fiu" else found.astype(np.float64)
    except (TypeError, ValueError):  # ragged, or no numbers
        raise InputError(
            f"Probabilities: expected {wanted}, received a {type(probabilities).__name__} of "
            "something else from the predict function; mend it."
        ) from None
    if (
        found.ndim != 2
        or len(found) != count
        or found.shape[1] < 2
        or (classes is not None and found.shape[1] != classes)
    ):
        raise InputError(
            f"Probabilities: expected {wanted}, received the shape {found.shape} from the predict "
            "function; mend it."
        )
    if not np.isfinite(found).all():
        raise InputError(
            f"Probabilities: expected {wanted}, received NaN or infinity from the predict "
            "function; check the model."
        )
    wrong = (found < 0).any(axis=1) | (np.abs(found.sum(axis=1) - 1) > 1e-3)
    if wrong.any():
        raise InputError(
            f"Probabilities: expected {wanted}, received rows such as "
            f"{found[wrong.argmax()].tolist()} from the predict function; put a softmax behind "
            "logits."
        )
    return found
