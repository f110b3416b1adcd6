"""The pixel ranges inside the diffusion models; everything outside them uses 0 to 255."""

from dataclasses import dataclass

import numpy as np

# Standard deviation of clean pixels for which the cosine schedule was designed: that of images
# spread over [-1, 1].
_DEVIATION = 0.5
_BATCH = 256  # images at a time, so that a memory map stays on disk


@dataclass(frozen=True)
class PixelRange:
    """Centred on the mean colour of the training images, with a standard deviation of one half.

    Medical images use little of the full range. Left in [-1, 1], smears have a deviation of 0.26
    about their colour and drown in noise at half the timesteps. Scaling them shifts the schedule
    (Hoogeboom et al., arXiv:2301.11093, section 3; Karras et al., arXiv:2312.02696, section 2).

    Attributes:
        mean: mean of each channel, 0 to 255.
        scale: grey levels in one unit of the model's range.
    """

    mean: tuple[float, ...]
    scale: float

    @classmethod
    def of(cls, images: np.ndarray) -> "PixelRange":
        """The range that suits these images, uint8 (n, height, width, 3)."""
        sums, squares = np.zeros(3, np.int64), np.zeros(3, np.int64)
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH].astype(np.uint16)
            sums += batch.sum(axis=(0, 1, 2), dtype=np.int64)
            squares += np.square(batch).sum(axis=(0, 1, 2), dtype=np.int64)
        count = images[..., 0].size
        mean = sums / count
        deviation = float(np.sqrt((squares / count - mean**2).mean()))
        return cls(tuple(mean.tolist()), max(deviation, 1.0) / _DEVIATION)

    def to_model(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 (..., 3) in the model's range: float32."""
        return ((images - np.asarray(self.mean, np.float32)) / np.float32(self.scale)).astype(
            np.float32
        )

    def clip(self, images: np.ndarray) -> np.ndarray:
        """The nearest values in the model's range that stand for 0 to 255."""
        black, white = self.to_model(np.zeros(3)), self.to_model(np.full(3, 255))
        return np.clip(images, black, white)

    def to_uint8(self, images: np.ndarray) -> np.ndarray:
        """Images float (..., 3) of the model's range, clipped: uint8, 0 to 255."""
        levels = images * np.float32(self.scale) + np.asarray(self.mean, np.float32)
        return np.rint(np.clip(levels, 0.0, 255.0)).astype(np.uint8)


@dataclass(frozen=True)
class DetailRange:
    """The ranges inside an upscaler: of small images, and of the detail that they lack.

    Detail is the difference of an image from its enlarged small image. It is scaled to a deviation
    of one half, as pixels are.

    Attributes:
        pixels: range of the small images.
        scale: grey levels in one unit of detail.
    """

    pixels: PixelRange
    scale: float

    def to_model(self, images: np.ndarray, enlarged: np.ndarray) -> np.ndarray:
        """Detail of images uint8 (..., 3) over enlarged ones, float, 0 to 255: float32."""
        return ((images - enlarged) / np.float32(self.scale)).astype(np.float32)

    def clip(self, detail: np.ndarray, enlarged: np.ndarray) -> np.ndarray:
        """The nearest detail that makes grey levels from 0 to 255."""
        scale = np.float32(self.scale)
        return np.clip(detail, -enlarged / scale, (255 - enlarged) / scale)

    def to_uint8(self, detail: np.ndarray, enlarged: np.ndarray) -> np.ndarray:
        """Images with this detail, clipped: uint8, 0 to 255."""
        levels = enlarged + detail * np.float32(self.scale)
        return np.rint(np.clip(levels, 0.0, 255.0)).astype(np.uint8)
