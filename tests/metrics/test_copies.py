"""The search for copies, and what it finds of planted ones."""

import numpy as np
import pytest
from conftest import textures

from kerasmed.errors import InputError
from kerasmed.metrics.copies import CopyFilter, CopySearch, calibrate, copy_threshold
from kerasmed.metrics.detection_power import ALTERATIONS


@pytest.fixture(scope="module")
def training():
    return textures(40, 1)


@pytest.fixture(scope="module")
def calibration(training):
    return calibrate(CopySearch(training), textures(60, 2), textures(60, 7), seed=0)


@pytest.fixture(scope="module")
def copies(training, calibration):
    return CopyFilter(CopySearch(training), calibration["threshold"])


@pytest.mark.parametrize("size", [16, 32, 48, 64])
def test_exact_copy_has_similarity_one_and_is_named(size):
    training = textures(12, 3, size)

    similarities, positions = CopySearch(training).nearest(training[[7, 2]])

    np.testing.assert_allclose(similarities, 1, atol=1e-4)
    assert positions.tolist() == [7, 2]


@pytest.mark.parametrize(
    "alteration",
    ["exact", "mirrored", "brightened by 30%", "rotated by 2 to 8 degrees", "JPEG of quality 40"],
)
def test_altered_copies_are_found(alteration, training, copies):
    alter, rng = ALTERATIONS[alteration], np.random.default_rng(0)
    altered = np.stack([alter(training[i], rng) for i in range(8)])

    matches = copies.find(altered)

    assert [copy.position for copy in matches] == list(range(8))


def test_blends_of_two_are_found(training, copies):
    blended = (training[:8].astype(np.uint16) + training[8:16]) // 2

    matches = copies.find(blended.astype(np.uint8))

    assert all(copy.position in (i, i + 8) for i, copy in enumerate(matches))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_every_flip_and_turn_is_as_good_as_the_copy_itself(flipped, turns, training):
    image = np.rot90(training[5][:, ::-1] if flipped else training[5], turns)

    similarities, positions = CopySearch(training).nearest(image[None])

    assert similarities[0] == pytest.approx(1, abs=1e-4)
    assert positions.tolist() == [5]


def test_shifted_copy_is_found_up_to_its_reach(training, copies):
    shifted = np.roll(training[4], (3, -2), axis=(0, 1))

    assert copies.find(shifted[None])[0].position == 4


def test_brightness_and_contrast_change_nothing(training):
    search = CopySearch(training)
    faint = (training[3] // 2 + 60).astype(np.uint8)

    assert search.nearest(faint[None])[0][0] > 0.99


def test_strangers_are_no_copies(copies):
    assert sum(copy is not None for copy in copies.find(textures(100, 9))) <= 1


def test_constant_image_is_like_nothing(training):
    similarities, _ = CopySearch(training).nearest(np.full((1, 32, 32, 3), 90, np.uint8))

    assert similarities[0] < 0.1


def test_similarity_of_an_image_does_not_depend_on_the_others(training):
    search, images = CopySearch(training), textures(6, 4)

    together, _ = search.nearest(images)

    alone = [search.nearest(image[None])[0][0] for image in images]
    assert together.tolist() == alone


def test_threshold_by_hand_and_in_spite_of_twins():
    natural = np.tanh(np.linspace(0.1, 0.5, 101))

    # Median 0.3 and 16th percentile 0.164 on Fisher's scale.
    assert copy_threshold(natural) == pytest.approx(np.tanh(0.3 + 5 * 0.136))
    with_twins = np.concatenate([natural, np.full(5, 0.99)])
    assert copy_threshold(with_twins) < np.tanh(1.15)


def test_too_few_reserve_images_are_refused(training):
    with pytest.raises(InputError, match="expected at least 20 reserve images"):
        calibrate(CopySearch(training), textures(19, 2), textures(60, 7), seed=0)


def test_reserve_images_of_the_same_patients_do_not_blind_the_search(training):
    search = CopySearch(training)
    # Every other reserve image shows a training image again, with some noise.
    noise = np.random.default_rng(5).normal(0, 12, (40, 32, 32, 1))
    same = np.clip(training + noise, 0, 255).astype(np.uint8)
    drawn = np.concatenate([textures(60, 7), training[:2]])

    calibration = calibrate(search, np.concatenate([textures(20, 2), same]), drawn, seed=0)

    assert calibration["reserve"]["threshold"] > 0.99
    assert calibration["threshold"] == calibration["drawn"]["threshold"] < 0.9
    assert calibration["drawn"]["above"] == pytest.approx(2 / 62)
    matches = CopyFilter(search, calibration["threshold"]).find(drawn)
    assert sum(copy is not None for copy in matches) == 2


def test_model_that_draws_little_else_than_copies_does_not_hide_them(training):
    search = CopySearch(training)

    calibration = calibrate(search, textures(60, 2), np.repeat(training[:30], 2, axis=0), seed=0)

    assert calibration["threshold"] == calibration["reserve"]["threshold"] < 0.9
    assert calibration["drawn"]["above"] == 1
