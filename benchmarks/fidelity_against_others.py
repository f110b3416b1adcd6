"""Our measures of fidelity against torch-fidelity and prdc, on the same feature arrays.

    python benchmarks/fidelity_against_others.py

Needs torch-fidelity and prdc beside NumPy and SciPy; not the rest of kerasmed's environment.
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

WIDTH = 64


def features(count: int, shift: float, seed: int) -> np.ndarray:
    """Correlated, skewed and positive, as pooled features are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
    return np.maximum(rng.normal(shift, 1, (count, WIDTH)) @ mixing, 0).astype(np.float32)


def theirs(real: np.ndarray, made: np.ndarray) -> dict[str, float]:
    statistics = [fid_features_to_statistics(torch.from_numpy(each)) for each in (real, made)]
    kernel = [
        (a.astype(np.float64) @ b.T / WIDTH + 1) ** 3
        for a, b in ((real, real), (real, made), (made, made))
    ]
    found = compute_prdc(real_features=real, fake_features=made, nearest_k=NEIGHBOURS)
    return {
        "frechet": fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"],
        "kernel": mmd2(*kernel),
        **{name: float(found[name]) for name in ("precision", "recall", "density", "coverage")},
    }


def ours(real: np.ndarray, made: np.ndarray) -> dict[str, float]:
    found = overlap(real, made)
    return {
        "frechet": frechet_distance(real, made),
        "kernel": kernel_distance(real, made),
        "precision": found.precision,
        "recall": found.recall,
        "density": found.density,
        "coverage": found.coverage,
    }


def main() -> None:
    names = ("torch-fidelity", "prdc", "torch", "numpy", "scipy")
    print(json.dumps({name: version(name) for name in names}))
    worst: dict[str, float] = {}
    for seed, shift in enumerate((0.0, 0.1, 0.5, 1.0)):
        real, made = features(400, 0.0, 10 + seed), features(400, shift, 20 + seed)
        one, other = ours(real, made), theirs(real, made)
        print(json.dumps({"shift": shift, "ours": one, "theirs": other}))
        for name, value in one.items():
            worst[name] = max(worst.get(name, 0.0), abs(value - other[name]))
    print(json.dumps({"largest difference": worst}))


if __name__ == "__main__":
    main()
