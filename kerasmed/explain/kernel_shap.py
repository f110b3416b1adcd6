"""Shapley values by weighted regression."""

from typing import Any

import numpy as np

from kerasmed.explain.explainer import DEFAULTS, Explainer, check_count
from kerasmed.explain.explanation import Explanation
from kerasmed.explain.masks import draw_masks
from kerasmed.explain.perturbation import PerturbedImage, Predict


class KernelShapExplainer(Explainer):
    """Shapley values by weighted regression (Lundberg and Lee, arXiv:1705.07874).

    Pairs of masks are drawn from the Shapley kernel (Covert and Lee, arXiv:2012.01536). The weights
    add up to the difference between the image and the image with everything hidden.

    Args:
        predict: see ``Explainer``.
        num_samples: number of perturbed images, the whole one and the hidden one included.
        seed: seed of the masks.
        options: see ``Explainer``.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> from PIL import Image
        >>> model = km.OnnxClassifier("cnn.onnx")
        >>> image = np.asarray(Image.open("scan.png"))
        >>> explanation = km.KernelShapExplainer(model.predict, superpixels=10).explain(image)
        >>> explanation.explainer
        'kernel_shap'
    """

    name = "kernel_shap"
    takes = (*Explainer.takes, "num_samples", "seed")

    def __init__(
        self,
        predict: Predict,
        num_samples: int = DEFAULTS.num_samples,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__(predict, **options)
        check_count("Samples", num_samples, 10)
        check_count("Seed", seed, 0)
        self.num_samples = num_samples
        self.seed = seed

    def _explain(self, perturbed: PerturbedImage) -> Explanation:
        count = perturbed.num_segments
        ends = np.array([[True] * count, [False] * count])
        masks = ends
        if count > 1:
            drawn = draw_masks(count, self.num_samples - 1, self.seed, "shapley")[1:]
            masks = np.concatenate([ends, drawn])
        probabilities = perturbed.probabilities(masks)
        whole, nothing = probabilities[:2].astype(np.float64)
        x, y = masks[2:].astype(np.float64), probabilities[2:] - nothing
        # A tiny ridge, which fewer samples than superpixels need.
        gram = x.T @ x / max(len(x), 1) + 1e-6 * np.eye(count)
        moments = x.T @ y / max(len(x), 1)
        solved = np.linalg.solve(gram, np.column_stack([moments, np.ones(count)]))
        free, ones = solved[:, :-1], solved[:, -1:]
        weights = free + ones * ((whole - nothing) - free.sum(axis=0)) / ones.sum()
        return self._explanation(
            perturbed, weights, probabilities, seed=self.seed, intercepts=nothing
        )
