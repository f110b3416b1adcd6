"""Explanations on disk: each is a picture and a JSON record."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed.errors import StageError
from kerasmed.explain.explanation import Explanation
from kerasmed.files import read_json, write_json, written_aside
from kerasmed.fingerprint import Fingerprint


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
