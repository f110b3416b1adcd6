"""Our measures of fidelity against torch-fidelity and prdc, on the same feature arrays.

    python benchmarks/fidelity_against_others.py

Needs torch-fidelity, prdc, NumPy and SciPy, but not the rest of kerasmed's environment.
"""

import json
from importlib.metadata import version

import numpy as np
import torch
from prdc import compute_prdc
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import mmd2

from kerasmed.metrics.frechet import frechet_distance
from kerasmed.metrics.kernel_distance import kernel_distance
from kerasmed.metrics.manifold import NEIGHBOURS, overlap
from kerasmed.metrics.sample import Sample

WIDTH = 64


def features(count: int, shift: float, seed: int) -> np.ndarray:
    """Correlated, skewed and positive, as pooled features are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
    return np.maximum(rng.normal(shift, 1, (count, WIDTH)) @ mixing, 0).astype(np.float32)


def theirs(real: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    statistics = [
        fid_features_to_statistics(torch.from_numpy(features)) for features in (real, synthetic)
    ]
    kernel = [
        (a.astype(np.float64) @ b.T / WIDTH + 1) ** 3
        for a, b in ((real, real), (real, synthetic), (synthetic, synthetic))
    ]
    manifold = compute_prdc(real_features=real, fake_features=synthetic, nearest_k=NEIGHBOURS)
    return {
        "frechet": fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"],
        "kernel": mmd2(*kernel),
        **{name: float(manifold[name]) for name in ("precision", "recall", "density", "coverage")},
    }


def ours(real: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    samples = Sample("real", real), Sample("synthetic", synthetic)
    manifold = overlap(*samples)
    return {
        "frechet": frechet_distance(real, synthetic),
        "kernel": kernel_distance(*samples).value,
        "precision": manifold.precision.value,
        "recall": manifold.recall,
        "density": manifold.density,
        "coverage": manifold.coverage.value,
    }


def main() -> None:
    names = ("torch-fidelity", "prdc", "torch", "numpy", "scipy")
    print(json.dumps({name: version(name) for name in names}))
    worst: dict[str, float] = {}
    for seed, shift in enumerate((0.0, 0.1, 0.5, 1.0)):
        real, synthetic = features(400, 0.0, 10 + seed), features(400, shift, 20 + seed)
        our_values, their_values = ours(real, synthetic), theirs(real, synthetic)
        print(json.dumps({"shift": shift, "ours": our_values, "theirs": their_values}))
        for name, value in our_values.items():
            worst[name] = max(worst.get(name, 0.0), abs(value - their_values[name]))
    print(json.dumps({"largest difference": worst}))


if __name__ == "__main__":
    main()
