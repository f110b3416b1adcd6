"""Random numbers, each stream named by its purpose, so that no two streams coincide."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, unique

import numpy as np


@unique
class Purpose(IntEnum):
    """What a stream is for. The number of a purpose never changes."""

    PHANTOM = 1
    DENOISER_WEIGHTS = 2
    DENOISER_ORDER = 3
    DENOISER_SAMPLE = 4
    DENOISER_VALIDATION = 5
    SYNTHETIC_IMAGE = 6
    FIRST_DRAW_ORDER = 7
    RECONSTRUCTION = 8
    CLASSIFIER_WEIGHTS = 9
    CLASSIFIER_ORDER = 10
    CLASSIFIER_AUGMENTATION = 11
    CLASSIFIER_MIXING = 12
    COPY_CALIBRATION = 13
    DETECTION_POWER = 15
    MEMBERSHIP_IMAGES = 16
    MEMBERSHIP_BOOTSTRAP = 17
    COPYING_CLUSTERS = 18
    COPYING_CHOICE = 19
    CLOSER_CHOICE = 20
    INTERVAL = 21
    PERMUTATION = 22
    FIDELITY_CHOICE = 24
    FIDELITY_FREQUENCIES = 25
    CLASS_DISTANCE_CHOICE = 26
    APPEARANCE_CHOICE = 27
    EXPLAINED_IMAGES = 28
    MASKS = 29
    STABILITY = 30
    RANDOM_ORDERS = 31
    SHUFFLED_WEIGHTS = 32
    QUANTIZATION_IMAGES = 33
    CLASSIFIER_PARITY = 34
    DENOISER_PARITY = 35
    MATRIX_PRODUCT = 36
    DENOISER_STREAM = 37
    CLASSIFIER_STREAM = 38
    STRENGTH_INTERVAL = 39
    COPY_DETECTOR = 40
    CLASSIFIER_SYNTHETIC_ORDER = 41
    MEMORISATION_CHOICE = 42
    COVERING_ORDER = 43
    WORTH_INTERVAL = 44
    CURVE_GROUPS = 45
    ORIENTATION = 46
    UPSCALER_WEIGHTS = 50
    UPSCALER_ORDER = 51
    UPSCALER_SAMPLE = 52
    UPSCALER_STREAM = 53
    UPSCALER_VALIDATION = 54
    UPSCALED_IMAGE = 55
    UPSCALER_PARITY = 56


def random_stream(seed: int, purpose: Purpose, *keys: int) -> np.random.Generator:
    """The stream of a purpose, and of one item within it.

    Args:
        seed: seed of the study or the call, 0 or more.
        purpose: what the numbers are for.
        keys: the item, such as a class and the number of an image in it, each 0 or more. A purpose
            always has the same number of keys.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, *keys)))


def derived_seed(seed: int, purpose: Purpose) -> int:
    """A seed for a library that takes a number, such as Keras or scikit-learn: 0 to 2**31 - 1."""
    return int(random_stream(seed, purpose).integers(2**31))


@contextmanager
def initial_weights(seed: int, purpose: Purpose) -> Iterator[None]:
    """Build Keras layers whose weights and dropout depend on this seed only.

    Keras draws the seed of an initialiser from Python's global generator, which is restored.
    """
    before = random.getstate()
    random.seed(derived_seed(seed, purpose))
    try:
        yield
    finally:
        random.setstate(before)
