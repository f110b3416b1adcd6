"""Every sampling against its distribution; kernel, fill and perturbation against `lime`."""

from math import comb
from typing import get_args

import numpy as np
import pytest
from lime.lime_image import LimeImageExplainer
from sklearn.metrics import pairwise_distances

from kerasmed.errors import InputError
from kerasmed.explain.config import ExplainConfig
from kerasmed.explain.masks import (
    PAIRED,
    SAMPLINGS,
    apply_masks,
    draw_masks,
    fill_of,
    kernel_weights,
)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)


@pytest.fixture
def patches() -> np.ndarray:
    """Nine segments, none of which is connected."""
    return np.random.default_rng(1).integers(0, 9, (24, 20))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_first_mask_keeps_all(sampling):
    masks = draw_masks(13, 60, 0, sampling)

    assert (masks.shape, masks.dtype) == ((60, 13), np.bool_)
    assert masks[0].all()
    assert not masks[1:].all()


@pytest.mark.parametrize("segments", [2, 8, 33])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_more_samples_only_add_to_fewer(sampling, segments):
    many = draw_masks(segments, 300, 3, sampling)

    for few in (1, 2, 100):
        np.testing.assert_array_equal(draw_masks(segments, few, 3, sampling), many[:few])


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_seed_governs_the_masks(sampling):
    first, second, other = (draw_masks(20, 50, seed, sampling) for seed in (4, 4, 5))

    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_masks_1_and_2_and_so_on_are_complements_where_they_are_paired(sampling):
    masks = draw_masks(10, 201, 0, sampling)

    assert np.array_equal(masks[1::2], ~masks[2::2]) == (sampling in PAIRED)


@pytest.mark.parametrize("sampling", ["orthogonal", "paired", "independent"])
def test_each_superpixel_is_kept_in_half_of_the_masks(sampling):
    masks = draw_masks(24, 4001, 0, sampling)[1:]

    np.testing.assert_allclose(masks.mean(axis=0), 0.5, atol=0.04)
    assert masks.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("sampling", ["orthogonal", "paired", "independent"])
def test_sizes_of_masks_are_binomial(sampling):
    """One block of "orthogonal" has few sizes, so they are counted over many seeds."""
    drawn = np.concatenate([draw_masks(5, 17, seed, sampling)[1:] for seed in range(600)])

    frequencies = np.bincount(drawn.sum(axis=1), minlength=6) / len(drawn)

    np.testing.assert_allclose(frequencies, [comb(5, k) / 32 for k in range(6)], atol=0.02)


@pytest.mark.parametrize(
    ("segments", "order"), [(1, 4), (3, 4), (4, 4), (8, 8), (13, 20), (16, 20), (50, 60)]
)
def test_orthogonal_columns_are_orthogonal_over_a_whole_block(segments, order):
    masks = draw_masks(segments, 1 + 2 * 2 * order, 7, "orthogonal")[1:]

    for block in masks.reshape(2, 2 * order, segments).astype(int):
        together = block.T @ block
        expected = np.full((segments, segments), 2 * order // 4)
        np.fill_diagonal(expected, 2 * order // 2)
        np.testing.assert_array_equal(together, expected)


def test_blocks_of_orthogonal_differ():
    first, second = draw_masks(8, 33, 0, "orthogonal")[1:].reshape(2, 16, 8)

    assert (first != second).any()


@pytest.mark.parametrize(("segments", "order"), [(20, 20), (41, 44), (50, 60), (64, 68)])
def test_orthogonal_does_not_take_three_superpixels_together_for_a_fourth(segments, order):
    """In Sylvester's matrices the product of any three columns is, up to its sign, another one."""
    signs = 2.0 * draw_masks(segments, 1 + 2 * order, 0, "orthogonal")[1::2] - 1

    for first in range(5):
        three = [first, first + 1, first + 2]
        together = signs[:, three].prod(axis=1)
        assert np.abs(together @ np.delete(signs, three, axis=1)).max() <= 0.6 * order


def test_glime_draws_sizes_by_the_kernel():
    """C(n, k) subsets of each size, each as likely as its kernel weight says."""
    n, draws = 5, 30_000
    chance = np.array([comb(n, k) * kernel_weights(np.array(k / n)) for k in range(n + 1)])
    chance /= chance.sum()

    masks = draw_masks(n, draws + 1, 0, "glime")[1:]

    frequencies = np.bincount(masks.sum(axis=1), minlength=n + 1) / draws
    np.testing.assert_allclose(
        frequencies, chance, atol=4 * np.sqrt(chance * (1 - chance) / draws).max()
    )
    assert frequencies[4] == pytest.approx(chance[4], abs=0.01)
    # Of one size, every superpixel is kept as often as any other.
    np.testing.assert_allclose(masks[masks.sum(axis=1) == 4].mean(axis=0), 4 / 5, atol=0.02)


def test_shapley_draws_sizes_by_its_kernel():
    n, draws = 6, 20_000
    chance = np.array([1 / (k * (n - k)) for k in range(1, n)])
    chance /= chance.sum()

    masks = draw_masks(n, draws + 1, 0, "shapley")[1:]

    frequencies = np.bincount(masks.sum(axis=1), minlength=n + 1) / draws
    assert frequencies[0] == frequencies[n] == 0
    np.testing.assert_allclose(frequencies[1:n], chance, atol=0.015)
    np.testing.assert_allclose(masks[masks.sum(axis=1) == 2].mean(axis=0), 2 / 6, atol=0.02)


@pytest.mark.parametrize("sampling", [name for name in SAMPLINGS if name != "shapley"])
def test_one_superpixel_is_enough(sampling):
    masks = draw_masks(1, 40, 0, sampling)

    assert masks.shape == (40, 1)
    assert masks[0, 0]


def test_settings_offer_the_samplings_of_lime():
    offered = get_args(ExplainConfig.model_fields["sampling"].annotation)

    assert set(offered) == set(SAMPLINGS) - {"shapley"}


def test_unknown_sampling_is_refused():
    with pytest.raises(InputError, match=r"one of orthogonal, paired, .*; received 'sobol'"):
        draw_masks(5, 20, 0, "sobol")


@pytest.mark.parametrize("segments", [1, 5, 60])
def test_kernel_weights_are_those_of_lime(segments):
    data = np.random.default_rng(segments).integers(0, 2, (50, segments))
    data[0] = 1
    data[1] = 0  # keeps nothing
    distances = pairwise_distances(data, data[:1], metric="cosine").ravel()
    kernel = LimeImageExplainer().base.kernel_fn

    weights = kernel_weights(data.mean(axis=1))

    np.testing.assert_allclose(weights, kernel(distances), rtol=1e-6)
    assert weights[0] == 1
    assert weights[1] == pytest.approx(np.exp(-8))


def test_mean_colours_by_hand():
    image = np.array([[[0, 10, 255], [3, 10, 254]], [[1, 0, 0], [1, 1, 1]]], dtype=np.uint8)
    segments = np.array([[0, 0], [1, 0]])

    fill = fill_of(image, segments, "mean")

    # Segment 0: (0 + 3 + 1) / 3, (10 + 10 + 1) / 3, (255 + 254 + 1) / 3, cut off as `lime` does.
    assert fill.dtype == np.uint8
    assert fill.tolist() == [[[1, 7, 170], [1, 7, 170]], [[1, 0, 0], [1, 7, 170]]]


def test_mean_colours_agree_with_limes_loop(noise, patches):
    expected = noise.copy()
    for patch in np.unique(patches):  # lime 0.2.0.1, lime_image.py, explain_instance
        inside = patches == patch
        expected[inside] = tuple(np.mean(noise[inside][:, c]) for c in range(3))

    np.testing.assert_array_equal(fill_of(noise, patches, "mean"), expected)


@pytest.mark.parametrize("grey", [0, 127, 255])
def test_grey_level_fills_the_whole_image(noise, patches, grey):
    fill = fill_of(noise, patches, grey)

    assert (fill.dtype, fill.shape) == (np.uint8, noise.shape)
    assert (fill == grey).all()


@pytest.mark.parametrize("hide", [-1, 256, 1.5, "median", None])
def test_other_fills_are_refused(noise, patches, hide):
    with pytest.raises(InputError, match=f'"mean" or a grey level of 0 to 255, received {hide!r}'):
        fill_of(noise, patches, hide)


@pytest.mark.parametrize("hide", ["mean", 0, 200])
def test_perturbed_images_agree_with_limes_loop(noise, patches, hide):
    image, fill = noise.copy(), fill_of(noise, patches, hide)
    masks = draw_masks(9, 12, 0, "independent")
    masks[3] = False

    shown = apply_masks(image, fill, patches, masks)

    assert (shown.dtype, shown.shape) == (np.uint8, (12, *noise.shape))
    for mask, masked in zip(masks, shown, strict=True):  # lime_image.py, data_labels
        expected = noise.copy()
        for patch in np.flatnonzero(~mask):
            expected[patches == patch] = fill[patches == patch]
        np.testing.assert_array_equal(masked, expected)
    np.testing.assert_array_equal(image, noise)
