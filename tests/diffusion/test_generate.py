"""Drawing a set: each image depends only on its own seed."""

import numpy as np
import pytest

from kerasmed.diffusion.generate import generate_images, guided
from kerasmed.diffusion.schedule import alphas_cumprod
from kerasmed.diffusion.solvers import SOLVERS
from kerasmed.inference.pixels import PixelRange

UNIT = PixelRange((127.5, 127.5, 127.5), 127.5)  # 0 to 255 as -1 to 1
TIMESTEPS = np.array([900, 650, 400, 100])
WANTED = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]


class Recorder:
    """A denoiser without a network that keeps what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, x_t, timesteps, labels):
        self.calls.append((x_t, timesteps, labels))
        signal = alphas_cumprod()[timesteps].astype(np.float32)[:, None, None, None]
        shift = np.array([-0.5, 0.5, 0.0], dtype=np.float32)[labels][:, None, None, None]
        return shift + np.float32(0.4) * signal * np.tanh(x_t)


def draw(wanted=WANTED, denoiser=None, **options) -> dict[tuple[int, int], np.ndarray]:
    base = {"num_classes": 2, "image_size": 4, "seed": 7, "batch_size": 2}
    options = {**base, "solver": "dpmpp_2m", "guidance_scale": 1.5, **options}
    options.setdefault("timesteps", TIMESTEPS)
    images = generate_images(denoiser or Recorder(), UNIT, wanted, **options)
    return {(label, index): image for label, index, image in images}


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for key, image in first.items():
        np.testing.assert_array_equal(image, second[key])


@pytest.mark.parametrize("solver", SOLVERS)
def test_images_are_uint8_rgb_and_differ(solver):
    images = draw(solver=solver)

    assert list(images) == WANTED
    for image in images.values():
        assert (image.dtype, image.shape) == (np.uint8, (4, 4, 3))
    assert len({image.tobytes() for image in images.values()}) == 5


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("batch_size", [1, 3, 5, 8])
def test_batch_size_changes_nothing(solver, batch_size):
    assert_same(draw(solver=solver, batch_size=batch_size), draw(solver=solver))


@pytest.mark.parametrize("solver", SOLVERS)
def test_order_changes_nothing(solver):
    backwards = draw(WANTED[::-1], solver=solver)

    assert list(backwards) == WANTED[::-1]
    assert_same({key: backwards[key] for key in WANTED}, draw(solver=solver))


@pytest.mark.parametrize("solver", SOLVERS)
def test_image_does_not_depend_on_which_others_are_made(solver):
    alone = draw([(0, 2)], solver=solver)

    np.testing.assert_array_equal(alone[0, 2], draw(solver=solver)[0, 2])


@pytest.mark.parametrize("solver", SOLVERS)
def test_seed_repeats_and_another_seed_gives_other_images(solver):
    first = draw(solver=solver)

    assert_same(first, draw(solver=solver))
    other = draw(solver=solver, seed=8)
    assert all(not np.array_equal(first[key], other[key]) for key in WANTED)


def test_class_decides_the_image():
    images = draw()

    assert max(images[0, i].mean() for i in range(3)) < 127 < images[1, 0].mean()


def test_classes_start_from_noise_of_their_own():
    def blind(x_t, timesteps, labels):
        return np.tanh(x_t)

    images = draw([(0, 3), (1, 3)], blind, guidance_scale=1.0)

    assert not np.array_equal(images[0, 3], images[1, 3])


def test_nothing_wanted_nothing_made():
    denoiser = Recorder()

    assert draw([], denoiser) == {}
    assert denoiser.calls == []


@pytest.mark.parametrize(("guidance_scale", "batch_size"), [(1.0, 2), (1.5, 4), (0.0, 4)])
def test_denoiser_always_receives_the_same_batch_size(guidance_scale, batch_size):
    denoiser = Recorder()

    draw(denoiser=denoiser, guidance_scale=guidance_scale)

    assert len(denoiser.calls) == 3 * 4
    for x_t, timesteps, labels in denoiser.calls:
        assert (x_t.shape, x_t.dtype) == ((batch_size, 4, 4, 3), np.float32)
        assert (timesteps.shape, timesteps.dtype) == ((batch_size,), np.int32)
        assert (labels.shape, labels.dtype) == ((batch_size,), np.int32)


def test_guidance_of_1_asks_only_for_the_class():
    denoiser = Recorder()

    draw(denoiser=denoiser, guidance_scale=1.0)

    assert [call[2].tolist() for call in denoiser.calls[::4]] == [[0, 1], [0, 1], [0, 0]]


def test_other_guidance_asks_with_and_without_class_at_one_timestep():
    denoiser = Recorder()

    draw(denoiser=denoiser, guidance_scale=2.0)

    x_t, timesteps, labels = denoiser.calls[1]
    assert labels.tolist() == [0, 1, 2, 2]
    np.testing.assert_array_equal(x_t[:2], x_t[2:])
    assert timesteps.tolist() == [TIMESTEPS[1]] * 4


def predicts(with_class: float, without: float):
    def denoiser(x_t, timesteps, labels):
        values = np.where(labels == 2, without, with_class).astype(np.float32)
        return np.broadcast_to(values[:, None, None, None], x_t.shape)

    return denoiser


# x_0 = without + scale * (with - without), then clipped to [-1, 1].
@pytest.mark.parametrize(
    ("scale", "expected"),
    [(0.0, 0.1), (0.5, 0.2), (1.0, 0.3), (1.5, 0.4), (3.0, 0.7), (10.0, 1.0)],
)
def test_guidance_by_hand(scale, expected):
    denoise = guided(predicts(0.3, 0.1), UNIT, np.array([0, 1], dtype=np.int32), 2, scale)

    x_0 = denoise(np.zeros((2, 4, 4, 3), dtype=np.float32), 10)

    assert x_0.dtype == np.float32
    np.testing.assert_allclose(x_0, expected, rtol=1e-6)


def test_prediction_is_clipped_without_guidance_too():
    denoise = guided(predicts(-3.0, 0.0), UNIT, np.array([0], dtype=np.int32), 2, 1.0)

    assert (denoise(np.zeros((1, 4, 4, 3), dtype=np.float32), 10) == -1.0).all()


def test_a_variation_is_the_nearer_to_its_original_the_later_it_starts():
    """By the denoiser of white images of deviation 1, which takes noise off as far as it can."""
    originals = np.random.default_rng(0).integers(60, 200, (5, 4, 4, 3), np.uint8)

    def denoiser(x_t, timesteps, labels):
        return x_t * np.sqrt(alphas_cumprod()[timesteps]).astype(np.float32)[:, None, None, None]

    def distance(timesteps: list[int]) -> float:
        drawn = draw(
            denoiser=denoiser,
            timesteps=np.array(timesteps),
            guidance_scale=1.0,
            original=lambda label, index: originals[label + 2 * index],
        )
        return np.mean(
            [
                np.abs(image - originals[c + 2 * i].astype(int)).mean()
                for (c, i), image in drawn.items()
            ]
        )

    near, far, away = distance([60, 20]), distance([400, 100]), distance([999, 650, 100])
    assert near < 0.3 * far
    assert far < 0.9 * away


def test_variations_of_one_image_differ_by_their_own_noise():
    image = np.full((4, 4, 3), 100, np.uint8)
    drawn = draw(original=lambda label, index: image, timesteps=np.array([400, 100]))
    assert len({image.tobytes() for image in drawn.values()}) == 5
    assert_same(drawn, draw(original=lambda label, index: image, timesteps=np.array([400, 100])))
