"""Membership over image sets."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import phantom_set

from kerasmed.audit import privacy
from kerasmed.audit.privacy import membership_of_training_images, pixels_of_versions
from kerasmed.data.image_set import ImageSet
from kerasmed.data.symmetry import all_versions
from kerasmed.diffusion.reconstruction import TIMESTEPS
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
    monkeypatch.setattr(privacy, "_PIXELS_AT_ONCE", 4 * 16**2)

    np.testing.assert_array_equal(
        pixels_of_versions(images, "dihedral"), comparison_pixels(all_versions(images, "dihedral"))
    )
