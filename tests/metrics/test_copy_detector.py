"""Copies among new images, without the threshold of the copy filter."""

import numpy as np
import pytest
from conftest import textures
from scipy import ndimage
from skimage.feature import hog

from kerasmed.errors import InputError
from kerasmed.metrics.copy_detector import (
    CopyDetector,
    features_of_flips,
    features_of_moves,
    gradient_features,
)
from kerasmed.metrics.detection_power import ALTERATIONS, PLANTED, detection_power


@pytest.fixture(scope="module")
def train():
    return textures(30, 1)


@pytest.fixture(scope="module")
def detector(train):
    return CopyDetector.of_images(train, textures(70, 2), np.arange(70), seed=0)


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_altered_copies_are_found_and_named(alteration, train, detector):
    rng = np.random.default_rng(0)
    altered = np.stack([ALTERATIONS[alteration](image, rng) for image in train[:10]])

    ratios, positions = detector.score(altered)

    assert (ratios < detector.threshold).mean() >= 0.9
    assert positions.tolist() == list(range(10))


def test_every_flip_and_turn_is_as_good_as_the_copy_itself(train, detector):
    versions = np.stack([np.rot90(train[4][:, ::-1], turn) for turn in range(4)])

    ratios, positions = detector.score(versions)

    assert ratios.max() < 0.01
    assert positions.tolist() == [4] * 4


def test_new_images_are_no_copies_and_are_as_near_to_either_side(detector):
    ratios, _ = detector.score(textures(40, 3))

    assert (ratios < detector.threshold).sum() == 0
    assert np.median(ratios) == pytest.approx(1, abs=0.05)
    assert len(detector.fresh) == 40  # as many are compared with as there are training images
    assert (detector.fresh < detector.threshold).sum() <= 1


def test_image_that_is_in_both_sets_is_no_copy(train):
    """A picture that every scanner makes, such as an empty slice."""
    reserve = np.concatenate([train[:1], textures(69, 2)])
    groups = np.zeros(70, int)
    groups[1:] = np.arange(69) // 6

    for seed in range(4):
        detector = CopyDetector.of_images(train, reserve, groups, seed)
        if detector.score(train[:1]).ratios[0] > 0.9:
            return
    raise AssertionError("in half of the seeds the first group is compared with")


def test_batches_and_order_change_nothing(train, detector, monkeypatch):
    images = np.concatenate([train[:5], textures(6, 4)])
    at_once = detector.score(images).ratios
    monkeypatch.setattr("kerasmed.metrics.copy_detector._BATCH", 4)

    np.testing.assert_allclose(detector.score(images[::-1]).ratios[::-1], at_once, rtol=1e-4)


def test_a_group_is_on_one_side_only():
    """Slices of a patient in both halves would hide how near real images come."""
    train, patients = textures(20, 1), textures(12, 2)
    slices = np.repeat(patients, 5, axis=0)

    grouped = CopyDetector.of_images(train, slices, np.repeat(np.arange(12), 5), seed=0)
    single = CopyDetector.of_images(train, slices, np.arange(60), seed=0)

    assert np.median(single.fresh) > 100  # its twin is among the others
    assert np.median(grouped.fresh) < 2


@pytest.mark.parametrize("size", [16, 28, 64, 100])
def test_features_of_any_size(size):
    images = np.random.default_rng(0).random((2, size, size), np.float32)

    features = gradient_features(images)

    assert features.shape == (2, 1764)
    assert features.dtype == np.float32
    np.testing.assert_allclose(gradient_features(images * 0.5 + 0.2), features, atol=1e-3)


def test_too_few_images_or_groups_are_refused(train):
    with pytest.raises(InputError, match="at least 20 reserve images, received 12"):
        CopyDetector.of_images(train, textures(12, 2), np.arange(12), 0)
    with pytest.raises(InputError, match="at least 5 groups"):
        CopyDetector.of_images(train, textures(40, 2), np.arange(40) // 10, 0)


def test_power_is_given_by_alteration(train, detector):
    rows = detection_power(detector, train)

    assert [row["alteration"] for row in rows] == list(ALTERATIONS)
    assert {row["planted"] for row in rows} == {min(PLANTED, len(train))}
    assert rows[0]["found"] == 1
    assert detection_power(detector, train) == rows
    blind = CopyDetector.of_images(train, textures(70, 2), np.arange(70), seed=0)
    blind.threshold = 0.0
    assert {row["found"] for row in detection_power(blind, train)} == {0}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_alterations_keep_size_and_dtype(alteration, train):
    altered = ALTERATIONS[alteration](train[0], np.random.default_rng(0))

    assert (altered.shape, altered.dtype) == (train[0].shape, np.uint8)
    assert (alteration == "exact") == np.array_equal(altered, train[0])


@pytest.mark.parametrize("size", [16, 37, 64])
def test_features_are_those_of_scikit_image(size):
    images = textures(5, 0, size) @ np.float32([0.299, 0.587, 0.114])
    block = size // 8
    blurred = ndimage.gaussian_filter(images, (0, size / 64, size / 64))[
        :, : 8 * block, : 8 * block
    ]
    expected = [hog(image, 9, (block, block), (2, 2)) for image in blurred]
    np.testing.assert_allclose(gradient_features(images), expected, atol=1e-5)


def test_candidates_hold_the_nearest_images():
    """As if each image had been compared in full with all others."""
    train, others, fresh, images = (
        features_of(textures(count, seed))
        for features_of, count, seed in (
            (features_of_flips, 150, 0), (features_of_flips, 150, 1),
            (features_of_moves, 20, 2), (features_of_moves, 40, 3),
        )
    )  # fmt: skip
    scores = CopyDetector(train, others, [fresh]).compare(images)
    mean = (train.mean(axis=(0, 1)) + others.mean(axis=(0, 1))) / 2
    train, others, images = (x - mean for x in (train, others, images))
    for x in (train, others, images):
        x /= np.linalg.norm(x, axis=-1, keepdims=True)
    to_train, to_others = (
        1 - np.tensordot(images, x, (2, 2)).max(axis=(1, 3)) for x in (train, others)
    )
    errors = scores.ratios / (to_train.min(axis=1) / to_others.min(axis=1)) - 1
    assert np.abs(errors).mean() < 0.002  # random textures, all about as near as each other
    assert np.mean(scores.positions == to_train.argmin(axis=1)) > 0.95
