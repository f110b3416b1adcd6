"""The base of the explainers that hide superpixels and watch the probabilities."""

import time
from abc import ABC, abstractmethod
from numbers import Integral
from typing import Any

import numpy as np

from kerasmed.errors import InputError
from kerasmed.explain.config import ExplainConfig
from kerasmed.explain.explanation import Explanation
from kerasmed.explain.masks import fill_of
from kerasmed.explain.perturbation import PerturbedImage, Predict
from kerasmed.explain.segments import superpixels_of

# A probability that changes less than this does not change.
LEAST_CHANGE = 1e-3

ONE_SUPERPIXEL = "there is one superpixel, so nothing to compare"

DEFAULTS = ExplainConfig()


class Explainer(ABC):
    """Base of the explainers that hide superpixels.

    Args:
        predict: from uint8 (batch, height, width, 3) to probabilities (batch, classes), for
            instance the method ``predict`` of an ``OnnxClassifier``.
        segmentation: a key of SEGMENTATIONS.
        superpixels: the wanted number, see ``segment_image``.
        hide: what hidden superpixels show: "mean" for their mean colour, or a grey level, 0 to 255.
    """

    name: str
    # The settings of ``ExplainConfig``, and the seed, that its constructor takes.
    takes: tuple[str, ...] = ("segmentation", "superpixels", "hide")

    def __init__(
        self,
        predict: Predict,
        segmentation: str = DEFAULTS.segmentation,
        superpixels: int = DEFAULTS.superpixels,
        hide: str | int = DEFAULTS.hide,
    ):
        if not callable(predict):
            raise InputError(
                "Predict: expected a function from uint8 images to probabilities, received "
                f"{type(predict).__name__}; give for instance the method predict of a model."
            )
        check_count("Superpixels", superpixels, 1)
        self.predict = predict
        self.segmentation = segmentation
        self.superpixels = superpixels
        self.hide = hide

    def explain(self, image: np.ndarray, segments: np.ndarray | None = None) -> Explanation:
        """Explain the probabilities of one image, for all classes.

        Args:
            image: uint8 (height, width, 3), 0 to 255.
            segments: int (height, width), its superpixels, with any ids. None for the explainer's
                own segmentation.

        Raises:
            InputError: an image of another dtype or shape, segments of another size, or a predict
                function that does not return probabilities.
        """
        started = time.perf_counter()
        segments = superpixels_of(image, segments, self.segmentation, self.superpixels)
        fill = fill_of(image, segments, self.hide)
        explanation = self._explain(PerturbedImage(image, segments, fill, self.predict))
        explanation.duration_s = time.perf_counter() - started
        return explanation

    @abstractmethod
    def _explain(self, perturbed: PerturbedImage) -> Explanation:
        """The explanation, without its duration."""

    def _explanation(
        self,
        perturbed: PerturbedImage,
        weights: np.ndarray,
        probabilities: np.ndarray,
        **attributes: Any,
    ) -> Explanation:
        """An explanation from weights (segments, classes) and probabilities (samples, classes)."""
        return Explanation(
            image=perturbed.image,
            segments=perturbed.segments,
            superpixel_weights=weights,
            probabilities=probabilities[0],
            explainer=self.name,
            num_samples=len(probabilities),
            warnings=_warnings(perturbed.num_segments, probabilities),
            **attributes,
        )


def _warnings(num_segments: int, probabilities: np.ndarray) -> list[str]:
    """Reasons not to rely on weights from these probabilities (samples, classes)."""
    warnings = []
    if num_segments == 1:
        warnings.append(ONE_SUPERPIXEL)
    if len(probabilities) < num_segments:
        warnings.append(
            f"{len(probabilities)} samples are fewer than the {num_segments} superpixels"
        )
    if np.ptp(probabilities[:, probabilities[0].argmax()]) < LEAST_CHANGE:
        warnings.append("the probability does not change, whatever is hidden")
    return warnings


def check_count(name: str, value: int, least: int) -> None:
    """Refuse anything but a whole number of at least ``least``."""
    if not isinstance(value, Integral) or value < least:
        raise InputError(
            f"{name}: expected a whole number of {least} or more, received {value!r}; correct it."
        )
