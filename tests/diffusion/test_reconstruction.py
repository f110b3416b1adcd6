"""How well given images are restored."""

import numpy as np
import pytest

from kerasmed.diffusion.reconstruction import TIMESTEPS, reconstruction_errors
from kerasmed.diffusion.schedule import alphas_cumprod
from kerasmed.inference.pixels import PixelRange

PIXELS = PixelRange((128.0, 128.0, 128.0), 128.0)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
LABELS = np.array([1, 0, 1])


def test_perfect_denoiser_makes_no_error_and_knows_class_and_timestep():
    calls = []

    def denoiser(x_t, timesteps, labels):
        calls.append((timesteps.tolist(), set(labels.tolist())))
        return np.broadcast_to(PIXELS.to_model(IMAGES[len(calls) - 1]), x_t.shape)

    errors = reconstruction_errors(denoiser, PIXELS, IMAGES, LABELS, seed=0)

    assert errors.shape == (3, len(TIMESTEPS))
    assert not errors.any()
    assert [labels for _, labels in calls] == [{1}, {0}, {1}]
    assert sorted(set(calls[0][0])) == list(TIMESTEPS)


def test_error_of_a_denoiser_that_does_nothing_is_that_of_the_noise():
    image = np.full((1, 32, 32, 3), 128, np.uint8)  # 0 to the model

    errors = reconstruction_errors(lambda x_t, *_: x_t, PIXELS, image, LABELS[:1], seed=0)

    np.testing.assert_allclose(errors[0], 1 - alphas_cumprod()[list(TIMESTEPS)], rtol=0.1)


def test_errors_depend_only_on_seed_and_position():
    def errors(images, seed):
        return reconstruction_errors(lambda x_t, *_: x_t, PIXELS, images, LABELS, seed)

    np.testing.assert_array_equal(errors(IMAGES[:2], 4), errors(IMAGES, 4)[:2])
    assert errors(IMAGES, 4) != pytest.approx(errors(IMAGES, 5))
