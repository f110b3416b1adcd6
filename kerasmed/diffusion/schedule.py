"""The cosine noise schedule (Nichol and Dhariwal, arXiv:2102.09672)."""

import numpy as np

NUM_TIMESTEPS = 1000
# The last angle as a fraction of a right angle. Below 1, the last timestep still has a finite
# signal-to-noise ratio; above the last angle but one, it is noisier than the timestep before it.
LAST_ANGLE = 0.9995


def alphas_cumprod() -> np.ndarray:
    """Fraction of the signal's variance left at each timestep.

    alphas_cumprod(t) = cos^2(pi/2 * (t/T + 0.008) / 1.008), at t = 1 .. T, with the angle limited
    to LAST_ANGLE.

    Returns:
        float64 (1000,), falling from nearly 1 to nearly 0; index 0 is the least noise.
    """
    position = np.arange(1, NUM_TIMESTEPS + 1) / NUM_TIMESTEPS
    angle = np.minimum((position + 0.008) / 1.008, LAST_ANGLE) * (np.pi / 2)
    return np.cos(angle) ** 2


def add_noise(clean: np.ndarray, noise: np.ndarray, timesteps: np.ndarray) -> np.ndarray:
    """Noisy images: x_t = sqrt(alphas_cumprod) x_0 + sqrt(1 - alphas_cumprod) eps.

    Ho et al., arXiv:2006.11239, equation 4.

    Args:
        clean: x_0, float32 (batch, height, width, channels), or one image for all.
        noise: eps, float32 (batch, height, width, channels).
        timesteps: int (batch,).
    """
    signal = alphas_cumprod()[timesteps].astype(np.float32)[:, None, None, None]
    return np.sqrt(signal) * clean + np.sqrt(1.0 - signal) * noise
