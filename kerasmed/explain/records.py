"""Explanations on disk: a picture and a JSON record each."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.segmentation import mark_boundaries

from kerasmed.errors import StageError
from kerasmed.explain.explanation import Explanation
from kerasmed.files import read_json, write_json, written_aside

_EDGE = 256
# Green and purple, which colour-blind readers tell apart.
_FOR, _AGAINST = np.array([0.1, 0.65, 0.25]), np.array([0.6, 0.15, 0.65])


def draw_overlay(explanation: Explanation, label: int, top: int) -> np.ndarray:
    """The image beside itself with its strongest superpixels for one class.

    Green speaks for the class and purple against it, the stronger the more opaque; their outlines
    are yellow.

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


def png_uri(pixels: np.ndarray) -> str:
    """A picture uint8 (height, width, 3) as a data address, for a page that stands alone."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def recorded(
    path: Path,
    made_from: dict[str, Any],
    class_names: list[str],
    top: int,
    explain: Callable[[], tuple[Explanation, dict[str, Any]]],
) -> dict[str, Any]:
    """The record of an explanation, made unless it is there already, made from the same.

    Args:
        path: of the picture, ``.png``; the record lies beside it as ``.json``.
        made_from: all that the explanation depends on.
        class_names: in the order of the probabilities.
        top: superpixels that the picture shows, of the predicted class.
        explain: gives the explanation, and what else is to be noted of it.

    Returns:
        What is in the JSON file: ``made_from``, what ``explain`` noted, the explanation's
        attributes by class name, and ``segments``.
    """
    if (found := read_recorded(path, made_from)) is not None:
        return found
    explanation, notes = explain()
    with written_aside(path) as temporary:
        Image.fromarray(draw_overlay(explanation, explanation.predicted, top)).save(temporary)

    def by_class(values: np.ndarray) -> dict[str, Any]:
        pairs = zip(class_names, values.astype(float).tolist(), strict=True)
        return dict(pairs) if values.size else {}

    record = {
        "made_from": made_from,
        **notes,
        "explainer": explanation.explainer,
        "picture": path.name,
        "predicted_class": class_names[explanation.predicted],
        "probabilities": by_class(explanation.probabilities),
        "num_samples": explanation.num_samples,
        "seed": explanation.seed,
        "duration_s": round(explanation.duration_s, 3),
        "warnings": explanation.warnings,
        "stability": explanation.stability,
        "r2": by_class(explanation.scores),
        "intercept": by_class(explanation.intercepts),
        "weights": by_class(explanation.superpixel_weights.T),
        "half_widths": by_class(explanation.half_widths.T),
        "segments": explanation.segments.tolist(),
    }
    write_json(path.with_suffix(".json"), record)
    return record


def read_recorded(path: Path, made_from: dict[str, Any]) -> dict[str, Any] | None:
    """The record of an explanation that is there already, made from the same; else None."""
    record_path = path.with_suffix(".json")
    if not (record_path.exists() and path.exists()):
        return None
    try:
        found = read_json(record_path, "kerasmed explain")
    except StageError:
        return None
    return found if isinstance(found, dict) and found.get("made_from") == made_from else None
