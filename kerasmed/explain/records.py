"""Explanations on disk: each is a picture and a JSON record."""

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
from kerasmed.fingerprint import Fingerprint

_EDGE = 256
# Green and purple, which colour-blind readers tell apart.
_FOR, _AGAINST = np.array([0.1, 0.65, 0.25]), np.array([0.6, 0.15, 0.65])


def draw_overlay(explanation: Explanation, label: int, top: int) -> np.ndarray:
    """The image, and next to it the image with its strongest superpixels for one class.

    Green speaks for the class and purple against it, the stronger the more opaque. Their outlines
    are yellow.

    Args:
        explanation: an explanation of the image.
        label: the class.
        top: how many superpixels to show, by absolute weight.

    Returns:
        uint8 (height, width, 3), about 256 by 512 pixels.
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
    """A picture uint8 (height, width, 3) as a data URI, for a page that needs no other file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def record_explanation(
    path: Path,
    made_from: Fingerprint,
    class_names: list[str],
    top: int,
    explain: Callable[[], tuple[Explanation, dict[str, Any]]],
) -> dict[str, Any]:
    """The record of an explanation, computed and written unless it exists already.

    Args:
        path: path of the picture, ``.png``; the record is next to it, as ``.json``.
        made_from: everything that the explanation depends on. A record that has the same is reused.
        class_names: names of the classes, in the order of the probabilities.
        top: how many superpixels of the predicted class the picture shows.
        explain: returns the explanation, and further entries of its record.

    Returns:
        The content of the JSON file: ``fingerprint``, the further entries, the explanation's
        attributes by class name, and ``segments``.
    """
    if (existing := read_record(path, made_from)) is not None:
        return existing
    explanation, notes = explain()
    with written_aside(path) as temporary:
        Image.fromarray(draw_overlay(explanation, explanation.predicted, top)).save(temporary)

    def by_class(values: np.ndarray) -> dict[str, Any]:
        pairs = zip(class_names, values.astype(float).tolist(), strict=True)
        return dict(pairs) if values.size else {}

    record = {
        "fingerprint": made_from.as_record(),
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


def read_record(path: Path, made_from: Fingerprint) -> dict[str, Any] | None:
    """The existing record of an explanation made from the same, or None."""
    record_path = path.with_suffix(".json")
    if not (record_path.exists() and path.exists()):
        return None
    try:
        record = read_json(record_path, "kerasmed explain")
    except StageError:
        return None
    is_current = isinstance(record, dict) and made_from.matches(record.get("fingerprint"))
    return record if is_current else None
