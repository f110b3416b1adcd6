"""Images that are the same, or nearly, in any of their flips and turns."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kerasmed.data.fingerprints import Fingerprints
from kerasmed.runtime.hardware import cpu_cores

# Hashes compared at once by one thread: a block of distances that stays in the processor's cache.
_BLOCK = 512
# Hashes unpacked at once.
_CHUNK = 65536

Pairs = np.ndarray  # int64 (m, 2), the first index below the second


def equal_pairs(keys: np.ndarray) -> Pairs:
    """Each image with the first one of the same key.

    Args:
        keys: (n,) of any kind that compares.
    """
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    pairs = np.stack([first[inverse], np.arange(len(keys))], axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def linked_groups(pairs: Pairs, count: int) -> np.ndarray:
    """Number of the group of each of ``count`` images, where pairs link transitively."""
    ones = np.ones(len(pairs), dtype=bool)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def near_pairs(bits: np.ndarray, limit: int) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """All pairs whose perceptual hashes differ in at most ``limit`` bits, in any flip or turn.

    Every pair is compared, none is estimated; memory is bounded by the pairs that are found.

    Args:
        bits: uint8 (n, 32), packed hashes.
        limit: greatest number of differing bits.

    Returns:
        The pairs; uint16 (m,) their distances; bool (m,) whether the nearest version is another one
        than the image as it is.
    """
    words, turned = _words(bits, turn=False), _words(bits, turn=True)

    def compare(start: int) -> list[tuple[Pairs, np.ndarray, np.ndarray]]:
        found = []
        mine = words[start : start + _BLOCK]
        for other in range(start, len(bits), _BLOCK):
            theirs, theirs_turned = (each[other : other + _BLOCK] for each in (words, turned))
            least = np.minimum(
                _least_distances(mine, theirs), _least_distances(mine, theirs_turned)
            )
            rows, columns = np.nonzero(least <= limit)
            below = rows + start < columns + other
            rows, columns = rows[below], columns[below]
            if not len(rows):
                continue
            plain, flipped = _distances(mine[rows], theirs[columns])
            altered = np.minimum(
                flipped, np.minimum(*_distances(mine[rows], theirs_turned[columns]))
            )
            nearest = np.minimum(plain, altered)
            near = nearest <= limit
            pairs = np.stack([rows + start, columns + other], axis=1)[near]
            found.append((pairs, nearest[near].astype(np.uint16), (altered < plain)[near]))
        return found

    # NumPy lets go of the interpreter lock, so threads use every core.
    with ThreadPoolExecutor(cpu_cores()) as pool:
        blocks = [
            block for found in pool.map(compare, range(0, len(bits), _BLOCK)) for block in found
        ]
    if not blocks:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.uint16), np.zeros(0, bool)
    pairs, distances, altered = (np.concatenate(column) for column in zip(*blocks, strict=True))
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], distances[order], altered[order]


def _words(bits: np.ndarray, turn: bool) -> np.ndarray:
    """Hashes as uint64 (n, 4): the coefficients of even and odd rows and columns, each a word.

    Flipping an image inverts whole words of these, see ``perceptual_bits``.
    """
    chunks = []
    for start in range(0, len(bits), _CHUNK):
        square = np.unpackbits(bits[start : start + _CHUNK], axis=1).reshape(-1, 8, 2, 8, 2)
        if turn:
            square = square.transpose(0, 3, 4, 1, 2)
        by_parity = square.transpose(0, 2, 4, 1, 3).reshape(-1, 4, 64)
        chunks.append(np.packbits(by_parity, axis=2).view(np.uint64)[..., 0])
    return np.concatenate(chunks) if chunks else np.zeros((0, 4), np.uint64)


def _least_distances(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """What all pairs differ in at least, in the best of all flips: uint8 (m, k).

    Two of the four words: the one that no flip inverts, and one that a flip inverts or not.
    """
    even, odd = (np.bitwise_count(mine[:, None, word] ^ theirs[None, :, word]) for word in (0, 1))
    return even + np.minimum(odd, np.uint8(64) - odd)


def _distances(mine: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Differing bits of the pairs, as they are and in the best of three flips: int16 (m,)."""
    even, odd_columns, odd_rows, both = (
        np.bitwise_count(mine[:, word] ^ theirs[:, word]).astype(np.int16) for word in range(4)
    )
    # An inverted word differs in 64 less the bits in which it differed; a flip inverts two.
    flipped = np.minimum(even + odd_rows - odd_columns - both, even + odd_columns - odd_rows - both)
    half_turn = even + both - odd_columns - odd_rows
    plain = even + odd_columns + odd_rows + both
    return plain, np.minimum(flipped, half_turn) + np.int16(128)


@dataclass(frozen=True)
class Duplicates:
    """What was found to be the same.

    Attributes:
        exact: pairs of equal pixels.
        near: pairs of near-duplicates, those of equal pixels among them; images of equal hashes are
            paired with the first of them alone, so that many blank ones do not fill the memory.
        distances: uint16 (m,), differing bits of each near pair.
        altered: bool (m,), whether a near pair matches best mirrored or turned.
    """

    exact: Pairs
    near: Pairs
    distances: np.ndarray
    altered: np.ndarray

    @property
    def pairs(self) -> Pairs:
        """All pairs that may not be torn apart."""
        return np.concatenate([self.exact, self.near])


def find_duplicates(fingerprints: Fingerprints, near_bits: int | None) -> Duplicates:
    """Images of equal pixels, and near-duplicates if a number of bits is given."""
    # An image of one colour has no bit beside that of its mean; it is nobody's copy.
    seen = np.flatnonzero(np.bitwise_count(fingerprints.bits).sum(axis=1) > 1)
    exact = seen[equal_pairs(fingerprints.pixel_hashes[seen])]
    if near_bits is None:
        return Duplicates(exact, exact[:0], np.zeros(0, np.uint16), np.zeros(0, bool))
    keys = np.ascontiguousarray(fingerprints.bits[seen]).view("V32")[:, 0]
    equal = seen[equal_pairs(keys)]
    different = np.setdiff1d(seen, equal[:, 1])
    pairs, distances, altered = near_pairs(fingerprints.bits[different], near_bits)
    return Duplicates(
        exact,
        np.concatenate([equal, different[pairs]]),
        np.concatenate([np.zeros(len(equal), np.uint16), distances]),
        np.concatenate([np.zeros(len(equal), dtype=bool), altered]),
    )
