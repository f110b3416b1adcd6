"""A preview of what the network draws so far, and whether it memorises its training images."""

from pathlib import Path

import keras
import numpy as np
from PIL import Image, ImageDraw

from kerasmed.data.image_set import ImageSet
from kerasmed.data.symmetry import all_versions
from kerasmed.diffusion.generate import generate_images
from kerasmed.diffusion.solvers import sampling_timesteps
from kerasmed.diffusion.unet import keras_denoiser, pixels_of
from kerasmed.files import written_aside
from kerasmed.metrics.memorisation import comparison_pixels, fraction_closer_to_train

IMAGES = 48
PREDICTED_AT_ONCE = 32
_MAX_COMPARED = 1000  # training images, and as many validation images
_SOLVER, _STEPS, _UNGUIDED = "unipc", 15, 1.0
_CAPTION_HEIGHT = 14


class Preview:
    """Draws the same few dozen images each time, one row a class.

    Args:
        train: images that the network learns from.
        validation: similar images that it does not learn from.
        symmetry: flips and turns under which an image counts as the same.
        seed: seed of the drawn images.
    """

    def __init__(self, train: ImageSet, validation: ImageSet, symmetry: str, seed: int):
        size = min(len(train), len(validation), _MAX_COMPARED)
        self.train_pixels, self.validation_pixels = (
            comparison_pixels(images[np.linspace(0, len(images) - 1, size).round().astype(int)])
            for images in (train.images, validation.images)
        )
        self.num_classes = len(train.class_names)
        self.image_size = train.image_size
        self.symmetry = symmetry
        self.seed = seed

    def write(self, denoiser: keras.Model, caption: str, path: Path) -> float:
        """Draw the images into a PNG.

        Returns:
            Fraction of them that are closer, in pixels, to a training image than to one of as many
            validation images; about one half if nothing was memorised.
        """
        columns = max(1, IMAGES // self.num_classes)
        wanted = [(label, i) for label in range(self.num_classes) for i in range(columns)]
        drawn = generate_images(
            keras_denoiser(denoiser),
            pixels_of(denoiser),
            wanted,
            self.num_classes,
            self.image_size,
            self.seed,
            _SOLVER,
            sampling_timesteps(_STEPS),
            _UNGUIDED,
            PREDICTED_AT_ONCE,
        )
        images = np.stack([image for _, _, image in drawn])
        closer = fraction_closer_to_train(
            self.train_pixels,
            self.validation_pixels,
            comparison_pixels(all_versions(images, self.symmetry)),
            self.seed,
        )
        rows = images.reshape(self.num_classes, columns, *images.shape[1:])
        grid = np.concatenate(np.concatenate(rows, axis=1), axis=1)
        page = Image.new("RGB", (grid.shape[1], grid.shape[0] + _CAPTION_HEIGHT))
        page.paste(Image.fromarray(grid))
        text = f"{caption}, closer to training {closer:.2f}"
        ImageDraw.Draw(page).text((2, grid.shape[0] + 1), text, fill="white")
        with written_aside(path) as temporary:
            page.save(temporary)
        return closer
