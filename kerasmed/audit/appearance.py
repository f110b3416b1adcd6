"""What images look like in the mean: spatial frequencies and intensities."""

from typing import Any

import numpy as np

from kerasmed.random_streams import Purpose, random_stream

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BINS = 64
# Images that are looked at, at most.
_MOST = 2000


def power_spectrum(images: np.ndarray) -> np.ndarray:
    """Mean power by spatial frequency, of grey images less their own mean.

    Args:
        images: uint8 (n, size, size, 3).

    Returns:
        float64 (size // 2,), over the frequencies 1, 2, ... of ``size // 2`` cycles an image, in
        all directions.
    """
    size = images.shape[1]
    frequencies = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(frequencies[:, None], frequencies[None]).round().astype(int)
    counts = np.bincount(radius.ravel())
    total = np.zeros(len(counts))
    for image in images:
        grey = image.astype(np.float32) @ _LUMA / 255
        power = np.square(np.abs(np.fft.fft2(grey - grey.mean()))) / size**2
        total += np.bincount(radius.ravel(), power.ravel())
    return (total / counts / len(images))[1 : size // 2 + 1]


def intensity_histogram(images: np.ndarray) -> np.ndarray:
    """Share of the pixels in each of 64 equal ranges of red, green and blue: float64 (3, 64).

    Args:
        images: uint8 (n, size, size, 3).
    """
    counts = np.zeros((3, _BINS))
    for image in images:
        for channel in range(3):
            values = image[..., channel].ravel() // (256 // _BINS)
            counts[channel] += np.bincount(values, minlength=_BINS)
    return counts / counts.sum(axis=1, keepdims=True)


def appearance(images: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Spectrum and histogram of a set as plain lists; of more than 2,000 images a random choice.

    Args:
        images: uint8 (n, size, size, 3).
        seed: of the choice.
    """
    count = min(len(images), _MOST)
    rng = random_stream(seed, Purpose.APPEARANCE_CHOICE)
    chosen = np.sort(rng.choice(len(images), count, replace=False))
    return {
        "spectrum": power_spectrum(images[chosen]).tolist(),
        "histogram": intensity_histogram(images[chosen]).tolist(),
    }
