"""The explanations of many images, summarised for each network."""

from collections.abc import Mapping
from itertools import combinations
from typing import Annotated, Any, NotRequired

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from kerasmed.explain.surrogate import rank_correlation
from kerasmed.result_types import NotNegative, Probability, Signed, Whole
from kerasmed.settings import Count, UnitInterval

# Edge of the mean maps; smaller images keep their own.
MAP_EDGE = 32

# Title, key and format of each figure of a network.
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


class NetworkFigures(TypedDict):
    """Figures of one CNN: means over its explained images."""

    images: Count
    """Number of explained images."""
    with_warnings: Whole
    """Number of them with a warning."""
    num_samples: NotRequired[NotNegative]
    """Number of perturbed images."""
    duration_s: NotRequired[NotNegative]
    """Seconds per explanation."""
    r2: NotRequired[float]
    """R² of LIME's surrogate for the predicted class."""
    top_overlap: NotRequired[UnitInterval]
    """Stability of the strongest superpixels: their Jaccard index over other masks."""
    rank_correlation: NotRequired[Signed]
    """Stability of all weights: their rank correlation over other masks."""
    deletion: NotRequired[Probability]
    """Area under the deletion curve."""
    insertion: NotRequired[Probability]
    """Area under the insertion curve."""
    random_deletion: NotRequired[Probability]
    """Area under the deletion curve in random orders."""
    random_insertion: NotRequired[Probability]
    """Area under the insertion curve in random orders."""
    pointing_game: NotRequired[UnitInterval]
    """Fraction of phantoms whose strongest superpixel lies in the region that decides."""
    intersection_over_union: NotRequired[UnitInterval]
    """Intersection over union with the region that decides, for phantoms."""
    randomised: NotRequired[Signed]
    """Rank correlation with the weights after the network's are shuffled."""
    mean_maps: dict[str, list[list[Signed]]]
    """For each true class, the mean map of the weights for it, by row."""


class Agreement(TypedDict):
    """How far two CNNs look at the same superpixels."""

    networks: Annotated[list[str], Field(min_length=2, max_length=2)]
    """Names of both."""
    rank_correlation: Signed
    """Mean rank correlation of their weights for the true class."""
    standard_error: NotNegative | None
    """Its standard error; null for a single image."""
    images: Count
    """Number of images."""


class Summary(TypedDict):
    """The explanations of one method, summarised."""

    networks: dict[str, NetworkFigures]
    """Figures of each CNN."""
    agreement: list[Agreement]
    """Each two of them."""


def summarise(records: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Figures of each network, its mean map for each class, and how far two networks agree.

    Args:
        records: the records of each network, see ``record_explanation``, each with ``true_class``.
            They must be of the same images in the same order, with the same superpixels.

    Returns:
        ``networks``: name to figures, means over images, and ``mean_maps``. These are, for each
        true class, (edge, edge) numbers of -1 to 1: the weights for that class, each image's
        divided by its largest. ``agreement``: for each two networks, the mean rank correlation of
        their weights for the true class on the same image, and its standard error.
    """
    return {
        "networks": {name: _summarise_network(records[name]) for name in records},
        "agreement": [
            {"networks": [first, second], **_agreement(records[first], records[second])}
            for first, second in combinations(records, 2)
        ],
    }


def _agreement(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlation of two networks' weights for the true classes of the same images."""
    correlations = np.array(
        [
            rank_correlation(_true_weights(a), _true_weights(b))
            for a, b in zip(first, second, strict=True)
        ]
    )
    count = len(correlations)
    return {
        "rank_correlation": float(correlations.mean()),
        "standard_error": float(correlations.std(ddof=1) / count**0.5) if count > 1 else None,
        "images": count,
    }


def _summarise_network(records: list[dict[str, Any]]) -> dict[str, Any]:
    classes = sorted({record["true_class"] for record in records})
    r2 = [record["r2"][record["predicted_class"]] for record in records if record["r2"]]
    figures: dict[str, Any] = {
        "images": len(records),
        "with_warnings": sum(bool(record["warnings"]) for record in records),
        **_mean_of("num_samples", [record["num_samples"] for record in records]),
        **_mean_of("duration_s", [record["duration_s"] for record in records]),
        **_mean_of("r2", r2),
    }
    for key in ("top_overlap", "rank_correlation"):
        figures |= _mean_of(key, [r["stability"][key] for r in records if r["stability"]])
    for key in ("deletion", "insertion", "random_deletion", "random_insertion"):
        figures |= _mean_of(key, [r["faithfulness"][key] for r in records if "faithfulness" in r])
    for key in ("pointing_game", "intersection_over_union"):
        figures |= _mean_of(key, [float(r["region"][key]) for r in records if "region" in r])
    figures |= _mean_of("randomised", [r["randomised"] for r in records if "randomised" in r])
    figures["mean_maps"] = {
        name: np.mean([_map(r) for r in records if r["true_class"] == name], axis=0)
        .round(3)
        .tolist()
        for name in classes
    }
    return figures


def _mean_of(name: str, values: list[float]) -> dict[str, float]:
    """A figure under its name; empty if there are no values."""
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


def figure_texts(figures: dict[str, Any]) -> list[str]:
    """The figures of one network as text, in the order of FIGURES; empty where one is missing."""
    return [form.format(figures[key]) if key in figures else "" for _, key, form in FIGURES]
