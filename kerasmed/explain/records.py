"""Explanations on disk: each is a picture and a JSON record."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NotRequired

import numpy as np
from typing_extensions import TypedDict

from kerasmed.errors import StageError
from kerasmed.explain.checks import Faithfulness, RegionAgreement
from kerasmed.explain.explanation import Explanation
from kerasmed.files import read_json, write_json, written_aside
from kerasmed.fingerprint import Fingerprint, FingerprintRecord
from kerasmed.result_types import NotNegative, Probability, Signed, Whole
from kerasmed.settings import UnitInterval


class Stability(TypedDict, total=False):
    """How alike explanations from other masks would be; empty where that is not known."""

    top: Whole
    """How many superpixels were compared."""
    top_overlap: UnitInterval
    """Mean Jaccard index of the sets of the strongest superpixels."""
    rank_correlation: Signed
    """Mean rank correlation of all weights."""


class ExplanationRecord(TypedDict):
    """One explanation of one image by one CNN."""

    fingerprint: FingerprintRecord
    """What the explanation was made from."""
    image: str
    """Name of the image's file."""
    position: NotRequired[Whole]
    """Position of the image among all images of the study (only in a run folder)."""
    true_class: NotRequired[str]
    """Its class (only in a run folder)."""
    model: NotRequired[str]
    """Name of the CNN's file (only from ``kerasmed explain MODEL.onnx``)."""
    faithfulness: NotRequired[Faithfulness]
    """Deletion and insertion, for the predicted class (``explain.checks``)."""
    region: NotRequired[RegionAgreement]
    """Agreement with the region that decides, for phantoms (``explain.checks``)."""
    randomised: NotRequired[Signed]
    """Rank correlation with LIME's weights after the network's are shuffled: high is bad."""
    explainer: Literal["lime", "kernel_shap", "occlusion", "cam"]
    """The method."""
    picture: str
    """Name of the overlay's file, in the same folder."""
    predicted_class: str
    """The most probable class."""
    probabilities: dict[str, Probability]
    """Probability of each class."""
    num_samples: Whole
    """Number of perturbed images that were predicted."""
    seed: int | None
    """Seed of the masks; null where nothing is drawn."""
    duration_s: NotNegative
    """Seconds that the explanation took."""
    warnings: list[str]
    """Reasons not to rely on the weights."""
    stability: Stability
    """Agreement with explanations from other masks, for the predicted class."""
    r2: dict[str, float]
    """Weighted R² of LIME's surrogate for each class; empty for other methods."""
    intercept: dict[str, float]
    """For each class, what the weights are added to."""
    weights: dict[str, list[float]]
    """For each class, the weight of each superpixel; positive speaks for the class."""
    half_widths: dict[str, list[NotNegative]]
    """Half of the 95% interval of each weight over other masks; empty where it is not known."""
    segments: list[list[Whole]]
    """Number of the superpixel of each pixel, by row."""


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
        explanation.overlay(top=top).save(temporary)

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
