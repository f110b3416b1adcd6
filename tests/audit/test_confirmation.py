"""Classifiers that learned from real images confirm synthetic ones."""

import numpy as np
import pytest

from kerasmed.audit.confirmation import Confirmation
from kerasmed.errors import InputError


def made(count: int = 300, noise: float = 0.4, seed: int = 0):
    rng, labels = np.random.default_rng(seed), np.arange(count) % 3
    return rng.normal(np.eye(3)[labels], noise), labels


def test_images_of_their_class_are_confirmed_and_others_are_not():
    features, labels = made()
    confirmation = Confirmation(features, labels, np.arange(300), 3)
    new, of_new = made(seed=1)
    given = confirmation.probabilities(new)[np.arange(300), of_new]
    wrong = confirmation.probabilities(new)[np.arange(300), (of_new + 1) % 3]
    assert np.mean(given > 0.5) > 0.8
    assert np.mean(wrong > 0.5) < 0.1


def test_probabilities_are_calibrated():
    features, labels = made(900, 0.7)
    probabilities = Confirmation(features, labels, np.arange(900), 3).probabilities(
        (new := made(3000, 0.7, seed=2))[0]
    )
    highest = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == new[1]
    assert highest.mean() == pytest.approx(is_right.mean(), abs=0.03)


def test_a_copy_is_not_judged_by_a_classifier_that_knows_it():
    """Labels at random: who learned them knows each image, who did not can only guess."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(200, 400)), rng.integers(2, size=200)
    patients = np.arange(200) // 4
    confirmation = Confirmation(features, labels, patients, 2)
    confirmed = confirmation.probabilities(features)[np.arange(200), labels] > 0.5
    assert confirmed.mean() < 0.65


def test_a_class_of_few_patients_is_refused():
    features, labels = made(60)
    groups = np.where(labels == 2, labels, np.arange(60) + 10)
    with pytest.raises(InputError, match="received 1 of class 2"):
        Confirmation(features, labels, groups, 3)
