"""Training batches of the upscaler: crops of images, and the small images they belong to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
from PIL import Image

from kerasmed.data.image_set import ImageSet
from kerasmed.data.symmetry import transform_at_random
from kerasmed.diffusion.batches import Batch, noisy_batch, spread_timesteps, validation_rows
from kerasmed.diffusion.config import FACTOR, UpscalerConfig
from kerasmed.diffusion.enlarge import MARGIN, enlarge, padded
from kerasmed.diffusion.schedule import NUM_TIMESTEPS
from kerasmed.inference.pixels import DetailRange
from kerasmed.random_streams import Purpose, random_stream

# Pixels of a small image on each side of one that the filter of ``reduce_image`` mixes into it.
_FILTER_MARGIN = 2


class Crop(NamedTuple):
    """One crop and what is drawn for it.

    Attributes:
        image: the crop, uint8 (size, size, 3).
        base: the same part of the small image with the margin of ``enlarge``, uint8.
        noise: noise of the crop, float32.
        timestep: how strong it is.
        label: class.
        base_noise: noise of the small image without its margin, float32, scaled.
        base_deviation: its deviation.
    """

    image: np.ndarray
    base: np.ndarray
    noise: np.ndarray
    timestep: int
    label: int
    base_noise: np.ndarray
    base_deviation: float


def base_of_crop(image: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    """The same part of the small image, with the margin of ``enlarge``.

    It equals that of the whole image reduced, at a fraction of the cost.

    Args:
        image: uint8 (height, width, 3).
        top, left, size: the crop, in multiples of FACTOR.

    Returns:
        uint8 (size / 4 + 4, size / 4 + 4, 3).
    """
    margin = FACTOR * (MARGIN + _FILTER_MARGIN)
    y, x = max(0, top - margin), max(0, left - margin)
    region = Image.fromarray(image[y : top + size + margin, x : left + size + margin])
    reduced = padded(
        np.asarray(
            region.resize(
                (region.width // FACTOR, region.height // FACTOR), Image.Resampling.BICUBIC
            )
        )
    )
    rows, columns = (top - y) // FACTOR, (left - x) // FACTOR
    width = size // FACTOR + 2 * MARGIN
    return reduced[rows : rows + width, columns : columns + width]


@dataclass(frozen=True)
class NoisyCrops:
    """How the upscaler's batches are drawn: one crop of each image.

    Attributes:
        ranges: ranges of the network's small images and detail.
        settings: the recipe, with the size of a whole batch.
        symmetry: flips and turns to draw from, see ``data.symmetry``.
    """

    ranges: DetailRange
    settings: UpscalerConfig
    symmetry: str

    order: ClassVar[Purpose] = Purpose.UPSCALER_ORDER
    sample: ClassVar[Purpose] = Purpose.UPSCALER_SAMPLE
    stream: ClassVar[Purpose] = Purpose.UPSCALER_STREAM

    @property
    def batch_size(self) -> int:
        """Crops in a step."""
        return self.settings.batch_size

    def draw(self, image: np.ndarray, label: int, rng: np.random.Generator) -> Crop:
        """A crop at a random place, with its noise."""
        size = self.settings.crop_size
        image = transform_at_random(image, self.symmetry, rng)
        top, left = (
            FACTOR * int(rng.integers((edge - size) // FACTOR + 1)) for edge in image.shape[:2]
        )
        deviation = float(rng.uniform(0, self.settings.base_noise))
        small = size // FACTOR
        return Crop(
            image[top : top + size, left : left + size],
            base_of_crop(image, top, left, size),
            rng.standard_normal((size, size, 3), dtype=np.float32),
            int(rng.integers(NUM_TIMESTEPS)),
            label,
            np.float32(deviation) * rng.standard_normal((small, small, 3), dtype=np.float32),
            deviation,
        )

    def batch(self, draws: Sequence[Crop]) -> Batch:
        """Inputs, targets and weights of these draws."""
        images, bases, noise, timesteps, labels, base_noise, deviations = map(
            np.array, zip(*draws, strict=True)
        )
        clean = self.ranges.to_model(images, enlarge(bases))
        inputs, targets, weights = noisy_batch(clean, noise, timesteps, labels, self.settings)
        inner = slice(MARGIN, -MARGIN)
        inputs["base_images"] = self.ranges.pixels.to_model(bases[:, inner, inner]) + base_noise
        inputs["base_noise"] = deviations.astype(np.float32)
        return inputs, targets, weights


def validation_crops(image_set: ImageSet, drawn: NoisyCrops, seed: int) -> Batch:
    """A fixed batch for validation: the same crops, evenly spread timesteps and noise every time.

    See ``validation_rows``.
    """
    drawn = replace(drawn, symmetry="none")
    rows = validation_rows(len(image_set))
    order, *streams = (
        random_stream(seed, Purpose.UPSCALER_VALIDATION, number) for number in range(len(rows) + 1)
    )
    timesteps = order.permutation(spread_timesteps(len(rows)))
    crops = [
        drawn.draw(image_set.images[row], int(image_set.labels[row]), rng)
        for row, rng in zip(rows, streams, strict=True)
    ]
    return drawn.batch(
        [crop._replace(timestep=int(t)) for crop, t in zip(crops, timesteps, strict=True)]
    )
