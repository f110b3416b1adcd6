"""Grad-CAM (Selvaraju et al., arXiv:1610.02391), for when the Keras network is there."""

import time

import keras
import numpy as np
from keras import ops
from PIL import Image
from scipy.special import softmax

from kerasmed.explain.config import ExplainConfig
from kerasmed.explain.explainer import ONE_SUPERPIXEL
from kerasmed.explain.explanation import Explanation
from kerasmed.explain.segments import superpixels_of

DEFAULTS = ExplainConfig()


class GradCamExplainer:
    """Grad-CAM of a classifier of kerasmed, averaged over each superpixel.

    In these networks the mean of the last feature maps goes into one dense layer, so the gradient
    of a logit with respect to a map is that layer's weight over the number of places, everywhere:
    no derivative has to be taken. Negative parts are kept, for the weights against the class.

    Args:
        model: a network of ``build_classifier``, such as ``model.keras`` of a study.
        temperature: what its logits are divided by, see ``Classifier``.
    """

    name = "grad_cam"

    def __init__(self, model: keras.Model, temperature: float):
        self.temperature = temperature
        head = model.get_layer("logits")
        self._head = ops.convert_to_numpy(head.kernel)
        maps = model.get_layer("features").input
        self._maps = keras.Model(model.inputs, {"maps": maps, "logits": model.output["logits"]})

    def explain(self, image: np.ndarray, segments: np.ndarray | None = None) -> Explanation:
        """As ``Explainer.explain``."""
        started = time.perf_counter()
        segments = superpixels_of(image, segments, DEFAULTS.segmentation, DEFAULTS.superpixels)
        found = self._maps.predict_on_batch(image[None])
        maps = ops.convert_to_numpy(found["maps"])[0].astype(np.float64)
        logits = ops.convert_to_numpy(found["logits"])[0]
        evidence = maps @ self._head / maps[..., 0].size  # rows, columns, classes
        sizes = np.bincount(segments.ravel())
        weights = np.stack(
            [
                np.bincount(segments.ravel(), _enlarged(each, segments.shape).ravel()) / sizes
                for each in np.moveaxis(evidence, 2, 0)
            ],
            axis=1,
        )
        return Explanation(
            image=image,
            segments=segments,
            superpixel_weights=weights,
            probabilities=softmax(logits / self.temperature).astype(np.float32),
            explainer=self.name,
            seed=None,
            num_samples=1,
            intercepts=np.zeros(weights.shape[1]),
            warnings=[ONE_SUPERPIXEL] if len(sizes) == 1 else [],
            duration_s=time.perf_counter() - started,
        )


def _enlarged(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    picture = Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
