"""Enlarging images with a network: seeds, batches and tiles."""

import numpy as np
import pytest

from kerasmed.diffusion.config import UpscalerConfig
from kerasmed.diffusion.enlarge import enlarge, padded
from kerasmed.diffusion.unet import build_upscaler, reach
from kerasmed.diffusion.upscale import in_tiles, upscale_images, upscaling_timesteps
from kerasmed.inference.pixels import DetailRange, PixelRange

RANGES = DetailRange(PixelRange((120.0, 100.0, 90.0), 90.0), 20.0)
SETTINGS = UpscalerConfig(widths=[4, 8], crop_size=16)


@pytest.fixture(scope="module")
def network():
    """An upscaler whose weights are not zero anywhere, as a function on arrays."""
    model = build_upscaler(2, SETTINGS)
    rng = np.random.default_rng(0)
    model.set_weights([w + 0.1 * rng.standard_normal(w.shape) for w in model.get_weights()])
    return lambda *arrays: np.asarray(model([*arrays], training=False))


def inputs(height, width, batch=2):
    rng = np.random.default_rng(0)
    return (
        rng.standard_normal((batch, height, width, 3), np.float32),
        np.full(batch, 300, np.int32),
        np.arange(batch, dtype=np.int32),
        rng.standard_normal((batch, height // 4, width // 4, 3), np.float32),
        np.full(batch, 0.1, np.float32),
    )


def small_images(count=5, size=8):
    return np.random.default_rng(0).integers(60, 200, (count, size, size, 3), np.uint8)


def upscaled(network, wanted, seed=0, batch_size=4, **options):
    base = small_images()[[index for _, index, *_ in wanted]]
    timesteps = upscaling_timesteps(3)
    return np.stack(
        [
            image
            for _, _, image in upscale_images(
                network, RANGES, base, wanted, seed, timesteps, batch_size=batch_size, **options
            )
        ]
    )


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4])
def test_every_input_reaches_the_output(network, position):
    arrays = inputs(16, 24)
    before = network(*arrays)
    assert before.shape == (2, 16, 24, 3)
    changed = [array + (index == position) for index, array in enumerate(arrays)]
    changed = [new.astype(old.dtype) for new, old in zip(changed, arrays, strict=True)]
    assert np.abs(network(*changed) - before).max() > 1e-3


@pytest.mark.parametrize(("height", "width", "tile"), [(96, 264, 64), (40, 32, 16), (16, 16, 8)])
def test_tiles_make_the_whole_image(network, height, width, tile):
    arrays = inputs(height, width)
    sizes = []

    def watched(noisy, *others):
        sizes.append(noisy.shape[1:3])
        return network(noisy, *others)

    tiled = in_tiles(watched, tile, reach(SETTINGS), SETTINGS.stride)(*arrays)

    np.testing.assert_allclose(tiled, network(*arrays), atol=1e-4)
    assert len(sizes) == -(-height // tile) * -(-width // tile)
    assert max(map(max, sizes)) <= tile + 2 * (reach(SETTINGS) + SETTINGS.stride)


@pytest.mark.parametrize("stride", [1, 2])
def test_tiles_are_whole_pixels_of_the_small_image(stride):
    def network(noisy, timesteps, labels, base, base_noise):
        return noisy + base.repeat(4, axis=1).repeat(4, axis=2)

    arrays = inputs(24, 40)
    tiled = in_tiles(network, 10, 3, stride)(*arrays)
    np.testing.assert_array_equal(tiled, network(*arrays))


def test_reach_is_enough_and_not_much_more(network):
    """A pixel of the small image or of the noise changes nothing farther away."""
    size = 4 * (reach(SETTINGS) // 4 + 4) * 2
    arrays = inputs(size, size, batch=1)
    before, middle = network(*arrays), size // 2
    farthest = 0
    for position, at in ((0, middle), (3, middle // 4)):
        changed = [array.copy() for array in arrays]
        changed[position][:, at, at] += 1e3
        rows = np.abs(network(*changed) - before).max(axis=(0, 2, 3)).nonzero()[0]
        farthest = max(farthest, middle - rows.min(), rows.max() - middle)
    assert reach(SETTINGS) / 2 < farthest <= reach(SETTINGS)


def test_image_depends_on_its_seed_only(network):
    wanted = [(0, 0), (0, 1), (1, 2), (1, 3), (0, 4)]
    whole = upscaled(network, wanted)
    assert whole.shape == (5, 32, 32, 3)
    chosen = upscaled(network, [wanted[3], wanted[0]], batch_size=1)
    assert np.abs(chosen.astype(int) - whole[[3, 0]]).max() <= 1
    assert not np.array_equal(upscaled(network, wanted, seed=1), whole)
    again = upscaled(network, [(*wanted[0], 1)])
    assert not np.array_equal(again[0], whole[0])
    noisier = upscaled(network, wanted, base_noise=0.2)
    assert not np.array_equal(noisier, whole)


def test_predicted_detail_is_added_and_grey_levels_stay_in_range():
    for detail in (0.0, 0.3, 100.0, -100.0):
        network = lambda x_t, *_, detail=detail: np.full_like(x_t, detail)  # noqa: E731
        image = upscaled(network, [(0, 0)])[0]
        expected = np.clip(enlarge(padded(small_images()[0])) + 20 * detail, 0, 255)
        np.testing.assert_allclose(image, expected, atol=0.51)


def test_timesteps_have_less_noise_at_first_and_more_at_last_than_for_whole_images():
    timesteps = upscaling_timesteps(6)
    assert len(timesteps) == 6
    assert (np.diff(timesteps) < 0).all()
    assert 900 < timesteps[0] < 990
    assert 10 < timesteps[-1] < 50
