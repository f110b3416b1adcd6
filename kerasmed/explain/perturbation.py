"""An image whose superpixels can be hidden, and what is predicted then."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasmed.errors import InputError
from kerasmed.explain.masks import apply_masks

# Perturbed images that are made and predicted at once. LIME decides after each round whether to
# stop.
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
        """Number of superpixels of the image."""
        return int(self.segments.max()) + 1

    def probabilities(self, masks: np.ndarray) -> np.ndarray:
        """Probabilities (masks, classes) of the image with the superpixels that each mask keeps."""
        return np.concatenate(list(self.rounds(masks)))

    def rounds(self, masks: np.ndarray) -> Iterator[np.ndarray]:
        """As ``probabilities``, round by round; the next is perturbed while one is predicted."""
        with ThreadPoolExecutor(1) as perturbing:
            ahead = perturbing.submit(self._perturb, masks[:ROUND])
            classes = None
            for start in range(0, len(masks), ROUND):
                images = ahead.result()
                ahead = perturbing.submit(self._perturb, masks[start + ROUND : start + 2 * ROUND])
                probabilities = _check_probabilities(self.predict(images), len(images), classes)
                classes = probabilities.shape[1]
                yield probabilities

    def _perturb(self, masks: np.ndarray) -> np.ndarray:
        return apply_masks(self.image, self.fill, self.segments, masks)


def _check_probabilities(predicted: Any, count: int, classes: int | None) -> np.ndarray:
    """What a predict function returned, as an array of probabilities (count, classes).

    Raises:
        InputError: it did not return probabilities.
    """
    wanted = f"({count}, {classes or 'classes'}) numbers of 0 to 1 whose rows add up to 1"
    try:
        values = np.asarray(predicted)
        values = values if values.dtype.kind in "fiu" else values.astype(np.float64)
    except (TypeError, ValueError):  # ragged, or no numbers
        raise InputError(
            f"Probabilities: expected {wanted}, received a {type(predicted).__name__} "
            "without such numbers from the predict function; correct it."
        ) from None
    if (
        values.ndim != 2
        or len(values) != count
        or values.shape[1] < 2
        or (classes is not None and values.shape[1] != classes)
    ):
        raise InputError(
            f"Probabilities: expected {wanted}, received the shape {values.shape} from the predict "
            "function; correct it."
        )
    if not np.isfinite(values).all():
        raise InputError(
            f"Probabilities: expected {wanted}, received NaN or infinity from the predict "
            "function; check the model."
        )
    wrong = (values < 0).any(axis=1) | (np.abs(values.sum(axis=1) - 1) > 1e-3)
    if wrong.any():
        raise InputError(
            f"Probabilities: expected {wanted}, received rows such as "
            f"{values[wrong.argmax()].tolist()} from the predict function; apply a softmax to "
            "logits."
        )
    return values
