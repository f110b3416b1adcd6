"""The upscaler's batches: crops, the small images that belong to them, and noise."""

import numpy as np
import pytest
from conftest import phantom_set, textures
from PIL import Image

from kerasmed.data.readers import reduce_image
from kerasmed.diffusion.batches import NoisyBatches
from kerasmed.diffusion.config import UpscalerConfig
from kerasmed.diffusion.crops import NoisyCrops, base_of_crop, validation_crops
from kerasmed.diffusion.enlarge import enlarge, padded, reduce_images
from kerasmed.diffusion.schedule import add_noise
from kerasmed.inference.pixels import DetailRange, PixelRange

RANGES = DetailRange(PixelRange((120.0, 100.0, 90.0), 90.0), 20.0)
SETTINGS = UpscalerConfig(widths=[8], crop_size=16, batch_size=8)


def crops(symmetry="none") -> NoisyCrops:
    return NoisyCrops(RANGES, SETTINGS, symmetry)


def batches(**options) -> NoisyBatches:
    return NoisyBatches(phantom_set(size=32), crops("dihedral"), 3, **options)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (64, 64), (0, 20), (32, 28), (64, 4)])
def test_base_of_a_crop_is_that_of_the_whole_image(top, left):
    (image,) = textures(1, seed=0, size=80)
    whole = reduce_image(Image.fromarray(image), 20)
    np.testing.assert_array_equal(reduce_images(image[None])[0], whole)

    base = base_of_crop(image, top, left, 16)

    y, x = top // 4, left // 4
    np.testing.assert_array_equal(base, padded(whole)[y : y + 8, x : x + 8])
    enlarged = enlarge(padded(whole))[top : top + 16, left : left + 16]
    np.testing.assert_allclose(enlarge(base), enlarged, atol=1e-3)


def test_crop_and_detail_make_the_image():
    """What the network is to predict, added to the enlarged small image, is the real crop."""
    (image,) = textures(1, seed=0)
    drawn = crops()
    draws = [drawn.draw(image, 1, np.random.default_rng(seed)) for seed in range(20)]

    _, clean, _ = drawn.batch(draws)

    for crop, detail in zip(draws, clean, strict=True):
        np.testing.assert_array_equal(RANGES.to_uint8(detail, enlarge(crop.base)), crop.image)
        places = np.lib.stride_tricks.sliding_window_view(image, (16, 16, 3))[::4, ::4]
        assert (places == crop.image).all(axis=(-3, -2, -1)).any()
    assert len({crop.image.tobytes() for crop in draws}) > 5


def test_inputs_are_noisy_detail_and_noisy_small_images():
    (image,) = textures(1, seed=0)
    drawn = crops()
    draws = [drawn.draw(image, 1, np.random.default_rng(seed)) for seed in range(50)]

    inputs, clean, weights = drawn.batch(draws)

    assert list(inputs) == ["noisy_images", "timesteps", "labels", "base_images", "base_noise"]
    assert weights.shape == (50, 1, 1)
    noise = np.stack([crop.noise for crop in draws])
    expected = add_noise(clean, noise, inputs["timesteps"])
    np.testing.assert_array_equal(inputs["noisy_images"], expected)
    small = RANGES.pixels.to_model(np.stack([crop.base[2:-2, 2:-2] for crop in draws]))
    added = (inputs["base_images"] - small).std(axis=(1, 2, 3))
    np.testing.assert_allclose(added, inputs["base_noise"], rtol=0.5, atol=1e-6)
    assert 0 <= inputs["base_noise"].min() < 0.05
    assert 0.15 < inputs["base_noise"].max() <= SETTINGS.base_noise


def test_batch_depends_only_on_seed_and_step():
    inputs, clean, _ = batches()[5]
    again, clean_again, _ = batches(first_step=4)[1]
    np.testing.assert_array_equal(clean_again, clean)
    for key, values in inputs.items():
        np.testing.assert_array_equal(again[key], values)
    shards = [batches(shard=(index, 2))[5] for index in (0, 1)]
    np.testing.assert_array_equal(np.concatenate([shard[1] for shard in shards]), clean)


def test_validation_shows_the_same_crops_at_timesteps_from_end_to_end():
    images = phantom_set(size=32)
    inputs, clean, _ = validation_crops(images, crops("dihedral"), 3)
    again, *_ = validation_crops(images, crops("dihedral"), 3)
    np.testing.assert_array_equal(inputs["noisy_images"], again["noisy_images"])
    assert len(clean) == 120
    assert {inputs["timesteps"].min(), inputs["timesteps"].max()} == {0, 999}
    np.testing.assert_array_equal(inputs["labels"], np.tile(images.labels, 6))
