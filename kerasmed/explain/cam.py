"""Class activation mapping (CAM), for classifiers whose Keras network is available."""

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


class CamExplainer:
    """CAM (Zhou et al., arXiv:1512.04150) of a kerasmed classifier, averaged over each superpixel.

    The mean of the last feature maps goes into one dense layer. Each map is therefore weighted by
    that layer's weight, divided by the number of positions. The gradient of the logit is the same
    at every position, so Grad-CAM (Selvaraju et al., arXiv:1610.02391) without its ReLU gives the
    same map. Negative values are kept: they are the evidence against the class.

    Args:
        model: a network of ``build_classifier``, such as ``model.keras`` of a study.
        temperature: what its logits are divided by to calibrate the probabilities.
    """

    name = "cam"

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
        outputs = self._maps.predict_on_batch(image[None])
        maps = ops.convert_to_numpy(outputs["maps"])[0].astype(np.float64)
        logits = ops.convert_to_numpy(outputs["logits"])[0]
        evidence = maps @ self._head / maps[..., 0].size  # rows, columns, classes
        sizes = np.bincount(segments.ravel())
        weights = np.stack(
            [
                np.bincount(segments.ravel(), _enlarge(class_map, segments.shape).ravel()) / sizes
                for class_map in np.moveaxis(evidence, 2, 0)
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


def _enlarge(class_map: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    picture = Image.fromarray(class_map.astype(np.float32))
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
