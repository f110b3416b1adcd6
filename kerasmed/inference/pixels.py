"""The pixel range of the diffusion model, which nothing outside it uses."""

from dataclasses import dataclass

import numpy as np

# The deviation of clean pixels that the cosine schedule was made for: images spread over [-1, 1].
_DEVIATION = 0.5
_AT_ONCE = 256  # images, so that a memory map stays on disk


@dataclass(frozen=True)
class PixelRange:
    """Centred on the mean colour of the training images, with a deviation of one half.

    Medical images use little of the range: left in [-1, 1], smears have a deviation of 0.26 about
    their colour and drown in noise at half the timesteps. To scale them is to shift the schedule
    (Hoogeboom et al., arXiv:2301.11093, section 3; Karras et al., arXiv:2312.02696, section 2).

    Attributes:
        mean: mean of each channel, 0 to 255.
        scale: levels that make one unit.
    """

    mean: tuple[float, ...]
    scale: float

    @classmethod
    def of(cls, images: np.ndarray) -> "PixelRange":
        """The range that suits uint8 (n, height, width, 3)."""
        sums, squares = np.zeros(3, np.int64), np.zeros(3, np.int64)
        for start in range(0, len(images), _AT_ONCE):
            part = images[start : start + _AT_ONCE].astype(np.uint16)
            sums += part.sum(axis=(0, 1, 2), dtype=np.int64)
            squares += np.square(part).sum(axis=(0, 1, 2), dtype=np.int64)
        count = images[..., 0].size
        mean = sums / count
        deviation = float(np.sqrt((squares / count - mean**2).mean()))
        return cls(tuple(mean.tolist()), max(deviation, 1.0) / _DEVIATION)

    def to_model(self, images: np.ndarray) -> np.ndarray:
        """uint8 (..., 3) as float32."""
        return ((images - np.asarray(self.mean, np.float32)) / np.float32(self.scale)).astype(
            np.float32
        )

    def clip(self, images: np.ndarray) -> np.ndarray:
        """The nearest values that stand for 0 to 255."""
        black, white = self.to_model(np.zeros(3)), self.to_model(np.full(3, 255))
        return np.clip(images, black, white)

    def to_uint8(self, images: np.ndarray) -> np.ndarray:
        """float (..., 3), clipped, as uint8 0 to 255."""
        levels = images * np.float32(self.scale) + np.asarray(self.mean, np.float32)
        return np.rint(np.clip(levels, 0.0, 255.0)).astype(np.uint8)
