"""Copies and membership over image sets."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import phantom_set

from kerasmed.audit import privacy
from kerasmed.audit.privacy import (
    chance_to_notice,
    membership_of_training_images,
    more_copies_than,
    pixels_of_versions,
    search_copies,
)
from kerasmed.data.image_set import ImageSet
from kerasmed.data.symmetry import all_versions
from kerasmed.diffusion.reconstruction import TIMESTEPS
from kerasmed.errors import InputError
from kerasmed.inference.pixels import PixelRange
from kerasmed.metrics.memorisation import comparison_pixels


@pytest.fixture(scope="module")
def sets() -> tuple[ImageSet, ImageSet, ImageSet]:
    """Training, reserve and synthetic images, of which the first two synthetic ones are copies."""
    phantoms = phantom_set(per_class=40)
    train, reserve, synthetic = (phantoms.subset(np.arange(start, 80, 3)) for start in range(3))
    images = np.array(synthetic.images)
    images[:2] = train.images[[5, 7]][:, :, ::-1]
    return train, reserve, replace(synthetic, images=images)


def searched(sets, copy_filter=None) -> dict:
    return search_copies(*sets, np.arange(len(sets[1])), {}, copy_filter, seed=0)


def test_copies_are_found_whatever_the_filter_of_the_sampling_let_through(sets):
    record = {"calibration": {}, "drawn": 30, "rejected": 3}

    result = searched(sets, record)

    found = {(pair["synthetic"], pair["train"]) for pair in result["found"]}
    assert {(0, 5), (1, 7)} <= found
    assert len(found) <= 3
    assert result["found"][:2] == result["nearest_pairs"][:2]
    assert (result["filter"], result["images"]) == (record, len(sets[2]))
    assert result["identical"] == {"train": 2, "reserve": 0}  # also mirrored
    assert result["fresh"]["copies"] == 0
    assert {**searched(sets), "filter": record} == result


def test_more_copies_than_among_real_images_are_noticed():
    fresh = {"images": 200, "copies": 1}

    assert more_copies_than(fresh, 1, 200) > 0.5
    assert more_copies_than(fresh, 8, 200) < 0.05


def test_chance_to_notice_copies_grows_with_their_number_and_the_sensitivity():
    fresh = {"images": 900, "copies": 0}

    chances = [chance_to_notice(fresh, fraction, 1000, 0.8) for fraction in (0.001, 0.01, 0.05)]

    assert chances == sorted(chances)
    assert chances[0] == 0  # a single one is not more than chance
    assert chances[2] == pytest.approx(1)
    assert chance_to_notice(fresh, 0.01, 1000, 0.2) < chances[1]


def test_too_few_synthetic_images_are_refused(sets):
    with pytest.raises(InputError, match="at least 20 synthetic images, received 5"):
        searched((*sets[:2], sets[2].subset(np.arange(5))))


def test_denoiser_that_restores_only_its_training_images_is_found_out(sets):
    train, reserve, _ = sets
    pixels = PixelRange((127.5,) * 3, 127.5)
    known = np.stack([pixels.to_model(image) for image in train.images])

    def denoiser(noisy: np.ndarray, timesteps: np.ndarray, labels: np.ndarray) -> np.ndarray:
        distances = np.square(noisy[:, None] - known).mean(axis=(2, 3, 4))
        return known[distances.argmin(axis=1)]

    groups = {"train": np.arange(len(train)), "reserve": np.arange(len(reserve))}
    result = membership_of_training_images(denoiser, pixels, train, reserve, groups, seed=0)

    assert result["n_members"] == result["n_others"] == min(len(train), len(reserve))
    assert [row["timestep"] for row in result["levels"]] == [*TIMESTEPS, "all"]
    assert result["levels"][0]["auc"] > 0.95


def test_versions_in_batches_are_those_of_all_images_at_once(monkeypatch):
    images = phantom_set(per_class=5).images
    monkeypatch.setattr(privacy, "_BATCH", 4)

    np.testing.assert_array_equal(
        pixels_of_versions(images, "dihedral"), comparison_pixels(all_versions(images, "dihedral"))
    )
