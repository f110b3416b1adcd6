"""How well a denoiser restores images from several levels of noise."""

from collections.abc import Callable

import numpy as np

from kerasmed.diffusion.generate import Denoiser
from kerasmed.diffusion.schedule import add_noise
from kerasmed.inference.pixels import PixelRange
from kerasmed.random_streams import Purpose, random_stream

TIMESTEPS = (50, 100, 200, 300, 400, 500)
DRAWS = 4  # of noise, at each timestep


def reconstruction_errors(
    denoiser: Denoiser,
    pixels: PixelRange,
    images: np.ndarray,
    labels: np.ndarray,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """Mean squared error of each restored image at each of TIMESTEPS, over DRAWS of noise.

    Image i draws its noise from a random stream of its own.

    Args:
        denoiser: predicts clean images.
        pixels: pixel range of the denoiser.
        images: uint8 (n, height, width, 3).
        labels: int (n,), classes of the images.
        seed: seed of the noise.
        advance: called with the number of images finished since the last call.

    Returns:
        float64 (n, len(TIMESTEPS)).
    """
    steps = np.repeat(np.array(TIMESTEPS, np.int32), DRAWS)
    errors = np.empty((len(images), len(TIMESTEPS)))
    for i, image in enumerate(images):
        x_0 = pixels.to_model(image)
        rng = random_stream(seed, Purpose.RECONSTRUCTION, i)
        noise = rng.standard_normal((len(steps), *x_0.shape), dtype=np.float32)
        label = np.full(len(steps), labels[i], np.int32)
        restored = denoiser(add_noise(x_0, noise, steps), steps, label)
        squared = np.square(restored - x_0).mean(axis=(1, 2, 3))
        errors[i] = squared.reshape(len(TIMESTEPS), DRAWS).mean(axis=1)
        advance(1)
    return errors
