"""Images that are equal, or nearly equal, in any of their flips and turns."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kerasmed.data.measurements import Measurements
from kerasmed.runtime.hardware import cpu_cores

# Hashes that one thread compares at once: a block of distances that fits the processor's cache.
_BLOCK = 512
# Hashes unpacked at once.
_CHUNK = 65536

Pairs = np.ndarray  # int64 (m, 2), the first index below the second


def equal_pairs(keys: np.ndarray) -> Pairs:
    """Each image paired with the first image that has the same key.

    Args:
        keys: (n,), of any sortable dtype.
    """
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    pairs = np.stack([first[inverse], np.arange(len(keys))], axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def linked_groups(pairs: Pairs, count: int) -> np.ndarray:
    """The group number of each of ``count`` images, where pairs link transitively."""
    ones = np.ones(len(pairs), dtype=bool)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def near_pairs(bits: np.ndarray, limit: int) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """All pairs whose perceptual hashes differ in at most ``limit`` bits, in any flip or turn.

    Every pair is compared, none is estimated. Memory is bounded by the pairs within the limit.

    Args:
        bits: uint8 (n, 32), packed hashes.
        limit: greatest number of differing bits.

    Returns:
        The pairs; their distances, uint16 (m,); and whether the nearest version is flipped or
        turned, bool (m,).
    """
    words, turned = _words(bits, turn=False), _words(bits, turn=True)

    def compare(start: int) -> list[tuple[Pairs, np.ndarray, np.ndarray]]:
        near_blocks = []
        first = words[start : start + _BLOCK]
        for second_start in range(start, len(bits), _BLOCK):
            block = slice(second_start, second_start + _BLOCK)
            second, second_turned = words[block], turned[block]
            least = np.minimum(
                _least_distances(first, second), _least_distances(first, second_turned)
            )
            rows, columns = np.nonzero(least <= limit)
            is_ordered = rows + start < columns + second_start
            rows, columns = rows[is_ordered], columns[is_ordered]
            if not len(rows):
                continue
            plain, flipped = _distances(first[rows], second[columns])
            altered = np.minimum(
                flipped, np.minimum(*_distances(first[rows], second_turned[columns]))
            )
            nearest = np.minimum(plain, altered)
            near = nearest <= limit
            pairs = np.stack([rows + start, columns + second_start], axis=1)[near]
            near_blocks.append((pairs, nearest[near].astype(np.uint16), (altered < plain)[near]))
        return near_blocks

    # NumPy releases the interpreter lock, so threads use every core.
    with ThreadPoolExecutor(cpu_cores()) as pool:
        blocks = list(chain.from_iterable(pool.map(compare, range(0, len(bits), _BLOCK))))
    if not blocks:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.uint16), np.zeros(0, bool)
    pairs, distances, altered = (np.concatenate(column) for column in zip(*blocks, strict=True))
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], distances[order], altered[order]


def _words(bits: np.ndarray, turn: bool) -> np.ndarray:
    """Hashes as uint64 (n, 4): one word for each parity of the coefficients' row and column.

    Flipping an image inverts whole words, see ``perceptual_bits``.
    """
    chunks = []
    for start in range(0, len(bits), _CHUNK):
        square = np.unpackbits(bits[start : start + _CHUNK], axis=1).reshape(-1, 8, 2, 8, 2)
        if turn:
            square = square.transpose(0, 3, 4, 1, 2)
        by_parity = square.transpose(0, 2, 4, 1, 3).reshape(-1, 4, 64)
        chunks.append(np.packbits(by_parity, axis=2).view(np.uint64)[..., 0])
    return np.concatenate(chunks) if chunks else np.zeros((0, 4), np.uint64)


def _least_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A lower bound of each pair's distance over all flips: uint8 (m, k).

    It uses two of the four words: the one that no flip inverts, and one that some flips invert.
    """
    even, odd = (np.bitwise_count(first[:, None, word] ^ second[None, :, word]) for word in (0, 1))
    return even + np.minimum(odd, np.uint8(64) - odd)


def _distances(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Differing bits of each pair, as it is and in the best of three flips: int16 (m,)."""
    even, odd_columns, odd_rows, both = (
        np.bitwise_count(first[:, word] ^ second[:, word]).astype(np.int16) for word in range(4)
    )
    # A word that differs in b bits differs in 64 - b once inverted; each flip inverts two words.
    flipped = np.minimum(even + odd_rows - odd_columns - both, even + odd_columns - odd_rows - both)
    half_turn = even + both - odd_columns - odd_rows
    plain = even + odd_columns + odd_rows + both
    return plain, np.minimum(flipped, half_turn) + np.int16(128)


@dataclass(frozen=True)
class Duplicates:
    """Pairs of equal and nearly equal images.

    Attributes:
        exact: pairs of equal pixels.
        near: pairs of near-duplicates, including those of equal pixels. Images of equal hashes are
            paired only with the first of them, so that many blank images do not fill the memory.
        distances: uint16 (m,), differing bits of each near pair.
        altered: bool (m,), whether a near pair matches best mirrored or turned.
    """

    exact: Pairs
    near: Pairs
    distances: np.ndarray
    altered: np.ndarray

    @property
    def pairs(self) -> Pairs:
        """All pairs, each of which must stay in one group."""
        return np.concatenate([self.exact, self.near])


def find_duplicates(measurements: Measurements, near_bits: int | None) -> Duplicates:
    """Pairs of images of equal pixels, and of near-duplicates unless ``near_bits`` is None."""
    # An image of one colour has no bit except that of its mean, and counts as nobody's copy.
    textured = np.flatnonzero(np.bitwise_count(measurements.bits).sum(axis=1) > 1)
    exact = textured[equal_pairs(measurements.pixel_hashes[textured])]
    if near_bits is None:
        return Duplicates(exact, exact[:0], np.zeros(0, np.uint16), np.zeros(0, bool))
    keys = np.ascontiguousarray(measurements.bits[textured]).view("V32")[:, 0]
    equal = textured[equal_pairs(keys)]
    different = np.setdiff1d(textured, equal[:, 1])
    pairs, distances, altered = near_pairs(measurements.bits[different], near_bits)
    return Duplicates(
        exact,
        np.concatenate([equal, different[pairs]]),
        np.concatenate([np.zeros(len(equal), np.uint16), distances]),
        np.concatenate([np.zeros(len(equal), dtype=bool), altered]),
    )
