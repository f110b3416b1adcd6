import numpy as np
import pytest

from kerasmed.diffusion.batches import (
    NoisyBatches,
    NoisyImages,
    loss_weights,
    noisy_batch,
    validation_batch,
)
from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.diffusion.schedule import alphas_cumprod
from kerasmed.inference.pixels import PixelRange

PIXELS = PixelRange((120.0, 120.0, 120.0), 90.0)


def test_weights_are_clipped_signal_to_noise():
    weights = loss_weights(np.array([0, 500, 999]), gamma=5.0, floor=0.05)
    signal = alphas_cumprod()[500]
    np.testing.assert_allclose(weights, [5.0, signal / (1 - signal), 0.05], rtol=1e-5)


def test_noisy_batch_mixes_by_the_schedule():
    clean, noise = np.full((1, 2, 2, 3), 0.5, np.float32), np.ones((1, 2, 2, 3), np.float32)
    inputs, target, _ = noisy_batch(clean, noise, np.array([300]), np.array([1]), DiffusionConfig())
    signal = alphas_cumprod()[300]
    expected = np.sqrt(signal) * 0.5 + np.sqrt(1 - signal)
    np.testing.assert_allclose(inputs["noisy_images"], expected, rtol=1e-5)
    np.testing.assert_array_equal(target, clean)


def test_errors_are_weighted_by_the_settings():
    settings, at = DiffusionConfig(min_snr_gamma=4, min_snr_floor=0.1), np.array([0, 500, 999])
    images = np.zeros((3, 2, 2, 3), np.float32)
    *_, weights = noisy_batch(images, images, at, np.zeros(3, int), settings)
    assert weights.shape == (3, 1, 1)
    np.testing.assert_array_equal(weights[:, 0, 0], loss_weights(at, gamma=4, floor=0.1))
    assert weights[0] == 4
    assert weights[2] == np.float32(0.1)


def test_validation_shows_each_image_with_its_label_at_timesteps_from_end_to_end(phantoms):
    inputs, clean, _ = validation_batch(phantoms, PIXELS, DiffusionConfig(), seed=3)
    again, *_ = validation_batch(phantoms, PIXELS, DiffusionConfig(), seed=3)
    np.testing.assert_array_equal(inputs["noisy_images"], again["noisy_images"])
    np.testing.assert_array_equal(clean[:20], PIXELS.to_model(phantoms.images))
    assert len(clean) == 120
    np.testing.assert_array_equal(inputs["labels"], np.tile(phantoms.labels, 6))
    assert {inputs["timesteps"].min(), inputs["timesteps"].max()} == {0, 999}


def test_batch_depends_only_on_seed_and_step(phantoms):
    settings = DiffusionConfig(batch_size=8)
    whole = NoisyBatches(phantoms, NoisyImages(2, PIXELS, settings, "mirror"), seed=3)
    for _ in range(4):
        whole[_]
    resumed = NoisyBatches(
        phantoms, NoisyImages(2, PIXELS, settings, "mirror"), seed=3, first_step=4
    )
    for key in ("noisy_images", "timesteps", "labels"):
        np.testing.assert_array_equal(whole[5][0][key], resumed[1][0][key])
    other = NoisyBatches(phantoms, NoisyImages(2, PIXELS, settings, "mirror"), seed=4)
    assert not np.array_equal(whole[5][0]["timesteps"], other[5][0]["timesteps"])


def test_shards_of_a_batch_are_the_whole_one(phantoms):
    settings = DiffusionConfig(batch_size=8)
    arguments = (phantoms, NoisyImages(2, PIXELS, settings, "mirror"), 3, 4)
    inputs, clean, weights = NoisyBatches(*arguments)[2]
    shards = [NoisyBatches(*arguments, shard=(index, 2))[2] for index in (0, 1)]
    for key, whole in inputs.items():
        np.testing.assert_array_equal(np.concatenate([shard[0][key] for shard in shards]), whole)
    np.testing.assert_array_equal(np.concatenate([shard[1] for shard in shards]), clean)
    np.testing.assert_array_equal(np.concatenate([shard[2] for shard in shards]), weights)


def test_an_epoch_shows_every_image_once(phantoms):
    settings = DiffusionConfig(batch_size=10, label_dropout=0)
    batches = NoisyBatches(phantoms, NoisyImages(2, PIXELS, settings, "none"), 0)
    clean = np.concatenate([PIXELS.to_uint8(batches[i][1]) for i in range(2)])
    assert {image.tobytes() for image in clean} == {image.tobytes() for image in phantoms.images}


@pytest.mark.parametrize(("dropout", "fraction"), [(0.0, 0.0), (0.3, 0.3)])
def test_labels_are_dropped_at_the_given_rate(phantoms, dropout, fraction):
    settings = DiffusionConfig(batch_size=100, label_dropout=dropout)
    batches = NoisyBatches(phantoms, NoisyImages(2, PIXELS, settings, "none"), 0)
    labels = np.concatenate([batches[i][0]["labels"] for i in range(10)])
    assert abs((labels == 2).mean() - fraction) < 0.05
