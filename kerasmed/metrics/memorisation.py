"""Whether generated images are closer to the images learned from than to others like them."""

from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from kerasmed.metrics.sample_size import MINIMUM, require_enough
from kerasmed.metrics.statistics import mann_whitney
from kerasmed.random_streams import Purpose, derived_seed, random_stream

# Of one held-out image a group, for the data-copying statistic.
_CHOICES = 20


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
    to_seen, to_held_out = _distances_to_either(seen, held_out, generated, seed)
    return float((to_seen < to_held_out).mean())


def memorisation(
    seen: np.ndarray,
    held_out: np.ndarray,
    generated: np.ndarray,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """Distances of generated images to the training images against distances to held-out ones.

    If nothing was memorised, a generated image's nearest training image is no closer than its
    nearest among as many held-out images, and the share of generated images that lie closer to
    training is about one half.

    Args:
        seen: the images that the diffusion model learned from, float (n, d): pixels or features.
        held_out: other real images, float (m, versions, d), the first version as it is.
        generated: float (k, versions, d), the first version as it is.
        seed: of the choice of as many held-out images as there are seen ones, and for ``c_t``.
        groups: (m,), see ``data_copying``.

    Returns:
        ``share_closer_to_training``, median distances, ``c_t`` (see ``data_copying``) and
        ``authenticity`` of the generated images and, as a scale, of the held-out ones.

    Raises:
        InputError: fewer than 20 images in one of the sets.
    """
    counts = {
        "seen images": len(seen),
        "held out images": len(held_out),
        "generated images": len(generated),
    }
    require_enough("Privacy", counts)
    to_some_seen, to_held_out = _distances_to_either(seen, held_out[:, 0], generated, seed)
    to_seen, closest = nearest_of_versions(generated, seen)
    natural, closest_natural = nearest_of_versions(held_out, seen)
    # A generated image that lies farther from its nearest training image than this one does from
    # any other is authentic (Alaa et al., arXiv:2102.08921, section 3.3).
    apart = NearestNeighbors(n_neighbors=1).fit(seen.astype(np.float64)).kneighbors()[0][:, 0]
    return {
        "n_generated": len(generated),
        "n_compared": min(len(seen), len(held_out)),
        "share_closer_to_training": float((to_some_seen < to_held_out).mean()),
        "median_distance_to_training": float(np.median(to_some_seen)),
        "median_distance_to_held_out": float(np.median(to_held_out)),
        "c_t": data_copying(
            seen, (held_out[:, 0], natural), (generated[:, 0], to_seen), seed, groups
        ),
        "authenticity": {
            "generated": float((to_seen > apart[closest]).mean()),
            "held_out": float((natural > apart[closest_natural]).mean()),
        },
    }


def data_copying(
    seen: np.ndarray,
    held_out: tuple[np.ndarray, np.ndarray],
    generated: tuple[np.ndarray, np.ndarray],
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> float:
    """The data-copying statistic C_T (Meehan et al., arXiv:2004.05675, section 3) as a z score.

    In each of up to ten cells (k-means of the training images), the Mann-Whitney z score of the
    generated images' distances to their nearest training image against those of held-out images;
    the sum over the cells, weighted by their shares of held-out images, over what it deviates by
    chance. (The paper takes the mean, which with ten cells of equal weight is 0.32 times this.)
    Below -3 the generated images lie closer to training than chance allows, above 3 farther.

    Images of one group lie about as close to training as one another, and chance is that of the
    groups: of each held-out group one image is taken, at random, and the score is the mean over
    such choices.

    Args:
        seen: the training images, float (n, d).
        held_out: these images, float (m, d), and their distances to the nearest training image.
        generated: as ``held_out``.
        seed: of the cells and the choices.
        groups: (m,), equal for held-out images of one group; each image for itself if None.
    """
    count = max(1, min(10, len(seen) // MINIMUM))
    kmeans_seed = derived_seed(seed, Purpose.COPYING_CELLS)
    cells = KMeans(count, n_init=1, random_state=kmeans_seed).fit(seen.astype(np.float64))
    in_cell = [cells.predict(images.astype(np.float64)) for images, _ in (held_out, generated)]
    groups = np.arange(len(held_out[1])) if groups is None else groups
    rng = random_stream(seed, Purpose.COPYING_CHOICE)

    def score(chosen: np.ndarray) -> float:
        scores, weights = [], []
        for cell in range(count):
            natural = held_out[1][chosen[in_cell[0][chosen] == cell]]
            drawn = generated[1][in_cell[1] == cell]
            if len(natural) and len(drawn):
                n, m = len(drawn), len(natural)
                deviation = np.sqrt(n * m * (n + m + 1) / 12)
                scores.append((mann_whitney(drawn, natural) - n * m / 2) / deviation)
                weights.append(len(natural))
        return float(np.dot(scores, weights) / np.linalg.norm(weights)) if scores else 0.0

    def one_a_group() -> np.ndarray:
        order = rng.permutation(len(groups))
        return order[np.unique(groups[order], return_index=True)[1]]

    choices = _CHOICES if len(np.unique(groups)) < len(groups) else 1
    return float(np.mean([score(one_a_group()) for _ in range(choices)]))


def _distances_to_either(
    seen: np.ndarray, held_out: np.ndarray, generated: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of generated images to the nearest of as many seen and held-out ones."""
    size, rng = min(len(seen), len(held_out)), random_stream(seed, Purpose.CLOSER_CHOICE)
    some_seen = seen[rng.choice(len(seen), size, replace=False)]
    some_held_out = held_out[rng.choice(len(held_out), size, replace=False)]
    to_seen, _ = nearest_of_versions(generated, some_seen)
    to_held_out, _ = nearest_of_versions(generated, some_held_out)
    return to_seen, to_held_out
