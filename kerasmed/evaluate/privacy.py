"""Whether generated images are closer to the images learned from than to others like them."""

from typing import Any

import numpy as np

from kerasmed.errors import InputError

MINIMUM = 20


def comparison_pixels(images: np.ndarray, edge: int = 32) -> np.ndarray:
    """Images as vectors for comparison: averaged down to at most 32 by 32, 0 to 1.

    Args:
        images: uint8 (..., height, width, 3).
        edge: greatest height and width of what is compared.

    Returns:
        float32 (..., d).
    """
    factor = -(-images.shape[-2] // edge)
    size = images.shape[-2] // factor
    cut = images[..., : size * factor, : size * factor, :]
    blocks = cut.reshape(*images.shape[:-3], size, factor, size, factor, 3)
    small = blocks.mean(axis=(-4, -2), dtype=np.float32) / 255
    return small.reshape(*images.shape[:-3], -1)


def nearest(
    queries: np.ndarray, references: np.ndarray, rows_at_once: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distance to, and position of, each query's nearest reference.

    Args:
        queries: float (n, d).
        references: float (m, d).
        rows_at_once: bounds the memory to rows_at_once * m distances.

    Returns:
        float64 (n,) and int64 (n,).
    """
    queries, references = queries.astype(np.float64), references.astype(np.float64)
    squares = np.square(references).sum(axis=1)
    distances, positions = [], []
    for start in range(0, len(queries), rows_at_once):
        part = queries[start : start + rows_at_once]
        table = np.square(part).sum(axis=1)[:, None] - 2 * part @ references.T + squares
        best = table.argmin(axis=1)
        positions.append(best)
        # Exact for the chosen pair: the expansion above loses digits for near copies.
        distances.append(np.linalg.norm(part - references[best], axis=1))
    return np.concatenate(distances), np.concatenate(positions)


def nearest_of_versions(
    queries: np.ndarray, references: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As ``nearest``, for queries that each come in several versions: the closest version counts.

    Args:
        queries: float (n, versions, d), such as an image with its flips and turns.
        references: float (m, d).
    """
    found = [nearest(queries[:, version], references) for version in range(queries.shape[1])]
    distances = np.stack([distance for distance, _ in found])
    positions = np.stack([position for _, position in found])
    best, each = distances.argmin(axis=0), np.arange(len(queries))
    return distances[best, each], positions[best, each]


def share_closer_to_training(
    seen: np.ndarray, held_out: np.ndarray, generated: np.ndarray, seed: int = 0
) -> float:
    """Share of generated images that lie closer to an image learned from than to a held-out one.

    As many of either are compared; about one half where nothing was memorised.

    Args:
        seen: the images that the diffusion model learned from, float (n, d).
        held_out: other real images, float (m, d).
        generated: float (k, versions, d).
        seed: of the choice among the more numerous of seen and held out.
    """
    size = min(len(seen), len(held_out))
    rng = np.random.default_rng(seed)
    to_seen, _ = nearest_of_versions(generated, seen[rng.choice(len(seen), size, replace=False)])
    others = held_out[rng.choice(len(held_out), size, replace=False)]
    to_held_out, _ = nearest_of_versions(generated, others)
    return float((to_seen < to_held_out).mean())


def memorisation(
    seen: np.ndarray, held_out: np.ndarray, generated: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """Distances of generated images to the training images against distances to held-out ones.

    If nothing was memorised, a generated image's nearest training image is no closer than its
    nearest among as many held-out images, and the share of generated images that lie closer to
    training is about one half. ``copies`` are generated images no farther from a training image
    than the 1st percentile of the held-out images' own distances to the training images.

    Args:
        seen: the images that the diffusion model learned from, float (n, d): pixels or features.
        held_out: other real images, float (m, versions, d), the first version as it is.
        generated: float (k, versions, d), the first version as it is.
        seed: of the choice of as many held-out images as there are seen ones.

    Returns:
        Share closer to training, median distances, the copy threshold, the copies as pairs of
        positions (generated, seen), and the eight nearest pairs of all.

    Raises:
        InputError: fewer than 20 images in one of the sets.
    """
    for name, images in (("seen", seen), ("held out", held_out), ("generated", generated)):
        if len(images) < MINIMUM:
            raise InputError(
                f"Privacy: expected at least {MINIMUM} {name} images, received {len(images)}; "
                "add images or draw more."
            )
    size = min(len(seen), len(held_out))
    rng = np.random.default_rng(seed)
    some_seen = seen[rng.choice(len(seen), size, replace=False)]
    some_held_out = held_out[rng.choice(len(held_out), size, replace=False), 0]
    to_some_seen, _ = nearest_of_versions(generated, some_seen)
    to_held_out, _ = nearest_of_versions(generated, some_held_out)
    to_seen, closest = nearest_of_versions(generated, seen)
    natural, _ = nearest_of_versions(held_out, seen)
    threshold = float(np.percentile(natural, 1))
    order = np.argsort(to_seen, kind="stable")
    copies = order[to_seen[order] <= threshold]
    return {
        "n_generated": len(generated),
        "n_compared": size,
        "share_closer_to_training": float((to_some_seen < to_held_out).mean()),
        "median_distance_to_training": float(np.median(to_some_seen)),
        "median_distance_to_held_out": float(np.median(to_held_out)),
        "copy_threshold": threshold,
        "copies": [[int(i), int(closest[i])] for i in copies],
        "nearest_pairs": [[int(i), int(closest[i])] for i in order[:8]],
    }
