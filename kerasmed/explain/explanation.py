"""The result of an explainer for one image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from kerasmed.explain.overlay import draw_overlay

if TYPE_CHECKING:
    from lime.lime_image import ImageExplanation


@dataclass(eq=False, kw_only=True)
class Explanation:
    """Weights of an image's superpixels for every class.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> from PIL import Image
        >>> model = km.OnnxClassifier("cnn.onnx")
        >>> image = np.asarray(Image.open("scan.png"))
        >>> explanation = km.OcclusionExplainer(model.predict, superpixels=10).explain(image)
        >>> explanation.superpixel_weights.shape[1] == len(model.class_names)
        True
        >>> explanation.overlay().save("why.png")

    Attributes:
        image: uint8 (height, width, 3).
        segments: int (height, width), 0 to n - 1.
        superpixel_weights: float64 (n, classes); positive speaks for the class.
        probabilities: float32 (classes,) of the image itself.
        explainer: a key of EXPLAINERS, or "cam".
        seed: seed of the masks; None where nothing is drawn.
        num_samples: number of perturbed images that were predicted.
        intercepts: float64 (classes,), what the weights are added to.
        scores: float64 (classes,), weighted R^2 of LIME's surrogate; empty for other explainers.
        half_widths: float64 (n, classes), half of each weight's 95% interval over other masks;
            empty where none is known.
        stability: how alike explanations from other masks would be, for the predicted class:
            ``top``, ``top_overlap`` and ``rank_correlation``, see ``Surrogate.stability``; empty
            where it is not known.
        warnings: reasons not to rely on the weights; empty if there is none.
        faithfulness: result of ``deletion_and_insertion`` for the predicted class; empty until it
            is measured, as ``kerasmed explain`` does.
        duration_s: time of segmentation, perturbation, network and regression.
    """

    image: np.ndarray
    segments: np.ndarray
    superpixel_weights: np.ndarray
    probabilities: np.ndarray
    explainer: str
    seed: int | None
    num_samples: int
    intercepts: np.ndarray
    scores: np.ndarray = field(default_factory=lambda: np.empty(0))
    half_widths: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    stability: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    faithfulness: Mapping[str, Any] = field(default_factory=dict)
    duration_s: float = 0.0

    @property
    def predicted(self) -> int:
        """The most probable class."""
        return int(self.probabilities.argmax())

    def overlay(self, label: int | None = None, top: int = 5) -> Image.Image:
        """The image, and next to it the image with its strongest superpixels.

        Green speaks for the class and purple against it, the stronger the more opaque.

        Args:
            label: the class; the most probable one if None.
            top: how many superpixels to show, by absolute weight.
        """
        weights = self.superpixel_weights[:, self.predicted if label is None else label]
        return Image.fromarray(draw_overlay(self.image, self.segments, weights, top))

    def as_lime(self) -> "ImageExplanation":
        """The same as a result of the package lime 0.2.0.1, for notebooks that use it."""
        from lime.lime_image import ImageExplanation  # takes longer to import than an explanation

        result = ImageExplanation(self.image, self.segments)
        result.top_labels = np.argsort(-self.probabilities, kind="stable").tolist()
        for label in result.top_labels:
            weights = self.superpixel_weights[:, label]
            ranked = np.argsort(-np.abs(weights), kind="stable")
            result.local_exp[label] = [(int(i), float(weights[i])) for i in ranked]
            result.intercept[label] = float(self.intercepts[label])
        # The package has one score and one local prediction, not one for each class.
        label = self.predicted
        result.score = float(self.scores[label]) if self.scores.size else None
        weights = self.superpixel_weights[:, label]
        result.local_pred = np.array([result.intercept[label] + weights.sum()])
        return result
