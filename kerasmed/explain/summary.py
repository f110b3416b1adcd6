"""What the explanations of many images say together."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from kerasmed.explain.surrogate import rank_correlation

# Edge of the mean maps, if the images are not smaller.
MAP_EDGE = 32

# Title, key and format of a network's figures.
FIGURES = (
    ("samples", "num_samples", "{:.0f}"),
    ("s", "duration_s", "{:.2f}"),
    ("R²", "r2", "{:.2f}"),
    ("stability", "top_overlap", "{:.2f}"),
    ("deletion", "deletion", "{:.2f}"),
    ("at random", "random_deletion", "{:.2f}"),
    ("insertion", "insertion", "{:.2f}"),
    ("at random", "random_insertion", "{:.2f}"),
    ("shuffled", "randomised", "{:.2f}"),
    ("pointing", "pointing_game", "{:.2f}"),
    ("IoU", "intersection_over_union", "{:.2f}"),
)


def summarise(records: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Figures of each network, its mean map for each class, and how far two networks agree.

    Args:
        records: for each network its records, see ``recorded``, of the same images in the same
            order, with the same superpixels; each noted with ``true_class``.

    Returns:
        ``networks``: name to figures, means over images, and ``mean_maps``, true class to
        (edge, edge) numbers of -1 to 1: the weights for that class, each image's divided by
        its largest. ``agreement``: for each two networks the mean rank correlation of their weights
        for the true class on the same image, and its standard error.
    """
    agreement = []
    for one, other in combinations(records, 2):
        found = np.array(
            [
                rank_correlation(_true_weights(a), _true_weights(b))
                for a, b in zip(records[one], records[other], strict=True)
            ]
        )
        agreement.append(
            {
                "networks": [one, other],
                "rank_correlation": float(found.mean()),
                "standard_error": float(found.std(ddof=1) / len(found) ** 0.5)
                if len(found) > 1
                else None,
                "images": len(found),
            }
        )
    return {
        "networks": {name: _of_network(each) for name, each in records.items()},
        "agreement": agreement,
    }


def _of_network(records: list[dict[str, Any]]) -> dict[str, Any]:
    classes = sorted({each["true_class"] for each in records})
    found: dict[str, Any] = {
        "images": len(records),
        "with_warnings": sum(bool(each["warnings"]) for each in records),
        **_mean_of("num_samples", [each["num_samples"] for each in records]),
        **_mean_of("duration_s", [each["duration_s"] for each in records]),
        **_mean_of("r2", [each["r2"][each["predicted_class"]] for each in records if each["r2"]]),
    }
    for key in ("top_overlap", "rank_correlation"):
        found |= _mean_of(key, [r["stability"][key] for r in records if r["stability"]])
    for key in ("deletion", "insertion", "random_deletion", "random_insertion"):
        found |= _mean_of(key, [r["faithfulness"][key] for r in records if "faithfulness" in r])
    for key in ("pointing_game", "intersection_over_union"):
        found |= _mean_of(key, [float(r["region"][key]) for r in records if "region" in r])
    found |= _mean_of("randomised", [r["randomised"] for r in records if "randomised" in r])
    found["mean_maps"] = {
        name: np.mean([_map(r) for r in records if r["true_class"] == name], axis=0)
        .round(3)
        .tolist()
        for name in classes
    }
    return found


def _mean_of(name: str, values: list[float]) -> dict[str, float]:
    """One figure; none where nothing was measured."""
    return {name: float(np.mean(values))} if values else {}


def _true_weights(record: dict[str, Any]) -> np.ndarray:
    return np.array(record["weights"][record["true_class"]])


def _map(record: dict[str, Any]) -> np.ndarray:
    """Weights for the true class over the image, means of blocks: float64 (edge, edge)."""
    weights = _true_weights(record)
    values = (weights / max(np.abs(weights).max(), 1e-12))[np.array(record["segments"])]
    edge = min(MAP_EDGE, *values.shape)
    rows, columns = (np.arange(length) * edge // length for length in values.shape)
    blocks = (rows[:, None] * edge + columns).ravel()
    return (np.bincount(blocks, values.ravel()) / np.bincount(blocks)).reshape(edge, edge)


def figure_texts(found: dict[str, Any]) -> list[str]:
    """The figures of one network as text, in the order of FIGURES."""
    return [form.format(found[key]) if key in found else "" for _, key, form in FIGURES]
