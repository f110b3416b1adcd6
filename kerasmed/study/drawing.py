"""What the diffusion model of a study draws, before anything decides which draws are kept."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from kerasmed.data.image_set import ImageSet
from kerasmed.data.marks import Mark, write_marked_png
from kerasmed.diffusion.config import SamplingConfig
from kerasmed.diffusion.denoisers import Denoiser, open_denoiser
from kerasmed.diffusion.generate import generate_images
from kerasmed.inference.pixels import PixelRange
from kerasmed.progress import progress_bar
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.study.cascade import pixels_at
from kerasmed.study.config import Config

# Class, index and pixels of a draw.
Drawn = tuple[int, int, np.ndarray]


class Drawing:
    """Draws of a diffusion model, at the size that it draws.

    Args:
        config: the study's settings.
        settings: those of the synthetic set.
        denoiser: file of the denoiser.
        train: the training images, of which variations are drawn.
        folder: where first draws are kept.
        mark: the mark of an image of this class and index.
        guidance_scale: finds the guidance scale, when an image is drawn with it.
    """

    def __init__(
        self,
        config: Config,
        settings: SamplingConfig,
        denoiser: Path,
        train: ImageSet,
        folder: Path,
        mark: Callable[[int, int], Mark],
        guidance_scale: Callable[[], float],
    ):
        self._config, self._settings, self._path, self._train = config, settings, denoiser, train
        self._folder, self._mark, self._guidance_scale = folder, mark, guidance_scale

    def draws(self, wanted: Sequence[tuple[int, int]], attempt: int) -> Iterator[Drawn]:
        """These images at this attempt; first draws that are kept come first."""
        missing = []
        for key in wanted:
            image = self._first_draw(*key) if attempt == 0 else None
            if image is None:
                missing.append((*key, attempt))
            else:
                yield *key, image
        if missing:
            yield from self.draws_at(missing, self._guidance_scale())

    def draws_at(self, wanted: Sequence[tuple[int, ...]], guidance_scale: float) -> Iterator[Drawn]:
        """These classes, indices and attempts at this guidance scale."""
        return generate_images(
            *self._denoiser,
            wanted,
            len(self._train.class_names),
            self._config.base_size,
            self._config.seed,
            self._settings.solver,
            self._settings.timesteps(),
            guidance_scale,
            self._settings.batch_size,
            self._original if self._settings.start == "real" else None,
        )

    def first_draws(self, wanted: list[tuple[int, int]], index: int) -> np.ndarray:
        """First draws of these images: uint8 (n, size, size, 3), kept in the folder.

        Each process, by its ``index``, draws the missing ones in an order of its own, so that
        processes running at the same time seldom draw the same image.
        """
        batch_size = self._settings.batch_size
        batches = [
            wanted[start : start + batch_size] for start in range(0, len(wanted), batch_size)
        ]
        with progress_bar("First draws", len(wanted), "images") as advance:
            for at in random_stream(index, Purpose.FIRST_DRAW_ORDER).permutation(len(batches)):
                missing = [key for key in batches[at] if self._first_draw(*key) is None]
                for label, i, image in self.draws(missing, attempt=0):
                    write_marked_png(self._first_draw_path(label, i), image, self._mark(label, i))
                advance(len(batches[at]), "")
        drawn = (self._first_draw(*key) for key in wanted)
        return np.stack([image for image in drawn if image is not None])

    def position_of_original(self, label: int, index: int) -> int:
        """The training image of which an image is a variation: each of the class in turn."""
        of_class = np.flatnonzero(self._train.labels == label)
        return int(of_class[index % len(of_class)])

    @cached_property
    def _denoiser(self) -> tuple[Denoiser, PixelRange]:
        return open_denoiser(self._path)

    def _original(self, label: int, index: int) -> np.ndarray:
        image = np.asarray(self._train.images[self.position_of_original(label, index)])
        return pixels_at(image[None], self._config.base_size)[0]

    def _first_draw_path(self, label: int, image: int) -> Path:
        return self._folder / f"{label}-{image:06d}.png"

    def _first_draw(self, label: int, image: int) -> np.ndarray | None:
        """The first draw of an image; None if it does not exist or cannot be read."""
        try:
            with Image.open(self._first_draw_path(label, image)) as opened:
                return np.asarray(opened)
        except OSError:  # Pillow's errors among them
            return None
