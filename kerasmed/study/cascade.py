"""Large images from two networks: the diffusion model draws small ones, the upscaler enlarges them.

The real images of a study are decoded once, at full size, and reduced where the diffusion model or
what is said of it needs small ones.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed.data.image_set import ImageSet
from kerasmed.diffusion.enlarge import reduce_images
from kerasmed.diffusion.upscale import (
    UpscalerNetwork,
    in_tiles,
    upscale_images,
    upscaling_timesteps,
)
from kerasmed.errors import StageError
from kerasmed.inference.pixels import DetailRange
from kerasmed.inference.upscaler import OnnxUpscaler
from kerasmed.runtime.backend import load_keras
from kerasmed.runtime.hardware import require_memory
from kerasmed.study.config import Config

# Class, index and attempt of a draw, and its pixels.
Draw = tuple[tuple[int, int, int], np.ndarray]

# These two bound the memory: the network sees no more than four images of 256 pixels at once.
_PIXELS_AT_ONCE = 4 * 256**2
_TILE_SIZE = 512
_BYTES = 32  # that it takes at once for each pixel and channel of its first level


def pixels_at(images: np.ndarray, size: int) -> np.ndarray:
    """Images uint8 (n, size, size, 3) as they are, or reduced to a quarter if that is the size."""
    return images if images.shape[1] == size else reduce_images(images)


def at_size(images: ImageSet, size: int) -> ImageSet:
    """As ``pixels_at``, of a set."""
    return replace(images, images=pixels_at(images.images, size))


class Enlarger:
    """The upscaler of a study, which enlarges what the diffusion model has drawn.

    Args:
        path: its file, for onnxruntime (.onnx) or Keras.
        config: the study's settings.
        image_set: the study's real images.

    Raises:
        StageError: the file is an upscaler of another study.
        MachineError: too little memory is free for the images that it sees at once.
    """

    def __init__(self, path: Path, config: Config, image_set: ImageSet):
        self._config = config
        require_memory(
            _PIXELS_AT_ONCE * config.upscaler.widths[0] * _BYTES, f"Drawing with {path.name}"
        )
        self._network, self._ranges, own = _open(path)
        expected = {
            "class_names": list(image_set.class_names),
            "image_size": config.data.image_size,
            "base_size": config.base_size,
            "data_hash": image_set.data_hash,
        }
        for key in expected.keys() & own.keys():
            if own[key] != expected[key]:
                raise StageError(
                    f"{path} is the upscaler of another study: expected {key} {expected[key]}, "
                    f"received {own[key]}; restore the file, or delete {path.parent} and run "
                    "`kerasmed train upscaler CONFIG`."
                )

    def enlarge(self, drawn: Iterator[Draw]) -> Iterator[Draw]:
        """Each draw at full size, with detail from a random stream of its own."""
        settings, seed = self._config.upscaler, self._config.seed
        timesteps = upscaling_timesteps(settings.steps)
        at_once = max(1, _PIXELS_AT_ONCE // self._config.data.image_size**2)
        while batch := list(islice(drawn, at_once)):
            keys = [key for key, _ in batch]
            images = upscale_images(
                self._network, self._ranges, np.stack([image for _, image in batch]), keys, seed,
                timesteps, settings.drawing_noise, at_once,
            )  # fmt: skip
            for key, (_, _, image) in zip(keys, images, strict=True):
                yield key, image


def _open(path: Path) -> tuple[UpscalerNetwork, DetailRange, dict[str, Any]]:
    """The network of a file, which runs tile by tile; its ranges; what it says of itself."""
    if path.suffix == ".onnx":
        session = OnnxUpscaler(path)
        own = session.metadata
        network = in_tiles(session, _TILE_SIZE, own["reach"], own["stride"])
        return network, session.ranges, own
    load_keras()
    from kerasmed.diffusion.unet import reach
    from kerasmed.diffusion.upscaler import load_upscaler

    model = load_upscaler(path)
    settings = model.settings
    network = in_tiles(model.denoiser(), _TILE_SIZE, reach(settings), settings.stride)
    own = {"class_names": list(model.class_names), "image_size": model.image_size}
    return network, model.ranges, own
