"""Training batches of the denoiser, each a pure function of the seed and the step."""

from collections.abc import Iterator

import keras
import numpy as np

from kerasmed.data.image_set import ImageSet
from kerasmed.data.order import EpochOrder
from kerasmed.data.symmetry import transform_at_random
from kerasmed.diffusion.augmentation import apply_augmentation, draw_augmentation
from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.diffusion.schedule import NUM_TIMESTEPS, add_noise, alphas_cumprod
from kerasmed.inference.pixels import PixelRange
from kerasmed.random_streams import Purpose, random_stream

Batch = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]
Draw = tuple[np.ndarray, int, int, np.ndarray]


def loss_weights(timesteps: np.ndarray, gamma: float, floor: float) -> np.ndarray:
    """Weight of the squared error of the predicted clean image at each timestep.

    min-SNR (Hang et al., arXiv:2303.09556): min(SNR, gamma) for an error measured on x_0. The loss
    is the same whether the network predicts x_0 or v. The floor keeps a signal at the noisiest
    timesteps, which decide layout and colour.
    """
    signal = alphas_cumprod()[timesteps]
    return np.clip(signal / (1.0 - signal), floor, gamma).astype(np.float32)


class NoisyBatches(keras.utils.PyDataset):
    """An endless sequence of batches for ``fit(..., steps_per_epoch=...)``.

    Batch ``i`` depends only on the seed and on ``first_step + i``, so a resumed run gets the same
    batches as an uninterrupted one. With several threads, as on a GPU, ``fit`` of Keras 3.15 may
    lose the first batches while it builds its metrics; it does so in every run alike.

    Args:
        image_set: images to learn from.
        pixels: range of the network's pixels.
        settings: the recipe, with the size of a whole batch.
        symmetry: flips and turns to draw from, see ``data.symmetry``.
        seed: seed of everything drawn: order, noise, timesteps and augmentation.
        first_step: step at which the training continues.
        threads: number of threads that make batches.
        shard: index of the shard of each batch that this process makes, and number of shards.
    """

    def __init__(
        self,
        image_set: ImageSet,
        pixels: PixelRange,
        settings: DiffusionConfig,
        symmetry: str,
        seed: int,
        first_step: int = 0,
        threads: int = 1,
        shard: tuple[int, int] = (0, 1),
    ):
        super().__init__(workers=threads, max_queue_size=4 * threads)
        self.image_set = image_set
        self.settings = settings
        self.symmetry = symmetry
        self.seed = seed
        self.first_step = first_step
        self.size = settings.batch_size // shard[1]
        self.offset = self.size * shard[0]
        self.pixels = pixels
        self._order = EpochOrder(len(image_set), seed, Purpose.DENOISER_ORDER)

    @property
    def num_batches(self) -> None:
        """None: the sequence is endless."""
        return None

    def __getitem__(self, index: int) -> Batch:
        settings = self.settings
        first = (self.first_step + index) * settings.batch_size + self.offset
        noise = np.empty((self.size, *self.image_set.images.shape[1:]), np.float32)
        draws = [self._draw(first + i, image_noise) for i, image_noise in enumerate(noise)]
        return _assemble(draws, noise, self.pixels, settings)

    def _draw(self, sample: int, noise: np.ndarray) -> Draw:
        epoch, position = self._order(sample)
        rng = random_stream(self.seed, Purpose.DENOISER_SAMPLE, epoch, position)
        image, label = self.image_set.images[position], int(self.image_set.labels[position])
        no_class = len(self.image_set.class_names)
        return _draw_sample(image, label, no_class, self.settings, self.symmetry, rng, noise)


def noisy_stream(
    pairs: Iterator[tuple[np.ndarray, np.ndarray]],
    num_classes: int,
    pixels: PixelRange,
    settings: DiffusionConfig,
    symmetry: str,
    seed: int,
    first_step: int = 0,
) -> Iterator[Batch]:
    """Batches from a stream of images and labels.

    Noise, timesteps and augmentation depend on the seed, the step and the place in the batch; which
    images these meet depends on the stream.

    Args:
        pairs: batches of images, uint8 (batch, height, width, 3), and labels, int (batch,).
        num_classes: number of classes.
        pixels, settings, symmetry, seed, first_step: see ``NoisyBatches``.
    """
    for step, (images, labels) in enumerate(pairs, first_step):
        noise = np.empty(images.shape, np.float32)
        draws = [
            _draw_sample(
                image, int(label), num_classes, settings, symmetry,
                random_stream(seed, Purpose.DENOISER_STREAM, step, i), noise[i],
            )
            for i, (image, label) in enumerate(zip(images, labels, strict=True))
        ]  # fmt: skip
        yield _assemble(draws, noise, pixels, settings)


def _draw_sample(
    image: np.ndarray,
    label: int,
    no_class: int,
    settings: DiffusionConfig,
    symmetry: str,
    rng: np.random.Generator,
    noise: np.ndarray,
) -> Draw:
    """Image, timestep, label and augmentation of a sample; fills ``noise`` in place."""
    image = transform_at_random(image, symmetry, rng)
    if rng.random() < settings.label_dropout:
        label = no_class
    timestep = int(rng.integers(NUM_TIMESTEPS))
    augmentation = draw_augmentation(rng, settings.augment)
    rng.standard_normal(dtype=np.float32, out=noise)
    return apply_augmentation(image, augmentation), timestep, label, augmentation


def _assemble(
    draws: list[Draw], noise: np.ndarray, pixels: PixelRange, settings: DiffusionConfig
) -> Batch:
    images, timesteps, labels, augmentation = map(np.array, zip(*draws, strict=True))
    inputs, targets, weights = noisy_batch(
        pixels.to_model(images), noise, timesteps, labels, settings
    )
    if settings.augment:
        inputs["augmentation"] = augmentation
    return inputs, targets, weights


def noisy_batch(
    clean: np.ndarray,
    noise: np.ndarray,
    timesteps: np.ndarray,
    labels: np.ndarray,
    settings: DiffusionConfig,
) -> Batch:
    """Inputs, targets and sample weights of the denoiser for given draws."""
    inputs = {
        "noisy_images": add_noise(clean, noise, timesteps),
        "timesteps": timesteps.astype(np.int32),
        "labels": labels.astype(np.int32),
    }
    weights = loss_weights(timesteps, settings.min_snr_gamma, settings.min_snr_floor)
    # One weight per image, shaped to broadcast over Keras's loss per pixel.
    return inputs, clean, weights[:, None, None]


def validation_batch(
    image_set: ImageSet, pixels: PixelRange, settings: DiffusionConfig, seed: int
) -> Batch:
    """A fixed batch for validation: the same images, evenly spread timesteps and noise every time.

    A large set contributes 256 evenly spread images; a small one is repeated.
    """
    rng = random_stream(seed, Purpose.DENOISER_VALIDATION)
    count = min(len(image_set), 256)
    positions = np.linspace(0, len(image_set) - 1, count).round().astype(np.int64)
    repeats = max(1, 128 // count)
    clean = np.tile(pixels.to_model(image_set.images[positions]), (repeats, 1, 1, 1))
    timesteps = np.linspace(0, NUM_TIMESTEPS - 1, len(clean)).round().astype(np.int32)
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    return noisy_batch(
        clean,
        noise,
        rng.permutation(timesteps),
        np.tile(image_set.labels[positions], repeats),
        settings,
    )
