"""Which superpixels each perturbed image keeps, and what it shows in place of the others."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import isqrt
from numbers import Integral

import numpy as np
from scipy.special import gammaln

from kerasmed.errors import InputError
from kerasmed.random_streams import Purpose, random_stream

# As in `lime` 0.2.0.1: a sample weighs sqrt(exp(-d^2 / width^2)), where d is the cosine distance of
# its mask to the mask that keeps all.
KERNEL_WIDTH = 0.25


def draw_masks(num_segments: int, num_samples: int, seed: int, sampling: str) -> np.ndarray:
    """Masks of one image: which superpixels each sample keeps.

    Args:
        num_segments: number of superpixels of the image.
        num_samples: number of masks. A larger number begins with the masks of a smaller one.
        seed: seed of the masks.
        sampling: a key of SAMPLINGS.

    Returns:
        bool (num_samples, num_segments), True where kept; the first keeps all.

    Raises:
        InputError: there is no sampling of that name.
    """
    if sampling not in SAMPLINGS:
        raise InputError(
            f"Sampling: expected one of {', '.join(SAMPLINGS)}; received {sampling!r}."
        )
    masks = np.ones((num_samples, num_segments), dtype=bool)
    rng = random_stream(seed, Purpose.MASKS)
    filled, blocks = 1, SAMPLINGS[sampling](num_segments, rng)
    while filled < num_samples:
        block = next(blocks)[: num_samples - filled]
        masks[filled : filled + len(block)] = block
        filled += len(block)
    return masks


def _independent(num_segments: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Each superpixel is kept with probability one half, as in `lime`."""
    while True:
        yield rng.random((2, num_segments)) < 0.5


def _paired(num_segments: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """As "independent", each mask followed by its complement.

    The interaction of two superpixels is the same in both, so it no longer blurs the weights.
    """
    for block in _independent(num_segments, rng):
        yield np.concatenate([block[:1], ~block[:1]])


def _orthogonal(num_segments: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Pairs whose first masks are rows of a Hadamard matrix, in random order.

    Over a whole block every two superpixels are kept together in exactly a quarter of the masks, so
    no weight borrows from another. Columns are drawn and inverted at random, so each single mask is
    distributed as in "independent".
    """
    rows = _hadamard(num_segments)
    order = len(rows)
    while True:
        columns = rng.permutation(order)[:num_segments]
        inverted = rng.random(num_segments) < 0.5
        block = rows[rng.permutation(order)][:, columns] ^ inverted
        yield np.stack([block, ~block], axis=1).reshape(2 * order, num_segments)


@lru_cache(maxsize=4)
def _hadamard(least: int) -> np.ndarray:
    """A Hadamard matrix of at least this order, True for 1 (Paley, 1933, first construction).

    The order is q + 1, for the next prime q with remainder 3 when divided by 4. Sylvester's
    matrices are unsuitable: there the product of any three columns is a fourth. Over whole blocks
    the interaction of three superpixels would count as the weight of another one, and the
    residuals would not show it.
    """
    q = max(3, least - 1)
    while q % 4 != 3 or any(q % divisor == 0 for divisor in range(2, isqrt(q) + 1)):
        q += 1
    character = np.full(q, -1, np.int8)
    character[np.square(np.arange(q)) % q] = 1
    matrix = np.ones((q + 1, q + 1), np.int8)
    matrix[1:, 0] = -1
    matrix[1:, 1:] = character[np.subtract.outer(np.arange(q), np.arange(q)) % q]
    np.fill_diagonal(matrix, 1)
    return matrix > 0


def _glime(num_segments: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The kernel is in the distribution of the masks, not in sample weights (arXiv:2311.15722)."""
    kept = np.arange(num_segments + 1)
    log_choices = gammaln(num_segments + 1) - gammaln(kept + 1) - gammaln(num_segments - kept + 1)
    log_chance = log_choices + np.log(kernel_weights(kept / num_segments))
    chance = np.exp(log_chance - log_chance.max())
    chance /= chance.sum()
    while True:
        count = rng.choice(num_segments + 1, p=chance)
        yield (rng.permutation(num_segments) < count)[None]


def _shapley(num_segments: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Pairs whose sizes follow the Shapley kernel (arXiv:1705.07874), neither empty nor full."""
    sizes = np.arange(1, num_segments)
    chance = 1 / (sizes * (num_segments - sizes))
    chance /= chance.sum()
    while True:
        mask = rng.permutation(num_segments) < rng.choice(sizes, p=chance)
        yield np.stack([mask, ~mask])


SAMPLINGS: dict[str, Callable[[int, np.random.Generator], Iterator[np.ndarray]]] = {
    "orthogonal": _orthogonal,
    "paired": _paired,
    "independent": _independent,
    "glime": _glime,
    "shapley": _shapley,
}
# "shapley" is for KernelSHAP.
LIME_SAMPLINGS = tuple(name for name in SAMPLINGS if name != "shapley")
# Samplings in which the masks 1 and 2, 3 and 4, ... are complements.
PAIRED = ("orthogonal", "paired", "shapley")
# Samplings in which every mask has the same weight.
UNWEIGHTED = ("glime", "shapley")


def kernel_weights(kept: np.ndarray) -> np.ndarray:
    """Weight of each sample, float64, from the fraction of superpixels that it keeps."""
    return np.sqrt(np.exp(-((1 - np.sqrt(kept)) ** 2) / KERNEL_WIDTH**2))


def sample_weights(masks: np.ndarray, sampling: str) -> np.ndarray:
    """Weight of each mask (samples, segments) in the regression: float64 (samples,)."""
    if sampling in UNWEIGHTED:
        return np.ones(len(masks))
    return kernel_weights(masks.mean(axis=1))


def fill_of(image: np.ndarray, segments: np.ndarray, hide: str | int) -> np.ndarray:
    """What hidden superpixels show: uint8, of the image's shape.

    Args:
        image: uint8 (height, width, 3).
        segments: int (height, width), from 0 without a gap.
        hide: "mean" for the mean colour of each superpixel, or a grey level, 0 to 255.

    Raises:
        InputError: ``hide`` is neither.
    """
    if isinstance(hide, Integral) and 0 <= hide <= 255:
        return np.full_like(image, hide)
    if hide != "mean":
        raise InputError(f'Hide: expected "mean" or a grey level of 0 to 255, received {hide!r}.')
    flat, pixels = segments.ravel(), image.reshape(-1, 3)
    sizes = np.bincount(flat)
    means = np.stack([np.bincount(flat, pixels[:, c]) / sizes for c in range(3)], axis=1)
    return means[segments].astype(np.uint8)


def apply_masks(
    image: np.ndarray, fill: np.ndarray, segments: np.ndarray, masks: np.ndarray
) -> np.ndarray:
    """The image where a mask keeps, the fill elsewhere: uint8 (masks, height, width, 3)."""
    # Bit operations, since np.where takes eight times as long, and longer than the network.
    hidden = np.where(masks, np.uint8(0), np.uint8(255))
    shown = hidden.take(segments.repeat(3), axis=1)
    shown &= (image ^ fill).ravel()
    shown ^= image.ravel()
    return shown.reshape(len(masks), *image.shape)
