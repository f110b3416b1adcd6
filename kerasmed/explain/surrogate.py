"""LIME: which superpixels a prediction hangs on (Ribeiro et al., arXiv:1602.04938)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from lime.lime_image import ImageExplanation

from kerasmed.data.readers import check_images
from kerasmed.errors import InputError
from kerasmed.explain.segments import segment_image

# Those of `lime` 0.2.0.1: kernel exp(-d^2 / width^2) on the cosine distance, ridge with alpha 1.
KERNEL_WIDTH = 0.25
RIDGE_ALPHA = 1.0

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Explanation:
    """Weights of an image's superpixels for every class.

    Attributes:
        image: uint8 (height, width, 3).
        segments: int (height, width), 0 to n - 1.
        superpixel_weights: float64 (n, classes); positive speaks for the class.
        intercepts: float64 (classes,).
        scores: float64 (classes,), weighted R^2 of the surrogate.
        probabilities: float32 (classes,) of the image itself.
    """

    image: np.ndarray
    segments: np.ndarray
    superpixel_weights: np.ndarray
    intercepts: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray

    def as_lime(self) -> ImageExplanation:
        """The `lime` package's result object, for ``get_image_and_mask`` and existing notebooks."""
        result = ImageExplanation(self.image, self.segments)
        result.score, result.local_pred = {}, {}
        order = np.argsort(-self.probabilities, kind="stable")
        result.top_labels = order.tolist()
        for label in result.top_labels:
            weights = self.superpixel_weights[:, label]
            ranked = np.argsort(-np.abs(weights), kind="stable")
            result.local_exp[label] = [(int(i), float(weights[i])) for i in ranked]
            result.intercept[label] = float(self.intercepts[label])
            result.score[label] = float(self.scores[label])
            result.local_pred[label] = float(self.intercepts[label] + weights.sum())
        return result


def explain_image(
    image: np.ndarray,
    predict: Predict,
    num_samples: int = 500,
    segmentation: str = "slic",
    superpixels: int = 50,
    seed: int = 0,
    batch_size: int = 64,
) -> Explanation:
    """LIME for all classes at once.

    Masks, kernel and regression are those of `lime` 0.2.0.1: each superpixel is kept with
    probability one half and else shows its mean colour, the first sample is the whole image. Two
    things differ: the seed governs the masks, and nothing else, and the regression weighs every
    superpixel instead of first choosing some.

    Args:
        image: uint8 (height, width, 3), 0 to 255.
        predict: from uint8 (batch, height, width, 3) to probabilities (batch, classes).
        num_samples: masked images, the whole one included.
        segmentation: see ``segment_image``.
        superpixels: see ``segment_image``.
        seed: of the masks.
        batch_size: masked images handed to ``predict`` at once.

    Raises:
        InputError: an image of another form, or probabilities that are not finite.
    """
    check_images(image[None])
    segments = segment_image(image, segmentation, superpixels)
    masks = draw_masks(int(segments.max()) + 1, num_samples, seed)
    fill = mean_colours(image, segments)
    probabilities = np.concatenate(
        [
            predict(apply_masks(image, fill, segments, masks[start : start + batch_size]))
            for start in range(0, num_samples, batch_size)
        ]
    )
    if not np.isfinite(probabilities).all():
        raise InputError(
            "Probabilities: expected finite numbers, received NaN or infinity from the predict "
            "function; check the model."
        )
    weights, intercepts, scores = fit_surrogate(masks, probabilities)
    return Explanation(image, segments, weights, intercepts, scores, probabilities[0])


def draw_masks(num_segments: int, num_samples: int, seed: int) -> np.ndarray:
    """Which superpixels each sample keeps: bool (num_samples, num_segments); the first, all."""
    masks = np.random.default_rng(seed).random((num_samples, num_segments)) < 0.5
    masks[0] = True
    return masks


def mean_colours(image: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The image with each superpixel in its mean colour: uint8, the same shape."""
    flat, pixels = segments.ravel(), image.reshape(-1, 3)
    sizes = np.bincount(flat)
    means = np.stack([np.bincount(flat, pixels[:, c]) / sizes for c in range(3)], axis=1)
    return means[segments].astype(np.uint8)


def apply_masks(
    image: np.ndarray, fill: np.ndarray, segments: np.ndarray, masks: np.ndarray
) -> np.ndarray:
    """The image where a mask keeps, the fill elsewhere: uint8 (masks, height, width, 3)."""
    return np.where(masks[:, segments][..., None], image, fill)


def fit_surrogate(
    masks: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted ridge regression of probabilities on masks, for all classes in one solution.

    The weight of a sample is sqrt(exp(-d^2 / width^2)), d its mask's cosine distance to the mask
    that keeps all, as in `lime`; a mask that keeps nothing has d = 1. The intercept is not shrunk.

    Returns:
        Weights float64 (segments, classes), intercepts (classes,), weighted R^2 (classes,).
    """
    kept = masks.mean(axis=1)
    distances = 1 - np.sqrt(kept)
    sample_weights = np.sqrt(np.exp(-(distances**2) / KERNEL_WIDTH**2))
    share = sample_weights / sample_weights.sum()
    x, y = masks.astype(np.float64), probabilities.astype(np.float64)
    x_mean, y_mean = share @ x, share @ y
    x_centred, y_centred = x - x_mean, y - y_mean
    weighted = x_centred * sample_weights[:, None]
    gram = weighted.T @ x_centred + RIDGE_ALPHA * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, weighted.T @ y_centred)
    intercepts = y_mean - x_mean @ weights
    residual = sample_weights @ np.square(y_centred - x_centred @ weights)
    total = sample_weights @ np.square(y_centred)
    # As in scikit-learn, a prediction that never changes is explained in full.
    scores = 1 - np.divide(residual, total, out=np.zeros_like(total), where=total > 1e-15)
    return weights, intercepts, scores
