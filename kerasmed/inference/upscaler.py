"""An exported upscaler, run by onnxruntime."""

from pathlib import Path

import numpy as np

from kerasmed.inference.metadata import read_metadata
from kerasmed.inference.pixels import DetailRange, PixelRange
from kerasmed.inference.session import open_session


class OnnxUpscaler:
    """An exported upscaler: ``upscaler(x_t, timesteps, labels, base_images, base_noise) -> x_0``.

    x_t and x_0 are the detail that the enlarged small images lack, noisy and clean, float32 (batch,
    height, width, 3). Height and width are any multiples of the metadata's ``stride``; those of
    the small images are a quarter. ``kerasmed.diffusion.upscale`` makes images with it.

    Args:
        path: a file that ``Upscaler.export`` wrote.
        provider: see ``OnnxClassifier``.

    Attributes:
        metadata: everything that the file states about itself.
        provider: the onnxruntime provider that really runs.

    Raises:
        ModelFileError: there is no such file, or it is not ONNX, not a kerasmed upscaler, or from a
            later version of kerasmed.
        MachineError: the chosen provider does not run on this machine.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> upscaler = km.OnnxUpscaler("upscaler.onnx")
        >>> noise = np.random.default_rng(0).standard_normal((2, 64, 96, 3), np.float32)
        >>> base_images, base_noise = np.zeros((2, 16, 24, 3), np.float32), np.float32([0, 0])
        >>> labels = np.int32([0, 1])
        >>> upscaler(noise, np.int32([999, 999]), labels, base_images, base_noise).shape
        (2, 64, 96, 3)
    """

    def __init__(self, path: Path | str, provider: str = "auto"):
        self._session, self.provider = open_session(Path(path), provider)
        self.metadata = read_metadata(self._session, Path(path), "upscaler")

    @property
    def ranges(self) -> DetailRange:
        """The ranges of small images and detail."""
        metadata = self.metadata
        pixels = PixelRange(tuple(metadata["pixel_mean"]), metadata["pixel_scale"])
        return DetailRange(pixels, metadata["detail_scale"])

    def __call__(
        self,
        x_t: np.ndarray,
        timesteps: np.ndarray,
        labels: np.ndarray,
        base_images: np.ndarray,
        base_noise: np.ndarray,
    ) -> np.ndarray:
        feeds = {
            "noisy_images": x_t,
            "timesteps": timesteps,
            "labels": labels,
            "base_images": base_images,
            "base_noise": base_noise,
        }
        return self._session.run(["clean_images"], feeds)[0]
