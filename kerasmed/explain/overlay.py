"""An explanation as a picture and as JSON."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.segmentation import mark_boundaries

from kerasmed.explain.surrogate import Explanation
from kerasmed.files import write_json, written_aside

_EDGE = 256
_FOR, _AGAINST = np.array([0.1, 0.75, 0.2]), np.array([0.9, 0.1, 0.15])


def draw_overlay(explanation: Explanation, label: int, top: int) -> np.ndarray:
    """The image beside itself with its strongest superpixels for one class.

    Green speaks for the class and red against it, the stronger the more opaque; their outlines are
    yellow.

    Args:
        explanation: of one image.
        label: the class.
        top: how many superpixels to show, by absolute weight.

    Returns:
        uint8 (256, 512 or so, 3).
    """
    height, width = explanation.image.shape[:2]
    scale = max(1, round(_EDGE / max(height, width)))
    image = explanation.image.repeat(scale, axis=0).repeat(scale, axis=1) / 255
    segments = explanation.segments.repeat(scale, axis=0).repeat(scale, axis=1)
    weights = explanation.superpixel_weights[:, label].copy()
    weights[np.argsort(-np.abs(weights))[top:]] = 0.0
    strength = np.abs(weights) / max(np.abs(weights).max(), 1e-12)
    opacity = 0.6 * strength[segments][..., None]
    colour = np.where(weights[segments][..., None] >= 0, _FOR, _AGAINST)
    overlay = (1 - opacity) * image + opacity * colour
    shown = np.where(weights[segments] != 0, segments + 1, 0)
    overlay = mark_boundaries(overlay, shown, mode="inner")
    return np.rint(np.concatenate([image, overlay], axis=1) * 255).astype(np.uint8)


def write_explanation(
    explanation: Explanation,
    class_names: list[str],
    details: dict[str, Any],
    top: int,
    path: Path,
) -> None:
    """Write ``<image>.png``, the overlay for the predicted class, and ``<image>.json``."""
    label = int(explanation.probabilities.argmax())
    with written_aside(path) as temporary:
        Image.fromarray(draw_overlay(explanation, label, top)).save(temporary)
    values = {
        **details,
        "predicted_class": class_names[label],
        "probabilities": dict(
            zip(class_names, explanation.probabilities.astype(float).tolist(), strict=True)
        ),
        "r2": dict(zip(class_names, explanation.scores.tolist(), strict=True)),
        "intercept": dict(zip(class_names, explanation.intercepts.tolist(), strict=True)),
        "weights": {
            name: explanation.superpixel_weights[:, i].tolist()
            for i, name in enumerate(class_names)
        },
        "segments": explanation.segments.tolist(),
    }
    write_json(path.with_suffix(".json"), values)
