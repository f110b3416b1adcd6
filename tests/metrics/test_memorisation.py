"""Nearest neighbours and ranks against brute force, and copies that were planted."""

import json

import numpy as np
import pytest

from kerasmed.data.symmetry import all_versions
from kerasmed.errors import InputError
from kerasmed.metrics.memorisation import (
    comparison_pixels,
    data_copying,
    fraction_closer_to_train,
    memorisation,
    nearest,
    nearest_of_versions,
)


def pictures(count: int, seed: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def compared(images: np.ndarray, symmetry: str = "none") -> np.ndarray:
    """As the audit hands them in: (n, versions, d)."""
    return comparison_pixels(all_versions(images, symmetry))


def normal(count: int, seed: int, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width))


def test_small_images_are_compared_pixel_for_pixel():
    images = pictures(2, 0, size=32)

    vectors = comparison_pixels(images)

    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, images.reshape(2, -1) / 255, rtol=1e-6)


def test_large_images_are_averaged_by_hand():
    image = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    image[0, :2, :2, 0] = [[10, 20], [30, 40]]
    image[0, 2:, 2:, 1] = 255
    image[0, 0, 2, 2] = 100

    vector = comparison_pixels(image, edge=2)

    expected = np.zeros((2, 2, 3))
    expected[0, 0, 0] = 25 / 255
    expected[1, 1, 1] = 1.0
    expected[0, 1, 2] = 25 / 255
    np.testing.assert_allclose(vector, expected.reshape(1, 12), rtol=1e-6)


@pytest.mark.parametrize(("size", "edge"), [(16, 16), (32, 32), (48, 24), (64, 32), (100, 25)])
def test_edge_of_what_is_compared(size, edge):
    vectors = comparison_pixels(np.zeros((2, 8, size, size, 3), dtype=np.uint8))

    assert vectors.shape == (2, 8, edge * edge * 3)


def test_rest_that_fills_no_block_is_cut_off():
    image = np.zeros((1, 5, 5, 3), dtype=np.uint8)
    image[:, 4], image[:, :, 4] = 255, 255

    np.testing.assert_array_equal(comparison_pixels(image, edge=2), np.zeros((1, 3)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearest_agrees_with_brute_force(dtype):
    queries, references = normal(30, 1).astype(dtype), normal(50, 2).astype(dtype)

    distances, positions = nearest(queries, references)

    queries, references = queries.astype(np.float64), references.astype(np.float64)

    table = np.array([[np.sqrt(((q - r) ** 2).sum()) for r in references] for q in queries])
    np.testing.assert_array_equal(positions, table.argmin(axis=1))
    np.testing.assert_allclose(distances, table.min(axis=1), rtol=1e-12)
    assert (distances.dtype, positions.dtype) == (np.float64, np.int64)


def test_distance_of_an_exact_copy_is_exactly_0():
    references = (normal(40, 1) + 1000).astype(np.float32)

    distances, positions = nearest(references[[5, 31]], references)

    assert distances.tolist() == [0.0, 0.0]
    assert positions.tolist() == [5, 31]


def test_closest_version_counts():
    references = np.array([[0.0, 0.0], [10.0, 0.0]])
    queries = np.array([[[3.0, 0.0], [9.0, 0.0]], [[0.0, 1.0], [5.0, 5.0]]])

    distances, positions = nearest_of_versions(queries, references)

    assert distances.tolist() == [1.0, 1.0]
    assert positions.tolist() == [1, 0]


def test_nearest_of_versions_agrees_with_brute_force():
    queries, references = normal(40, 1).reshape(10, 4, 12), normal(25, 2)

    distances, positions = nearest_of_versions(queries, references)

    table = np.linalg.norm(queries[:, :, None] - references, axis=-1).min(axis=1)
    np.testing.assert_array_equal(positions, table.argmin(axis=1))
    np.testing.assert_allclose(distances, table.min(axis=1))


def test_independent_sets_lie_as_close_to_both_sides():
    result = memorisation(
        normal(400, 1)[:, None], normal(400, 2)[:, None], normal(1500, 3)[:, None]
    )

    # Standard error of a fraction of 1500 is 0.013, more with one fixed pair of sides.
    assert result["fraction_closer_to_train"] == pytest.approx(0.5, abs=0.06)
    assert result["median_distance_to_train"] == pytest.approx(
        result["median_distance_to_reserve"], rel=0.03
    )
    assert abs(result["c_t"]) < 3


def test_unequal_sides_are_compared_at_equal_size():
    result = memorisation(
        normal(600, 1)[:, None], normal(150, 2)[:, None], normal(1500, 3)[:, None]
    )

    assert (result["n_compared"], result["n_synthetic"]) == (150, 1500)
    assert result["fraction_closer_to_train"] == pytest.approx(0.5, abs=0.08)


def test_memorised_set_lies_closer_to_train():
    train = normal(100, 1)
    synthetic = train + 0.1 * normal(100, 3)

    result = memorisation(train[:, None], normal(100, 2)[:, None], synthetic[:, None])

    assert result["fraction_closer_to_train"] == 1.0
    assert result["c_t"] < -3
    assert result["authenticity"]["synthetic"] == 0.0
    assert result["authenticity"]["reserve"] > 0.3


def test_seed_repeats_and_results_are_plain_values():
    sets = normal(100, 1)[:, None], normal(60, 2)[:, None], normal(50, 3)[:, None]

    result = memorisation(*sets)

    assert result == memorisation(*sets)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    others = [memorisation(*sets, seed=seed)["median_distance_to_train"] for seed in (1, 2)]
    assert len({result["median_distance_to_train"], *others}) > 1


@pytest.mark.parametrize(
    ("position", "name"), list(enumerate(["training", "reserve", "synthetic"]))
)
def test_too_few_images_are_refused(position, name):
    counts = [20, 20, 20]
    counts[position] = 19
    train, reserve, synthetic = (normal(count, i) for i, count in enumerate(counts))

    with pytest.raises(InputError, match=f"expected at least 20 {name} images, received 19"):
        memorisation(train[:, None], reserve[:, None], synthetic[:, None])


def test_fraction_closer_to_train_of_copies_and_of_strangers():
    train, reserve = normal(30, 0), normal(90, 1)

    def closer(synthetic: np.ndarray) -> float:
        return fraction_closer_to_train(train, reserve, synthetic[:, None])

    assert closer(train + 1e-3) == 1.0
    assert fraction_closer_to_train(reserve, train, train[:, None]) == 0.0
    assert closer(normal(2000, 2)) == pytest.approx(0.5, abs=0.15)


def test_data_copying_of_one_cluster_is_the_z_score_of_counted_pairs():
    rng = np.random.default_rng(0)
    natural, drawn = rng.normal(0, 1, 50).round(1), rng.normal(-0.5, 1, 70).round(1)  # with ties

    score = data_copying(normal(30, 1), (normal(50, 2), natural), (normal(70, 3), drawn))

    farther = sum((a > b) + (a == b) / 2 for a in drawn for b in natural)
    assert score == pytest.approx((farther - 50 * 70 / 2) / np.sqrt(50 * 70 * 121 / 12))


def test_data_copying_by_chance_deviates_by_one_however_many_clusters():
    scores = []
    for i in range(100):
        train, reserve, drawn = (normal(200, 3 * i + j) for j in range(3))
        of_reserve, of_drawn = (nearest(images, train)[0] for images in (reserve, drawn))
        scores.append(data_copying(train, (reserve, of_reserve), (drawn, of_drawn)))
    assert np.std(scores) == pytest.approx(1, abs=0.3)  # the mean of ten scores: 0.32
    assert abs(np.mean(scores)) < 0.4


def test_data_copying_counts_the_images_of_a_group_once():
    """Thirty images of each of eight reserve patients, none of whom is closer than by chance."""
    together, apart = [], []
    for i in range(40):
        rng = np.random.default_rng(i)
        groups = np.repeat(np.arange(8), 30)
        natural = (rng.normal(0, 1, 8)[:, None] + rng.normal(0, 0.1, (8, 30))).ravel()
        drawn = rng.normal(0, 1, 200)
        sets = normal(30, 1), (normal(240, 2), natural), (normal(200, 3), drawn)
        apart.append(data_copying(*sets))
        together.append(data_copying(*sets, groups=groups))
    assert np.std(apart) > 3
    assert np.std(together) == pytest.approx(1, abs=0.4)


def test_data_copying_in_one_cluster_of_two_shows():
    train = np.concatenate([normal(40, 1), normal(40, 2) + 100])
    reserve = np.concatenate([normal(100, 3), normal(100, 4) + 100])
    natural, copied = np.full(200, 1.0), np.concatenate([np.full(100, 1.0), np.full(100, 0.1)])

    assert data_copying(train, (reserve, natural), (reserve, natural)) == pytest.approx(0, abs=0.1)
    assert data_copying(train, (reserve, natural), (reserve, copied)) < -3


def test_authenticity_by_hand():
    train = np.array([[0.0], [1.0], *[[100.0 + 10 * i] for i in range(18)]])
    synthetic = np.array([[0.5], [3.0], *[[104.0]] * 18])

    result = memorisation(train[:, None], synthetic[:, None], synthetic[:, None])

    # Only the second lies farther from its nearest (2) than that one from another (1).
    assert result["authenticity"]["synthetic"] == pytest.approx(1 / 20)


def test_authenticity_treats_both_distances_alike():
    """Eight versions on one side only would bring images nearer to training images."""

    def versions(seed: int) -> np.ndarray:
        images = normal(400, seed, width=6)
        return np.stack([np.roll(images, i, axis=1) for i in range(6)], axis=1)

    train, reserve, synthetic = map(versions, range(3))

    alike = memorisation(train, reserve, synthetic)["authenticity"]["synthetic"]
    single = memorisation(*(of_set[:, :1] for of_set in (train, reserve, synthetic)))
    unlike = memorisation(train[:, :1], reserve, synthetic)["authenticity"]["synthetic"]

    assert alike == pytest.approx(single["authenticity"]["synthetic"], abs=0.12)
    assert unlike < alike - 0.2


def test_set_that_is_the_training_set_itself_is_recognised():
    train, reserve = (np.random.default_rng(seed).normal(size=(60, 8)) for seed in (1, 2))

    result = memorisation(train[:, None], reserve[:, None], train[:, None])

    assert result["fraction_closer_to_train"] == 1
    assert result["authenticity"]["synthetic"] == 0
    assert result["c_t"] < -3
