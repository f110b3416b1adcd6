"""Occlusion of one superpixel at a time."""

import numpy as np

from kerasmed.explain.explainer import Explainer
from kerasmed.explain.explanation import Explanation
from kerasmed.explain.perturbation import PerturbedImage


class OcclusionExplainer(Explainer):
    """How much each probability falls when one superpixel is hidden (arXiv:1311.2901).

    Example:
        >>> import kerasmed as km, numpy as np
        >>> from PIL import Image
        >>> model = km.OnnxClassifier("cnn.onnx")
        >>> image = np.asarray(Image.open("scan.png"))
        >>> explanation = km.OcclusionExplainer(model.predict, superpixels=10).explain(image)
        >>> explanation.explainer
        'occlusion'
    """

    name = "occlusion"

    def _explain(self, perturbed: PerturbedImage) -> Explanation:
        count = perturbed.num_segments
        masks = np.concatenate([[[True] * count], ~np.eye(count, dtype=bool)])
        probabilities = perturbed.probabilities(masks)
        weights = probabilities[0].astype(np.float64) - probabilities[1:]
        return self._explanation(
            perturbed,
            weights,
            probabilities,
            seed=None,
            intercepts=probabilities[0] - weights.sum(axis=0),
        )
