"""Power by band, brightness and contrast, on images whose figures are known."""

import numpy as np
import pytest

from kerasmed.metrics.strength import band_power, octaves, relative_strength

LABELS = np.arange(60) % 2


def waves(amplitude: float, cycles: int, count: int = 60, size: int = 32) -> np.ndarray:
    """Grey waves along a random direction of either axis, around a random brightness."""
    rng = np.random.default_rng(cycles)
    phases = rng.uniform(0, 2 * np.pi, count)[:, None]
    rows = amplitude * np.sin(2 * np.pi * cycles * np.arange(size) / size + phases)
    levels = 128 + rows + 10 * rng.standard_normal((count, 1))
    return np.repeat(np.repeat(levels[:, None], size, 1)[..., None], 3, 3).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "bands"),
    [
        (16, [(1, 1), (2, 3), (4, 8)]),
        (64, [(1, 1), (2, 3), (4, 7), (8, 15), (16, 32)]),
        (48, [(1, 1), (2, 3), (4, 7), (8, 24)]),
    ],
)
def test_bands_are_octaves_up_to_the_highest_frequency(size, bands):
    assert octaves(size) == bands


def test_power_is_in_the_band_of_the_wave():
    powers = band_power(waves(40, 5)).mean(axis=0)
    assert powers.argmax() == 2
    assert powers[2] > 100 * np.delete(powers, 2).max()


def test_power_is_that_of_the_fourier_transform_by_hand():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    grey = image @ [0.299, 0.587, 0.114] / 255
    total, count = 0.0, 0
    for u in range(16):
        for v in range(16):
            down, right = (k - 16 if k > 7 else k for k in (u, v))
            if 2 <= round(np.hypot(down, right)) <= 3:
                wave = np.exp(-2j * np.pi * (u * np.arange(16)[:, None] + v * np.arange(16)) / 16)
                total += abs((grey * wave).sum()) ** 2 / 256
                count += 1
    assert band_power(image[None])[0, 1] == pytest.approx(total / count)


def test_set_against_itself_is_one_and_half_the_amplitude_a_quarter():
    full, half = waves(40, 5), waves(20, 5)
    same = relative_strength(full, LABELS, full, LABELS)
    assert [band["ratio"] for band in same["bands"]] == [1.0] * 4
    halved = relative_strength(half, LABELS, full, LABELS)
    band = halved["bands"][2]
    assert (band["first"], band["last"]) == (4, 7)
    assert band["ratio"] == pytest.approx(0.25, rel=0.02)
    assert band["interval"][0] <= band["ratio"] <= band["interval"][1]
    assert halved["contrast"]["ratio"] == pytest.approx(0.5, rel=0.02)
    assert halved["brightness"]["ratio"] == pytest.approx(1.0, rel=0.02)


def test_one_group_has_no_interval():
    images, labels = waves(40, 5, 30), np.zeros(30, int)
    compared = relative_strength(images, labels, images, labels, np.zeros(30, int))
    assert (compared["contrast"]["ratio"], compared["contrast"]["interval"]) == (1.0, None)


def test_frequency_of_a_class_does_not_matter():
    images = np.concatenate([waves(40, 5, 30), waves(40, 9, 30)])
    labels = np.repeat([0, 1], 30)
    fewer = np.concatenate([np.arange(30), np.arange(30, 35)])
    compared = relative_strength(images[fewer], labels[fewer], images, labels)
    assert [band["ratio"] for band in compared["bands"]][2:] == pytest.approx([1, 1], rel=0.05)


def test_interval_holds_the_truth_and_widens_with_groups():
    rng = np.random.default_rng(1)
    images = np.concatenate([waves(a, 5, 6) for a in rng.uniform(20, 60, 40)])
    groups, labels = np.repeat(np.arange(40), 6), np.zeros(240, int)
    first, second = groups < 20, groups >= 20
    grouped, single = (
        relative_strength(images[first], labels[first], images[second], labels[second], *chosen)[
            "bands"
        ][2]
        for chosen in ((groups[first], groups[second]), ())
    )
    assert grouped["interval"][0] < 1 < grouped["interval"][1]
    widths = [band["interval"][1] - band["interval"][0] for band in (grouped, single)]
    assert widths[0] > 1.5 * widths[1]
    assert grouped["ratio"] == single["ratio"]
