"""The cosine schedule."""

import math

import numpy as np
import pytest

from kerasmed.diffusion.schedule import NUM_TIMESTEPS, alphas_cumprod


def test_one_float64_for_each_timestep():
    signal = alphas_cumprod()

    assert signal.shape == (NUM_TIMESTEPS,) == (1000,)
    assert signal.dtype == np.float64


def test_signal_stays_strictly_between_0_and_1():
    signal = alphas_cumprod()

    assert signal.min() > 0
    assert signal.max() < 1


def test_signal_falls_at_every_timestep():
    assert (np.diff(alphas_cumprod()) < 0).all()


# t, counted from 1; by hand, t = 496 is where (t / 1000 + 0.008) / 1.008 is one half.
@pytest.mark.parametrize(
    ("t", "expected"),
    [
        (496, 0.5),
        (160, math.cos(math.pi / 12) ** 2),
        (832, math.cos(5 * math.pi / 12) ** 2),
        (1, math.cos(math.pi / 2 * 0.009 / 1.008) ** 2),
        (1000, math.cos(0.49975 * math.pi) ** 2),
    ],
)
def test_closed_form(t, expected):
    assert alphas_cumprod()[t - 1] == pytest.approx(expected, rel=1e-9)


def test_first_and_last_timestep_are_nearly_clean_and_nearly_noise():
    signal = alphas_cumprod()

    assert signal[0] > 0.999
    assert signal[-1] < 1e-4


def test_schedule_is_symmetric_about_its_middle():
    # cos^2 and sin^2: the signal at 496 - k is the noise at 496 + k.
    signal = alphas_cumprod()

    np.testing.assert_allclose(signal[495 - 400 : 495], 1 - signal[496 : 496 + 400][::-1])


def test_callers_cannot_change_each_others_schedule():
    alphas_cumprod()[:] = 0

    assert alphas_cumprod()[0] > 0.999
