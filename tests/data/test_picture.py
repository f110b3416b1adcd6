"""From values to grey levels: one line, and one range of many images."""

import numpy as np
import pytest

from kerasmed.data.picture import (
    QUANTILE_LEVELS,
    distribution,
    levels_kept,
    own_range,
    pooled_range,
    to_grey,
)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_grey_is_linear_between_black_and_white(dtype):
    values = np.array([[0, 100, 151, 200, 300]], dtype)

    assert to_grey(values, 100, 200).tolist() == [[0, 0, 130, 255, 255]]
    assert to_grey(values, 100, 200, inverted=True).tolist() == [[255, 255, 125, 0, 0]]


def test_what_is_no_number_is_black_and_infinity_is_clipped():
    values = np.float32([np.nan, -np.inf, np.inf])

    assert to_grey(values, 0, 1).tolist() == [0, 0, 255]
    assert to_grey(values, 0, 1, inverted=True).tolist() == [0, 255, 0]


def test_range_of_one_image_leaves_out_a_thousandth_at_either_end():
    values = np.append(np.arange(10_000.0), [1e9, np.nan, np.inf])

    low, high = own_range(values)

    assert low == pytest.approx(10, abs=1)
    assert high == pytest.approx(9990, abs=2)
    assert own_range(np.array([np.nan])) == (0, 1)


def quantiles(*images: np.ndarray) -> np.ndarray:
    return np.stack([distribution(image)[0] for image in images])


SPIKES = {
    "none": np.arange(4096),
    "padding": np.append(np.full(9000, -32768), np.arange(-1024, 3072)),
    "marker": np.append(np.arange(900).repeat(20), [65535] * 300),
    "few bright pixels": np.append(np.arange(200).repeat(49), [60000] * 200),
    "float noise": np.random.default_rng(0).gamma(1, 300, 9000).astype(np.float32),
}


@pytest.mark.parametrize("kind", SPIKES)
@pytest.mark.parametrize("span", [(0, 900), (-32768, 3072), (0, 65535)])
def test_levels_kept_are_nearly_those_that_a_picture_shows(kind, span):
    values = SPIKES[kind]
    _, levels, held = distribution(values)

    [kept] = levels_kept(levels[None], np.array([held]), *span)

    shown = len(np.unique(to_grey(values, *span)))
    assert shown - 3 <= kept <= shown + 6 + 0.25 * shown


def test_distribution_counts_different_values():
    _, _, held = distribution(np.array([[5, 5, 7], [7, 9, np.nan]]))

    assert held == 3
    values, _, held = distribution(np.full((2, 2), np.nan))
    assert held == 0
    assert np.isnan(values).all()


@pytest.mark.parametrize("seed", range(5))
def test_range_of_many_images_is_near_the_percentiles_of_all_their_pixels(seed):
    rng = np.random.default_rng(seed)
    draws = [
        lambda: rng.integers(0, 900, (64, 64)),
        lambda: np.where(rng.random((64, 64)) < 0.6, -1024, rng.normal(40, 200, (64, 64))),
        lambda: rng.gamma(1, 300, (64, 64)),
    ]
    images = [draws[seed % 3]() for _ in range(20)]

    low, high = pooled_range(quantiles(*images))

    wanted = np.percentile(np.stack(images), (0.1, 99.9))
    assert [low, high] == pytest.approx(wanted.tolist(), abs=0.03 * np.ptp(wanted))


def test_images_count_alike_whatever_their_size():
    large, small = np.linspace(0, 1, 10_000), np.linspace(100, 101, 100)

    low, high = pooled_range(quantiles(large, small))

    assert (low < 0.1, high > 100.9) == (True, True)


def test_rows_without_values_are_left_out_of_a_range():
    some = quantiles(np.linspace(0, 100, 1000), np.full(4, np.nan))

    assert pooled_range(some) == pooled_range(some[:1])
    assert pooled_range(some[1:]) is None
    assert pooled_range(np.zeros((0, len(QUANTILE_LEVELS)))) is None


def test_range_of_one_value_has_a_width():
    assert pooled_range(quantiles(np.full((4, 4), 7))) == (7, 8)


@pytest.mark.parametrize("span", [900, 4095, 65535])
def test_levels_kept_are_those_that_the_picture_shows(span):
    values = np.arange(span + 1).reshape(1, -1)
    _, some, held = distribution(values)
    for low, high in ((0, span), (0, 65535), (0, 10 * span)):
        [kept] = levels_kept(some[None], np.array([held]), low, high)

        assert kept == pytest.approx(len(np.unique(to_grey(values, low, high))), abs=1)
