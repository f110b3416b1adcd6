"""How close a generated set is to the real one, in the features of a classifier."""

from typing import Any

import numpy as np

from kerasmed.errors import InputError

MINIMUM = 20


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy: the Kernel Inception Distance's estimator.

    Kernel (x.y / d + 1)^3 (Binkowski et al., arXiv:1801.01401, section 4). Unbiased, so it
    may be negative when both sets come from one distribution.

    Args:
        first: float (n, d).
        second: float (m, d).
    """
    n, m, d = len(first), len(second), first.shape[1]
    first, second = first.astype(np.float64), second.astype(np.float64)
    within_first = (first @ first.T / d + 1) ** 3
    within_second = (second @ second.T / d + 1) ** 3
    between = (first @ second.T / d + 1) ** 3
    return float(
        (within_first.sum() - np.trace(within_first)) / (n * (n - 1))
        + (within_second.sum() - np.trace(within_second)) / (m * (m - 1))
        - 2 * between.mean()
    )


def fidelity(
    held_out_features: np.ndarray,
    seen_features: np.ndarray,
    generated_features: np.ndarray,
    subsets: int = 50,
    seed: int = 0,
) -> dict[str, Any]:
    """Kernel distance of the generated set to held-out real images, beside that of real to real.

    Each value is the mean over random subsets of one size, the interval the 2.5 and 97.5
    percentiles over them; features are divided by their overall standard deviation on the
    held-out images, so that networks of different scales can be compared.

    Args:
        held_out_features: of real images that the diffusion model did not see, (n, d).
        seen_features: of the real images that it learned from, (m, d); the reference.
        generated_features: of the generated images, (k, d).
        subsets: how many.
        seed: of the subsets.

    Raises:
        InputError: fewer than 20 images in one of the sets.
    """
    sets = {"held out": held_out_features, "seen": seen_features, "generated": generated_features}
    for name, features in sets.items():
        if len(features) < MINIMUM:
            raise InputError(
                f"Fidelity: expected at least {MINIMUM} {name} images, received {len(features)}; "
                "add images or draw more."
            )
    size = min(100, *(len(features) for features in sets.values()))
    scale = max(float(held_out_features.std()), 1e-12)
    rng = np.random.default_rng(seed)

    def distances(features: np.ndarray) -> dict[str, Any]:
        values = [
            kernel_distance(
                rng.choice(held_out_features, size, replace=False) / scale,
                rng.choice(features, size, replace=False) / scale,
            )
            for _ in range(subsets)
        ]
        low, high = np.percentile(values, [2.5, 97.5])
        return {"kid": float(np.mean(values)), "interval": [float(low), float(high)]}

    return {
        "subset_size": size,
        "subsets": subsets,
        "generated_to_held_out": distances(generated_features),
        "seen_to_held_out": distances(seen_features),
    }
