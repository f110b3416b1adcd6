"""Pairs of the same image against a plain double loop over all flips and turns."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmed.data.config import DataConfig
from kerasmed.data.duplicates import equal_pairs, find_duplicates, near_pairs
from kerasmed.data.measurements import APPEARANCE, Measurements
from kerasmed.data.measuring import read_measurements
from kerasmed.data.phantoms import draw_phantom

EDGE = 16
BITS = EDGE * EDGE
ODD = np.arange(EDGE) % 2 == 1
# How the signs of the coefficients change under each flip and turn: whether rows and columns are
# exchanged, and whether the odd frequencies of each direction change sign.
VERSIONS = [(turn, rows, columns) for turn in (0, 1) for rows in (0, 1) for columns in (0, 1)]


def turned(bits: np.ndarray, version: tuple[int, int, int]) -> np.ndarray:
    """One hash, bool (256,), as another version of its image has it."""
    turn, rows, columns = version
    square = bits.reshape(EDGE, EDGE)
    square = square.T if turn else square
    signs = (ODD[:, None] if rows else False) ^ (ODD[None, :] if columns else False)
    return (square ^ signs).ravel()


def number(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def plain_pairs(hashes: np.ndarray, limit: int) -> list[tuple]:
    """(first, second, distance, altered) of every pair within the limit, by a double loop."""
    numbers = [[number(turned(bits, version)) for version in VERSIONS] for bits in hashes]
    pairs = []
    for i, own in enumerate(numbers):
        for j in range(i + 1, len(numbers)):
            plain, *others = ((own[0] ^ other).bit_count() for other in numbers[j])
            nearest = min([plain, *others])
            if nearest <= limit:
                pairs.append((i, j, nearest, nearest < plain))
    return pairs


def found_pairs(hashes: np.ndarray, limit: int) -> list[tuple]:
    pairs, distances, altered = near_pairs(np.packbits(hashes, axis=1), limit)
    assert (pairs.dtype, distances.dtype, altered.dtype) == (np.int64, np.uint16, bool)
    return [
        (*pair, distance, version)
        for pair, distance, version in zip(
            pairs.tolist(), distances.tolist(), altered.tolist(), strict=True
        )
    ]


def random_hashes(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((count, BITS)) < 0.5


def changed(bits: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The same hash but for ``count`` bits."""
    bits = bits.copy()
    bits[rng.choice(BITS, count, replace=False)] ^= True
    return bits


def clustered_hashes(count: int, seed: int) -> np.ndarray:
    """Flips and turns of a few hashes, each with up to forty bits changed."""
    rng = np.random.default_rng(seed)
    centres = random_hashes(max(2, count // 6), seed + 1)
    return np.stack(
        [
            changed(
                turned(centres[rng.integers(len(centres))], VERSIONS[rng.integers(8)]),
                int(rng.integers(41)),
                rng,
            )
            for _ in range(count)
        ]
    )


@pytest.mark.parametrize("limit", [0, 1, 20, 32, 64, 110])
@pytest.mark.parametrize("make", [random_hashes, clustered_hashes])
def test_near_pairs_are_those_of_a_plain_double_loop(make, limit):
    hashes = make(90, 3)

    expected = plain_pairs(hashes, limit)

    assert found_pairs(hashes, limit) == expected
    assert expected or make is random_hashes or not limit


@pytest.mark.parametrize("count", [511, 512, 513, 1023, 1024, 1025])
def test_pairs_across_the_blocks_of_the_comparison(count):
    rng = np.random.default_rng(count)
    hashes = random_hashes(count, count)
    last = count - 1
    ends = [(0, last), (1, 505), (504, last - 1), (2, last // 2)]
    planted = []
    for number_of_pair, (i, j) in enumerate(ends):
        version = VERSIONS[2 * number_of_pair % 8]
        hashes[j] = changed(turned(hashes[i], version), 3 * number_of_pair, rng)
        planted.append((i, j, 3 * number_of_pair, version != VERSIONS[0]))

    near = found_pairs(hashes, 32)

    assert near == sorted(planted) == plain_pairs(hashes, 32)


def test_all_equal_hashes_are_every_pair_once():
    hashes = np.repeat(random_hashes(1, 0), 700, axis=0)

    pairs, distances, altered = near_pairs(np.packbits(hashes, axis=1), 0)

    assert len(pairs) == 700 * 699 // 2
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert not distances.any()
    assert not altered.any()


@pytest.mark.parametrize("count", [0, 1])
def test_less_than_two_images_have_no_pair(count):
    assert found_pairs(random_hashes(count, 0), 256) == []


def test_limit_is_the_greatest_distance_that_counts():
    rng = np.random.default_rng(0)
    first = random_hashes(1, 1)[0]
    hashes = np.stack([first, changed(first, 20, rng)])

    assert found_pairs(hashes, 20) == [(0, 1, 20, False)]
    assert found_pairs(hashes, 19) == []


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_flipped_or_turned_copy_is_found_and_said_to_be_one(version):
    hashes = random_hashes(2, 5)
    hashes[1] = changed(turned(hashes[0], version), 7, np.random.default_rng(0))

    assert found_pairs(hashes, 32) == [(0, 1, 7, True)]


def test_pair_as_near_without_a_turn_as_with_one_is_not_altered():
    # A hash that is the same with rows and columns exchanged.
    square = random_hashes(1, 0)[0].reshape(EDGE, EDGE)
    first = np.triu(square) | np.triu(square).T
    second = first.copy()
    second[0, 0] ^= True

    assert found_pairs(np.stack([first.ravel(), second.ravel()]), 4) == [(0, 1, 1, False)]


def test_blank_images_pair_with_each_other_alone():
    hashes = random_hashes(5, 0)
    hashes[1] = False  # black
    hashes[3:] = False
    hashes[3:, 0] = True  # grey and white

    assert found_pairs(hashes, 32) == [(1, 3, 1, False), (1, 4, 1, False), (3, 4, 0, False)]


@pytest.mark.parametrize(
    ("keys", "pairs"),
    [
        ([], []),
        (["a"], []),
        (["b", "a", "c"], []),
        (["b", "a", "b", "b", "a"], [[0, 2], [0, 3], [1, 4]]),
        ([7, 7, 7], [[0, 1], [0, 2]]),
    ],
)
def test_equal_keys_are_paired_with_the_first_of_them(keys, pairs):
    equal = equal_pairs(np.array(keys))

    assert equal.tolist() == pairs
    assert equal.shape == (len(pairs), 2)


def measurements(hashes: np.ndarray, pixel_hashes: list[str]) -> Measurements:
    count = len(hashes)
    names = np.array([str(i) for i in range(count)])
    return Measurements(
        names=names,
        classes=np.full(count, "a"),
        hashes=names,
        pixel_hashes=np.array(pixel_hashes),
        bits=np.packbits(hashes, axis=1),
        appearance=np.zeros(count, APPEARANCE),
        patients=np.full(count, ""),
        frames=np.full(count, -1),
        official=np.full(count, ""),
        quantiles=np.zeros((count, 0), np.float32),
        levels=np.zeros((count, 0), np.float32),
        notes=np.zeros(count, np.int32),
        note_texts=np.array([""]),
        unreadable=np.array([], dtype=np.str_),
        masks=np.array([], dtype=np.str_),
    )


def linked(pairs: np.ndarray, count: int) -> list[int]:
    """The least position that each image is linked to, by plain search."""
    least = list(range(count))
    for _ in range(count):
        for i, j in pairs.tolist():
            least[i] = least[j] = min(least[i], least[j])
    return least


def test_without_a_number_of_bits_only_equal_pixels_count():
    hashes = np.repeat(random_hashes(1, 0), 3, axis=0)

    duplicates = find_duplicates(measurements(hashes, ["x", "y", "x"]), None)

    assert duplicates.exact.tolist() == duplicates.pairs.tolist() == [[0, 2]]
    assert duplicates.near.shape == (0, 2)
    assert len(duplicates.distances) == len(duplicates.altered) == 0


def test_found_duplicates_hold_together_all_that_a_double_loop_finds():
    hashes = np.concatenate([clustered_hashes(60, 1), clustered_hashes(30, 1)])
    pixel_hashes = [f"{i % 85}" for i in range(90)]

    duplicates = find_duplicates(measurements(hashes, pixel_hashes), 32)

    expected = [[i, j] for i, j, _, _ in plain_pairs(hashes, 32)]
    expected += [[i, i + 85] for i in range(5)]
    assert duplicates.exact.tolist() == [[i, i + 85] for i in range(5)]
    assert linked(duplicates.pairs, 90) == linked(np.array(expected), 90)
    assert len(duplicates.near) == len(duplicates.distances) == len(duplicates.altered)
    assert (duplicates.near[:, 0] < duplicates.near[:, 1]).all()
    measured = {(i, j): (bits, version) for i, j, bits, version in plain_pairs(hashes, 32)}
    for pair, bits, version in zip(
        duplicates.near, duplicates.distances, duplicates.altered, strict=True
    ):
        assert measured[tuple(pair.tolist())] == (bits, version)


def test_images_of_one_colour_are_nobodys_copies():
    hashes = random_hashes(4, 0)
    hashes[1:] = False  # only the bit of the mean, which is set unless all is black
    hashes[2, 0] = True

    duplicates = find_duplicates(measurements(hashes, ["a", "black", "grey", "black"]), 32)

    assert len(duplicates.pairs) == 0


def test_many_equal_images_need_few_pairs():
    hashes = np.repeat(random_hashes(1, 1), 5000, axis=0)
    hashes[1] = random_hashes(1, 0)[0]

    duplicates = find_duplicates(measurements(hashes, [str(i) for i in range(5000)]), 32)

    assert len(duplicates.near) == 4998
    assert linked(duplicates.near[:10], 12) == [0, 1, *[0] * 10]
    assert 1 not in duplicates.near


def test_copies_in_files_are_told_apart_by_kind(tmp_path: Path):
    first, second = (draw_phantom("mri", "no_lesion", i, 96, 0)[0] for i in range(2))
    names = ("0.png", "1.png", "2.jpg", "3.png", "4.png", "5.png")
    images = (first, first, first, first[:, ::-1], np.rot90(first), second)
    for class_name in "ab":
        (tmp_path / "set" / class_name).mkdir(parents=True)
    for name, image in zip(names, images, strict=True):
        Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / "set" / "a" / name)
    Image.fromarray(second).save(tmp_path / "set" / "b" / "6.bmp")

    data = DataConfig(source=tmp_path / "set")
    duplicates = find_duplicates(read_measurements(data, tmp_path / "measurements"), 32)

    assert duplicates.exact.tolist() == [[0, 1], [5, 6]]
    assert linked(duplicates.near, 7) == [0, 0, 0, 0, 0, 5, 5]
    altered = {tuple(pair) for pair in duplicates.near[duplicates.altered].tolist()}
    plain = {tuple(pair) for pair in duplicates.near[~duplicates.altered].tolist()}
    assert plain == {(0, 1), (0, 2), (5, 6)}
    assert {(0, 3), (0, 4), (2, 3), (2, 4), (3, 4)} == altered
