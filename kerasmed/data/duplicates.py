"""Images that are the same, or nearly, in any of their flips and turns."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kerasmed.data.fingerprints import BITS, Fingerprints, all_versions

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


def near_pairs(
    bits: np.ndarray, limit: int, versions: bool = True
) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """All pairs whose perceptual hashes differ in at most ``limit`` bits.

    Every pair is compared, none is estimated; memory is bounded by the pairs that are found.

    Args:
        bits: uint8 (n, 32), packed hashes.
        limit: greatest number of differing bits.
        versions: whether an image is also compared with the others' flips and turns.

    Returns:
        The pairs; uint16 (m,) their distances; bool (m,) whether the nearest version is another one
        than the image as it is.
    """
    found = list(_blocks_below(_words(bits, versions), limit))
    if not found:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.uint16), np.zeros(0, bool)
    pairs = np.concatenate([pair for pair, _, _ in found])
    distances = np.concatenate([distance for _, distance, _ in found])
    altered = np.concatenate([version for _, _, version in found])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], distances[order], altered[order]


def _words(bits: np.ndarray, versions: bool) -> np.ndarray:
    """The hashes of each version: uint64 (versions, n, 4), the image as it is first."""
    chunks = []
    for start in range(0, len(bits), _CHUNK):
        chunk = np.unpackbits(bits[start : start + _CHUNK], axis=1).astype(bool)
        squares = chunk.reshape(-1, 16, 16)
        every = all_versions(squares) if versions else squares[None]
        packed = np.packbits(every.reshape(len(every), len(chunk), BITS), axis=2)
        chunks.append(packed.view(np.uint64))
    return np.concatenate(chunks, axis=1) if chunks else np.zeros((1, 0, 4), np.uint64)


def _blocks_below(words: np.ndarray, limit: int) -> Iterator[tuple[Pairs, np.ndarray, np.ndarray]]:
    """``words``: uint64 (versions, n, 4); the first version is the image as it is."""
    count = words.shape[1]

    def compare(start: int) -> list[tuple[Pairs, np.ndarray, np.ndarray]]:
        mine = words[0, start : start + _BLOCK]
        found = []
        for other in range(start, count, _BLOCK):
            nearest, altered = _nearest(mine, words[:, other : other + _BLOCK])
            rows, columns = np.nonzero(nearest <= limit)
            below = rows + start < columns + other
            rows, columns = rows[below], columns[below]
            if len(rows):
                pairs = np.stack([rows + start, columns + other], axis=1)
                found.append((pairs, nearest[rows, columns], altered[rows, columns]))
        return found

    # NumPy lets go of the interpreter lock, so threads use every core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(compare, range(0, count, _BLOCK)):
            yield from found


def _nearest(mine: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least distance over the versions, and whether another than the first has it."""
    plain = _distances(mine, theirs[0])
    if len(theirs) == 1:
        return plain, np.zeros(plain.shape, dtype=bool)
    turned = _distances(mine, theirs[1])
    for version in theirs[2:]:
        np.minimum(turned, _distances(mine, version), out=turned)
    return np.minimum(plain, turned), turned < plain


def _distances(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Hamming distances of all pairs: uint16 (m, k)."""
    total = np.bitwise_count(mine[:, None, 0] ^ theirs[None, :, 0]).astype(np.uint16)
    for word in range(1, mine.shape[1]):
        total += np.bitwise_count(mine[:, None, word] ^ theirs[None, :, word])
    return total


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
