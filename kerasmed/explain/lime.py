"""LIME (Ribeiro et al., arXiv:1602.04938)."""

from typing import Any

import numpy as np

from kerasmed.errors import InputError
from kerasmed.explain.explainer import DEFAULTS, LEAST_CHANGE, Explainer, check_count
from kerasmed.explain.explanation import Explanation
from kerasmed.explain.masks import LIME_SAMPLINGS, PAIRED, draw_masks, sample_weights
from kerasmed.explain.perturbation import PerturbedImage, Predict
from kerasmed.explain.surrogate import Surrogate, fit_surrogate

# Below these an explanation carries a warning.
LEAST_R2 = 0.3
LEAST_OVERLAP = 0.5

# LIME stops when the expected overlap is at least this large, and the half-widths of the strongest
# superpixels are at most this fraction of the strongest weight.
SETTLED_OVERLAP = 0.7
SETTLED_WIDTH = 0.25


class LimeExplainer(Explainer):
    """LIME (Ribeiro et al., arXiv:1602.04938).

    Kernel, ridge and hidden colours are those of `lime` 0.2.0.1. With the sampling "independent",
    so is the distribution of masks. Unlike there, the seed governs only the masks, and every
    superpixel gets a weight, not only selected ones.

    Args:
        predict: see ``Explainer``.
        num_samples: largest number of perturbed images, the whole one included.
        min_samples: number of perturbed images after which it may stop, once SETTLED_OVERLAP and
            SETTLED_WIDTH hold for the predicted class. If it is ``num_samples`` or more, it never
            stops early.
        top: how many of the strongest superpixels must settle, and have their stability reported.
        sampling: one of LIME_SAMPLINGS.
        seed: seed of the masks. The same seed gives the same weights.
        options: see ``Explainer``.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> from PIL import Image
        >>> model = km.OnnxClassifier("cnn.onnx")
        >>> image = np.asarray(Image.open("scan.png"))
        >>> explanation = km.LimeExplainer(model.predict, superpixels=10).explain(image)
        >>> explanation.explainer
        'lime'
    """

    name = "lime"
    takes = (*Explainer.takes, "num_samples", "min_samples", "top", "sampling", "seed")

    def __init__(
        self,
        predict: Predict,
        num_samples: int = DEFAULTS.num_samples,
        min_samples: int = DEFAULTS.min_samples,
        top: int = DEFAULTS.top,
        sampling: str = DEFAULTS.sampling,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__(predict, **options)
        if sampling not in LIME_SAMPLINGS:
            raise InputError(
                f"Sampling: expected one of {', '.join(LIME_SAMPLINGS)}; received {sampling!r}."
            )
        check_count("Samples", num_samples, 10)
        check_count("Fewest samples", min_samples, 1)
        check_count("Top", top, 1)
        check_count("Seed", seed, 0)
        self.num_samples = num_samples
        self.min_samples = min(min_samples, num_samples)
        self.top = top
        self.sampling = sampling
        self.seed = seed

    def _explain(self, perturbed: PerturbedImage) -> Explanation:
        masks = draw_masks(perturbed.num_segments, self.num_samples, self.seed, self.sampling)
        weights = sample_weights(masks, self.sampling)
        probabilities = np.empty((0, 0))
        for chunk in perturbed.rounds(masks):
            probabilities = np.concatenate([probabilities, chunk]) if len(probabilities) else chunk
            count = len(probabilities)
            # So few samples never settle, and each fit of many superpixels takes long.
            if count < min(len(masks), max(self.min_samples, 2 * perturbed.num_segments)):
                continue
            surrogate = fit_surrogate(
                masks[:count], probabilities, weights[:count], self.sampling in PAIRED
            )
            label = int(probabilities[0].argmax())
            stability = surrogate.stability(label, self.top, self.seed)
            strongest = surrogate.strongest(label, self.top)
            widest = surrogate.half_widths[strongest, label].max()
            narrow = widest <= SETTLED_WIDTH * np.abs(surrogate.weights[:, label]).max()
            if stability["top_overlap"] >= SETTLED_OVERLAP and narrow:
                break
        explanation = self._explanation(
            perturbed,
            surrogate.weights,
            probabilities,
            seed=self.seed,
            intercepts=surrogate.intercepts,
            scores=surrogate.scores,
            half_widths=surrogate.half_widths,
            stability=stability,
        )
        explanation.warnings += _lime_warnings(
            probabilities[:, label], surrogate, label, stability["top_overlap"]
        )
        return explanation


def _lime_warnings(
    probabilities: np.ndarray, surrogate: Surrogate, label: int, overlap: float
) -> list[str]:
    """Reasons not to rely on LIME's weights of a class, whose probabilities are (samples,)."""
    if np.ptp(probabilities) < LEAST_CHANGE:
        return []  # every explainer warns of this
    warnings = []
    if surrogate.scores[label] < LEAST_R2:
        warnings.append(
            f"the surrogate explains {surrogate.scores[label]:.0%} of the changes of the "
            f"probability, less than {LEAST_R2:.0%}"
        )
    if overlap < LEAST_OVERLAP:
        warnings.append(
            f"the strongest superpixels by other masks would have a Jaccard index of {overlap:.2f} "
            f"with these, less than {LEAST_OVERLAP}"
        )
    return warnings
