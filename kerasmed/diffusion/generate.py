"""A labelled set drawn from a denoiser, each image from its own seed."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from kerasmed.diffusion.schedule import add_noise
from kerasmed.diffusion.solvers import SOLVERS, to_no_noise
from kerasmed.inference.pixels import PixelRange
from kerasmed.random_streams import Purpose, random_stream

# denoiser(x_t, timesteps, labels) -> x_0, from a Keras model or an ONNX session.
Denoiser = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def guided(
    denoiser: Denoiser,
    pixels: PixelRange,
    labels: np.ndarray,
    num_classes: int,
    guidance_scale: float,
) -> Callable[[np.ndarray, int], np.ndarray]:
    """``denoise(x_t, timestep)`` for given labels, with classifier-free guidance.

    x_0 = x_0(no class) + scale * (x_0(class) - x_0(no class)) (Ho and Salimans,
    arXiv:2207.12598), clipped to the range of images. Both halves are one batch. A scale of 1 is
    the plain conditional model and costs half.
    """
    no_class = np.full_like(labels, num_classes)

    def denoise(x_t: np.ndarray, timestep: int) -> np.ndarray:
        if guidance_scale == 1.0:
            x_0 = denoiser(x_t, np.full(len(x_t), timestep, np.int32), labels)
        else:
            both = denoiser(
                np.concatenate([x_t, x_t]),
                np.full(2 * len(x_t), timestep, np.int32),
                np.concatenate([labels, no_class]),
            )
            with_class, without_class = np.split(both, 2)
            x_0 = without_class + np.float32(guidance_scale) * (with_class - without_class)
        return pixels.clip(x_0)

    return denoise


def generate_images(
    denoiser: Denoiser,
    pixels: PixelRange,
    wanted: Sequence[tuple[int, ...]],
    num_classes: int,
    image_size: int,
    seed: int,
    solver: str,
    timesteps: np.ndarray,
    guidance_scale: float,
    batch_size: int = 32,
    original: Callable[[int, int], np.ndarray] | None = None,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Images one after the other, made in batches.

    Image ``i`` of class ``c``, at attempt ``a``, draws only from a random stream of its own, and
    the last batch is padded to the same size. So the set does not depend on batches or shards.

    Args:
        denoiser: predicts clean images.
        pixels: pixel range of the denoiser.
        wanted: class index and image index of each image, and optionally the attempt, 0 if omitted.
        num_classes: classes that the denoiser knows.
        image_size: height and width of the images.
        seed: the set's seed.
        solver: a key of SOLVERS.
        timesteps: timesteps to visit, int (steps,), falling; see ``sampling_timesteps``.
        guidance_scale: weight of the class; 1 is unguided.
        batch_size: images made at once.
        original: ``original(label, index)``, an image uint8 (size, size, 3) of which a variation is
            drawn: it is noised up to the first of the timesteps. From noise alone if None.

    Yields:
        Class index, image index, uint8 (size, size, 3).
    """
    shape = (image_size, image_size, 3)
    for start in range(0, len(wanted), batch_size):
        batch = list(wanted[start : start + batch_size])
        padded = batch + [batch[-1]] * (batch_size - len(batch))
        rngs = [random_stream(seed, Purpose.SYNTHETIC_IMAGE, *(*keys, 0)[:3]) for keys in padded]

        def draw_noise(rngs: list[np.random.Generator] = rngs) -> np.ndarray:
            return np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in rngs])

        labels = np.array([label for label, *_ in padded], dtype=np.int32)
        denoise = guided(denoiser, pixels, labels, num_classes, guidance_scale)
        denoise = to_no_noise(denoise, timesteps)
        noise = draw_noise()
        if original is not None:
            originals = np.stack([original(label, index) for label, index, *_ in padded])
            first = np.full(len(noise), timesteps[0])
            noise = add_noise(pixels.to_model(originals), noise, first)
        images = pixels.to_uint8(SOLVERS[solver](denoise, noise, timesteps, draw_noise))
        for (label, index, *_), image in zip(batch, images, strict=False):
            yield label, index, image
