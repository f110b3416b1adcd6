"""Augmentation of an image, and the parameters that describe it to the network."""

import numpy as np
import pytest

from kerasmed.diffusion.augmentation import PARAMETERS, apply_augmentation, draw_augmentation

SIZE = 16


def gradient() -> np.ndarray:
    """Red rises to the right, green downwards."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[..., 0] = np.arange(SIZE)[None, :] * 10
    image[..., 1] = np.arange(SIZE)[:, None] * 10
    return image


def parameters(log_scale=0.0, angle=0.0, right=0.0, down=0.0) -> np.ndarray:
    """Parameters of a binary logarithm, an angle, and shifts as fractions of the edge."""
    scale, right, down = log_scale / 0.2, right / 0.125, down / 0.125
    return np.array([scale, np.cos(angle) - 1, np.sin(angle), right, down], np.float32)


def inside(image: np.ndarray) -> np.ndarray:
    """The inner pixels, which the mirrored border does not reach."""
    return image[5:-5, 5:-5].astype(float)


def test_without_augmentation_the_parameters_are_zero():
    assert not draw_augmentation(np.random.default_rng(0), 0.0).any()
    image = gradient()
    assert apply_augmentation(image, np.zeros(PARAMETERS, np.float32)) is image


def test_each_kind_is_done_with_its_probability():
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_augmentation(rng, 0.3) for _ in range(2000)])
    for columns in ([0], [1, 2], [3, 4]):
        assert (drawn[:, columns] != 0).any(axis=1).mean() == pytest.approx(0.3, abs=0.04)


def test_parameters_have_similar_deviations():
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_augmentation(rng, 1.0) for _ in range(2000)])
    np.testing.assert_allclose(drawn.std(axis=0), [1, 0.7, 0.7, 1, 1], rtol=0.1)


def test_shift_moves_to_the_right_and_down():
    moved = apply_augmentation(gradient(), parameters(right=2 / SIZE, down=1 / SIZE))
    np.testing.assert_allclose(inside(moved)[..., 0], inside(gradient())[..., 0] - 20, atol=1)
    np.testing.assert_allclose(inside(moved)[..., 1], inside(gradient())[..., 1] - 10, atol=1)


def test_quarter_turn_by_hand():
    turned = apply_augmentation(gradient(), parameters(angle=np.pi / 2))
    np.testing.assert_allclose(turned, np.rot90(gradient(), -1), atol=1)


def test_doubled_scale_halves_the_slope():
    grown = inside(apply_augmentation(gradient(), parameters(log_scale=1.0)))
    np.testing.assert_allclose(np.diff(grown[..., 0], axis=1), 5, atol=1)
    np.testing.assert_allclose(grown.mean(axis=(0, 1)), [75, 75, 0], atol=2)


def test_gaps_are_filled_with_the_mirror_image():
    moved = apply_augmentation(gradient(), parameters(right=4 / SIZE))
    np.testing.assert_allclose(moved[8, :4, 0], [30, 20, 10, 0], atol=1)


def test_no_corner_is_left_empty():
    white, rng = np.full((SIZE, SIZE, 3), 255, np.uint8), np.random.default_rng(0)
    drawn = [apply_augmentation(white, draw_augmentation(rng, 1.0)) for _ in range(300)]
    assert min(image.min() for image in drawn) == 255
