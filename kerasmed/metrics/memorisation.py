"""Whether synthetic images are closer to the training images than to other real images."""

import numpy as np
from scipy.stats import mannwhitneyu
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin
from sklearn.neighbors import NearestNeighbors
from typing_extensions import TypedDict

from kerasmed.metrics.sample_size import MINIMUM, require_images
from kerasmed.random_streams import Purpose, derived_seed, random_stream
from kerasmed.result_types import NotNegative
from kerasmed.settings import Count, UnitInterval

# Random choices of one reserve image a group that the data-copying statistic averages over.
_CHOICES = 20


def comparison_pixels(images: np.ndarray, edge: int = 32) -> np.ndarray:
    """Images as vectors for comparison: averaged down to at most 32 by 32, 0 to 1.

    Args:
        images: uint8 (..., height, width, 3).
        edge: Greatest height and width of the averaged images.

    Returns:
        float32 (..., d).
    """
    factor = -(-images.shape[-2] // edge)
    size = images.shape[-2] // factor
    cut = images[..., : size * factor, : size * factor, :]
    blocks = cut.reshape(*images.shape[:-3], size, factor, size, factor, 3)
    small = blocks.mean(axis=(-4, -2), dtype=np.float32) / 255
    return small.reshape(*images.shape[:-3], -1)


def nearest(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distance and position of the nearest reference of each query.

    Args:
        queries: float (n, d).
        references: float (m, d).

    Returns:
        float64 (n,) and int64 (n,).
    """
    positions = pairwise_distances_argmin(queries, references)
    # The distances that scikit-learn finds it by lose digits for near copies.
    distances = np.linalg.norm(queries.astype(np.float64) - references[positions], axis=1)
    return distances, positions


def nearest_of_versions(
    queries: np.ndarray, references: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As ``nearest``, for queries in several versions, of which the closest one counts.

    Args:
        queries: float (n, versions, d), such as an image with its flips and turns.
        references: float (m, d).
    """
    of_versions = [nearest(queries[:, version], references) for version in range(queries.shape[1])]
    distances = np.stack([distances for distances, _ in of_versions])
    positions = np.stack([positions for _, positions in of_versions])
    closest_version, columns = distances.argmin(axis=0), np.arange(len(queries))
    return distances[closest_version, columns], positions[closest_version, columns]


def fraction_closer_to_train(
    train: np.ndarray, reserve: np.ndarray, synthetic: np.ndarray, seed: int = 0
) -> float:
    """Fraction of synthetic images that are closer to a training image than to a reserve image.

    Equally many of either are compared; about one half where nothing was memorised.

    Args:
        train: Training images of the diffusion model, float (n, d).
        reserve: Other real images, float (m, d).
        synthetic: float (k, versions, d).
        seed: Seed of the choice of equally many images of either.
    """
    to_train, to_reserve = _distances_to_either(train, reserve, synthetic, seed)
    return float((to_train < to_reserve).mean())


class Authenticity(TypedDict):
    """Fraction of images farther from a training image than that one is from the others."""

    synthetic: UnitInterval
    """Of the synthetic images."""
    reserve: UnitInterval
    """Of the reserve images, for comparison."""


class Memorisation(TypedDict):
    """Distances of synthetic images to training images, next to those to reserve images."""

    n_synthetic: Count
    """Number of synthetic images."""
    n_compared: Count
    """Number of training images, and of reserve images, for the next three figures."""
    fraction_closer_to_train: UnitInterval
    """Fraction of synthetic images closer to a training image; one half without memorisation."""
    median_distance_to_train: NotNegative
    """Median distance to the nearest training image."""
    median_distance_to_reserve: NotNegative
    """Median distance to the nearest reserve image."""
    c_t: float
    """The statistic C_T, a z score (arXiv:2004.05675): below -3 the images crowd around the
    training images."""
    authenticity: Authenticity
    """Authenticity (arXiv:2102.08921)."""


def memorisation(
    train_versions: np.ndarray,
    reserve: np.ndarray,
    synthetic: np.ndarray,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> Memorisation:
    """Distances of synthetic images to training images, compared with those to reserve images.

    If nothing was memorised, the nearest training image is no closer than the nearest of as many
    reserve images. About one half of the synthetic images are then closer to training images.

    Args:
        train_versions: Training images of the diffusion model, float (n, versions, d): pixels or
            features, the first version unchanged.
        reserve: Other real images, float (m, versions, d).
        synthetic: float (k, versions, d).
        seed: Seed of the choice of equally many training and reserve images, and of ``c_t``.
        groups: (m,), see ``data_copying``.

    Raises:
        InputError: One of the sets has fewer than 20 images.
    """
    train = train_versions[:, 0]
    counts = {
        "training images": len(train),
        "reserve images": len(reserve),
        "synthetic images": len(synthetic),
    }
    require_images("Privacy", counts)
    to_chosen_train, to_reserve = _distances_to_either(train, reserve[:, 0], synthetic, seed)
    to_train, closest = nearest_of_versions(synthetic, train)
    reserve_to_train, closest_to_reserve = nearest_of_versions(reserve, train)
    # An image is authentic if it is farther from its nearest training image than that training
    # image is from any other (Alaa et al., arXiv:2102.08921, section 3.3).
    within_train = _distances_within(train_versions)
    return {
        "n_synthetic": len(synthetic),
        "n_compared": min(len(train), len(reserve)),
        "fraction_closer_to_train": float((to_chosen_train < to_reserve).mean()),
        "median_distance_to_train": float(np.median(to_chosen_train)),
        "median_distance_to_reserve": float(np.median(to_reserve)),
        "c_t": data_copying(
            train, (reserve[:, 0], reserve_to_train), (synthetic[:, 0], to_train), seed, groups
        ),
        "authenticity": {
            "synthetic": float((to_train > within_train[closest]).mean()),
            "reserve": float((reserve_to_train > within_train[closest_to_reserve]).mean()),
        },
    }


def data_copying(
    train: np.ndarray,
    reserve: tuple[np.ndarray, np.ndarray],
    synthetic: tuple[np.ndarray, np.ndarray],
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> float:
    """The data-copying statistic C_T (Meehan et al., arXiv:2004.05675, section 3) as a z score.

    The training images are divided into up to ten clusters (k-means). Each cluster has a
    Mann-Whitney z score: the distances of synthetic images to their nearest training image against
    those of reserve images. The statistic is the sum of these scores, weighted by the clusters'
    fractions of reserve images, over its standard deviation by chance. (The paper takes the mean,
    which with ten clusters of equal weight is 0.32 times this.) Below -3 the synthetic images are
    closer to training images than chance allows, above 3 farther.

    Images of one group are about equally close to training images, so groups are the independent
    observations. Each choice takes one random image of each reserve group, and the score is the
    mean over the choices.

    Args:
        train: The training images, float (n, d).
        reserve: Reserve images, float (m, d), and their distances to the nearest training image.
        synthetic: As ``reserve``.
        seed: Seed of the clusters and the choices.
        groups: (m,), equal for reserve images of one group. If None, each image is a group.
    """
    num_clusters = max(1, min(10, len(train) // MINIMUM))
    kmeans_seed = derived_seed(seed, Purpose.COPYING_CLUSTERS)
    kmeans = KMeans(num_clusters, n_init=1, random_state=kmeans_seed).fit(train.astype(np.float64))
    reserve_clusters, synthetic_clusters = (
        kmeans.predict(images.astype(np.float64)) for images, _ in (reserve, synthetic)
    )
    groups = np.arange(len(reserve[1])) if groups is None else groups
    rng = random_stream(seed, Purpose.COPYING_CHOICE)

    def score(chosen: np.ndarray) -> float:
        scores, weights = [], []
        for cluster in range(num_clusters):
            of_reserve = reserve[1][chosen[reserve_clusters[chosen] == cluster]]
            of_synthetic = synthetic[1][synthetic_clusters == cluster]
            if len(of_reserve) and len(of_synthetic):
                n, m = len(of_synthetic), len(of_reserve)
                deviation = np.sqrt(n * m * (n + m + 1) / 12)
                pairs = mannwhitneyu(of_synthetic, of_reserve, method="asymptotic").statistic
                scores.append((pairs - n * m / 2) / deviation)
                weights.append(len(of_reserve))
        return float(np.dot(scores, weights) / np.linalg.norm(weights)) if scores else 0.0

    def one_per_group() -> np.ndarray:
        order = rng.permutation(len(groups))
        return order[np.unique(groups[order], return_index=True)[1]]

    choices = _CHOICES if len(np.unique(groups)) < len(groups) else 1
    return float(np.mean([score(one_per_group()) for _ in range(choices)]))


def _distances_within(images: np.ndarray) -> np.ndarray:
    """Distance of any version of each image (n, versions, d) to the nearest other image: (n,)."""
    neighbours = NearestNeighbors(n_neighbors=2).fit(images[:, 0].astype(np.float64))
    least = np.full(len(images), np.inf)
    for version in range(images.shape[1]):
        distances, positions = neighbours.kneighbors(images[:, version].astype(np.float64))
        is_other = positions != np.arange(len(images))[:, None]
        least = np.minimum(least, np.where(is_other, distances, np.inf).min(axis=1))
    return least


def _distances_to_either(
    train: np.ndarray, reserve: np.ndarray, synthetic: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of synthetic images to the nearest of equally many train and reserve images."""
    size, rng = min(len(train), len(reserve)), random_stream(seed, Purpose.CLOSER_CHOICE)
    chosen_train = train[rng.choice(len(train), size, replace=False)]
    chosen_reserve = reserve[rng.choice(len(reserve), size, replace=False)]
    to_train, _ = nearest_of_versions(synthetic, chosen_train)
    to_reserve, _ = nearest_of_versions(synthetic, chosen_reserve)
    return to_train, to_reserve
