"""Flips and turns."""

import numpy as np
import pytest

from kerasmed.data.symmetry import all_versions, transform_at_random

# 1 2   mirrored  2 1   a quarter turn to the left  2 4
# 3 4             4 3                               1 3
IMAGE = np.array([[1, 2], [3, 4]], dtype=np.uint8)[..., None]
MIRROR = {(1, 2, 3, 4), (2, 1, 4, 3)}
DIHEDRAL = {
    *((1, 2, 3, 4), (2, 4, 1, 3), (4, 3, 2, 1), (3, 1, 4, 2)),
    *((2, 1, 4, 3), (1, 3, 2, 4), (3, 4, 1, 2), (4, 2, 3, 1)),
}
VERSIONS = {"none": {(1, 2, 3, 4)}, "mirror": MIRROR, "dihedral": DIHEDRAL}


def flat(image: np.ndarray) -> tuple[int, ...]:
    return tuple(image.ravel().tolist())


@pytest.mark.parametrize("symmetry", VERSIONS)
def test_all_versions_are_exactly_the_symmetric_ones(symmetry):
    versions = all_versions(IMAGE[None], symmetry)

    assert versions.shape == (1, len(VERSIONS[symmetry]), 2, 2, 1)
    assert versions.dtype == np.uint8
    assert {flat(version) for version in versions[0]} == VERSIONS[symmetry]


@pytest.mark.parametrize("symmetry", VERSIONS)
def test_first_version_is_the_image_itself(symmetry):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)

    np.testing.assert_array_equal(all_versions(images, symmetry)[:, 0], images)


@pytest.mark.parametrize("symmetry", VERSIONS)
def test_random_versions_are_equally_likely(symmetry):
    rng = np.random.default_rng(0)
    draws = [flat(transform_at_random(IMAGE, symmetry, rng)) for _ in range(1600)]

    assert set(draws) == VERSIONS[symmetry]
    expected = 1600 / len(VERSIONS[symmetry])
    for version in VERSIONS[symmetry]:
        assert abs(draws.count(version) - expected) < 5 * np.sqrt(expected)


@pytest.mark.parametrize("symmetry", VERSIONS)
def test_random_version_keeps_dtype_and_shape_and_is_contiguous(symmetry):
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    original = image.copy()

    for seed in range(20):
        version = transform_at_random(image, symmetry, np.random.default_rng(seed))
        assert (version.dtype, version.shape) == (image.dtype, image.shape)
        assert version.flags.c_contiguous
    np.testing.assert_array_equal(image, original)


def test_mirror_works_on_oblong_images():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)

    versions = all_versions(image[None], "mirror")[0]

    np.testing.assert_array_equal(versions[1, :, :, 0], [[2, 1, 0], [5, 4, 3]])


def test_same_generator_same_version():
    draws = [
        [flat(transform_at_random(IMAGE, "dihedral", rng)) for _ in range(10)]
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    ]

    assert draws[0] == draws[1]
