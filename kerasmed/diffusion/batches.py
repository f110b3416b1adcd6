"""Training batches, each a pure function of the seed and the step, and those of the denoiser."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import keras
import numpy as np

from kerasmed.data.image_set import ImageSet
from kerasmed.data.order import EpochOrder
from kerasmed.data.symmetry import transform_at_random
from kerasmed.diffusion.augmentation import apply_augmentation, draw_augmentation
from kerasmed.diffusion.config import DiffusionConfig, TrainingConfig
from kerasmed.diffusion.schedule import NUM_TIMESTEPS, add_noise, alphas_cumprod
from kerasmed.inference.pixels import PixelRange
from kerasmed.random_streams import Purpose, random_stream

Batch = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]


def loss_weights(timesteps: np.ndarray, gamma: float, floor: float) -> np.ndarray:
    """Weight of the squared error of the predicted clean image at each timestep.

    min-SNR (Hang et al., arXiv:2303.09556): min(SNR, gamma) for an error measured on x_0. The loss
    is the same whether the network predicts x_0 or v. The floor keeps a signal at the noisiest
    timesteps, which decide layout and colour.
    """
    signal = alphas_cumprod()[timesteps]
    return np.clip(signal / (1.0 - signal), floor, gamma).astype(np.float32)


class Drawn(Protocol):
    """How a model's batches are drawn from labelled images.

    Attributes:
        batch_size: images in a step.
        order, sample, stream: purposes of the random streams of the order, of an image of a set and
            of one of a stream.
    """

    @property
    def batch_size(self) -> int:
        """Images in a step."""

    order: ClassVar[Purpose]
    sample: ClassVar[Purpose]
    stream: ClassVar[Purpose]

    def draw(self, image: np.ndarray, label: int, rng: np.random.Generator) -> Any:
        """What is drawn for one image, uint8 (height, width, 3), and its label."""

    def batch(self, draws: Sequence[Any]) -> Batch:
        """Inputs, targets and weights of these draws."""


@dataclass(frozen=True)
class NoisyImages:
    """How the denoiser's batches are drawn.

    Attributes:
        num_classes: number of classes.
        pixels: range of the network's pixels.
        settings: the recipe, with the size of a whole batch.
        symmetry: flips and turns to draw from, see ``data.symmetry``.
    """

    num_classes: int
    pixels: PixelRange
    settings: DiffusionConfig
    symmetry: str

    order: ClassVar[Purpose] = Purpose.DENOISER_ORDER
    sample: ClassVar[Purpose] = Purpose.DENOISER_SAMPLE
    stream: ClassVar[Purpose] = Purpose.DENOISER_STREAM

    @property
    def batch_size(self) -> int:
        """Images in a step."""
        return self.settings.batch_size

    def draw(self, image: np.ndarray, label: int, rng: np.random.Generator) -> tuple:
        """Image, noise, timestep, label and augmentation."""
        image = transform_at_random(image, self.symmetry, rng)
        if rng.random() < self.settings.label_dropout:
            label = self.num_classes
        timestep = int(rng.integers(NUM_TIMESTEPS))
        augmentation = draw_augmentation(rng, self.settings.augment)
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        return apply_augmentation(image, augmentation), noise, timestep, label, augmentation

    def batch(self, draws: Sequence[tuple]) -> Batch:
        """Inputs, targets and weights of these draws."""
        images, noise, timesteps, labels, augmentation = map(np.array, zip(*draws, strict=True))
        clean = self.pixels.to_model(images)
        inputs, targets, weights = noisy_batch(clean, noise, timesteps, labels, self.settings)
        if self.settings.augment:
            inputs["augmentation"] = augmentation
        return inputs, targets, weights


class NoisyBatches(keras.utils.PyDataset):
    """An endless sequence of batches for ``fit(..., steps_per_epoch=...)``.

    Batch ``i`` depends only on the seed and on ``first_step + i``, so a resumed run gets the same
    batches as an uninterrupted one. With several threads, as on a GPU, ``fit`` of Keras 3.15 may
    lose the first batches while it builds its metrics; it does so in every run alike.

    Args:
        image_set: images to learn from.
        drawn: how a batch is drawn from them.
        seed: seed of everything drawn.
        first_step: step at which the training continues.
        threads: number of threads that make batches.
        shard: index of the shard of each batch that this process makes, and number of shards.
    """

    def __init__(
        self,
        image_set: ImageSet,
        drawn: Drawn,
        seed: int,
        first_step: int = 0,
        threads: int = 1,
        shard: tuple[int, int] = (0, 1),
    ):
        super().__init__(workers=threads, max_queue_size=4 * threads)
        self.image_set = image_set
        self.drawn = drawn
        self.seed = seed
        self.first_step = first_step
        self.size = drawn.batch_size // shard[1]
        self.offset = self.size * shard[0]
        self._order = EpochOrder(len(image_set), seed, drawn.order)

    @property
    def num_batches(self) -> None:
        """None: the sequence is endless."""
        return None

    def __getitem__(self, index: int) -> Batch:
        first = (self.first_step + index) * self.drawn.batch_size + self.offset
        return self.drawn.batch([self._draw(first + i) for i in range(self.size)])

    def _draw(self, sample: int) -> Any:
        epoch, position = self._order(sample)
        rng = random_stream(self.seed, self.drawn.sample, epoch, position)
        image, label = self.image_set.images[position], int(self.image_set.labels[position])
        return self.drawn.draw(image, label, rng)


def noisy_stream(
    pairs: Iterator[tuple[np.ndarray, np.ndarray]], drawn: Drawn, seed: int, first_step: int = 0
) -> Iterator[Batch]:
    """Batches from a stream of images and labels.

    What is drawn depends on the seed, the step and the place in the batch; which images these meet
    depends on the stream.

    Args:
        pairs: batches of images, uint8 (batch, height, width, 3), and labels, int (batch,).
        drawn, seed, first_step: see ``NoisyBatches``.
    """
    for step, (images, labels) in enumerate(pairs, first_step):
        yield drawn.batch(
            [
                drawn.draw(image, int(label), random_stream(seed, drawn.stream, step, i))
                for i, (image, label) in enumerate(zip(images, labels, strict=True))
            ]
        )


def noisy_batch(
    clean: np.ndarray,
    noise: np.ndarray,
    timesteps: np.ndarray,
    labels: np.ndarray,
    settings: TrainingConfig,
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


def validation_rows(count: int) -> np.ndarray:
    """The images to validate on: at most 256, evenly spread; the images of a small set repeat."""
    rows = np.linspace(0, count - 1, min(count, 256)).round().astype(np.int64)
    return np.tile(rows, max(1, 128 // len(rows)))


def validation_batch(
    image_set: ImageSet, pixels: PixelRange, settings: DiffusionConfig, seed: int
) -> Batch:
    """A fixed batch for validation: the same images, evenly spread timesteps and noise every time.

    See ``validation_rows``.
    """
    rng = random_stream(seed, Purpose.DENOISER_VALIDATION)
    rows = validation_rows(len(image_set))
    clean = pixels.to_model(image_set.images[rows])
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    timesteps = rng.permutation(spread_timesteps(len(rows)))
    return noisy_batch(clean, noise, timesteps, image_set.labels[rows], settings)


def spread_timesteps(count: int) -> np.ndarray:
    """So many timesteps from the first to the last, evenly spread: int32."""
    return np.linspace(0, NUM_TIMESTEPS - 1, count).round().astype(np.int32)
