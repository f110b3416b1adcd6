"""Spectra and histograms against cases that can be worked out."""

from dataclasses import replace

import numpy as np
import pytest

from kerasmed.audit.appearance import (
    appearance,
    appearance_of_sets,
    intensity_histogram,
    power_spectrum,
)


def grey(values: np.ndarray) -> np.ndarray:
    """One RGB image of the grey values (size, size)."""
    return np.repeat(values[None, ..., None], 3, axis=3).round().astype(np.uint8)


@pytest.mark.parametrize("cycles", [1, 3, 8])
@pytest.mark.parametrize("across", [False, True])
def test_wave_has_its_power_at_its_frequency(cycles, across):
    wave = 128 + 100 * np.sin(2 * np.pi * cycles * np.arange(32) / 32)
    image = np.tile(wave, (32, 1))

    spectrum = power_spectrum(grey(image.T if across else image))

    assert len(spectrum) == 16
    assert spectrum.argmax() == cycles - 1
    assert spectrum[cycles - 1] > 0.99 * spectrum.sum()


def test_power_of_noise_is_its_variance_at_every_frequency():
    noise = np.random.default_rng(0).normal(128, 20, (40, 32, 32))

    spectrum = power_spectrum(np.concatenate([grey(values) for values in noise]))

    np.testing.assert_allclose(spectrum, (20 / 255) ** 2, rtol=0.35)
    assert spectrum.mean() == pytest.approx((20 / 255) ** 2, rel=0.05)


def test_histogram_by_hand():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[1, ..., 0] = 255
    images[:, :, 0, 1] = 7

    red, green, blue = intensity_histogram(images)

    assert (red[0], red[63]) == (0.5, 0.5)
    assert (green[0], green[1]) == (0.75, 0.25)
    assert (blue[0], blue.sum()) == (1.0, 1.0)


def test_appearance_is_plain_lists_and_repeats():
    images = np.random.default_rng(1).integers(0, 256, (2100, 8, 8, 3)).astype(np.uint8)

    result = appearance(images, seed=3)

    assert result == appearance(images, seed=3) != appearance(images, seed=4)
    assert (len(result["spectrum"]), np.shape(result["histogram"])) == (4, (3, 64))


def test_strength_is_relative_to_reserve(phantoms):
    blurred = replace(phantoms, images=(phantoms.images // 2 + 64).astype(np.uint8))
    sets = {"reserve": phantoms, "train": phantoms, "synthetic": blurred}
    groups = {name: np.arange(len(phantoms)) // 2 for name in ("reserve", "train")}
    strength = appearance_of_sets(sets, groups)["strength"]
    assert [band["ratio"] for band in strength["train"]["bands"]] == [1.0] * 3
    ratios = [band["ratio"] for band in strength["synthetic"]["bands"]]
    assert ratios == pytest.approx([0.25] * 3, rel=0.05)
    assert strength["synthetic"]["brightness"]["ratio"] == pytest.approx(0.5, rel=0.02)
