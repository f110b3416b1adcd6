"""Solvers of the reverse process: pure functions over a denoiser.

Each takes ``denoise(x_t, timestep) -> x_0``, the noise to start from, the timesteps to visit and a
source of fresh noise, and returns what the denoiser predicts at the last of them. x_t are noisy
images and x_0 the clean images that the denoiser predicts, all float32 (batch, height, width,
channels).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kerasmed.diffusion.schedule import NUM_TIMESTEPS, alphas_cumprod
from kerasmed.errors import InputError

Denoise = Callable[[np.ndarray, int], np.ndarray]
DrawNoise = Callable[[], np.ndarray]
Solver = Callable[[Denoise, np.ndarray, np.ndarray, DrawNoise], np.ndarray]


GREATEST_SIGMA = 80.0
# The last prediction is extrapolated from it and the latest one at no less than so many times its
# noise: two that are closer would multiply the network's errors.
_FAR_ENOUGH = 1.4


def sampling_timesteps(
    steps: int, greatest: float = GREATEST_SIGMA, least: float = 0.0
) -> np.ndarray:
    """``steps`` timesteps from the noisiest to the cleanest, even in the logarithm of sigma.

    Sigma is the ratio of the noise's to the signal's amplitude. Each step then reduces it by the
    same factor, so structure of every scale meets as many steps. Over Gaussian structure, 15 steps
    of UniPC draw every scale from 0.05 up at its true deviation within 2%.

    Args:
        steps: how many.
        greatest: sigma of the first.
        least: sigma of the last; that of the schedule's cleanest timestep if it is below.

    Returns:
        int64 (steps,), distinct and falling.

    Raises:
        InputError: fewer than one step, or more than the schedule has.
    """
    if not 1 <= steps <= NUM_TIMESTEPS:
        raise InputError(
            f"Sampling steps: expected 1 to {NUM_TIMESTEPS}, received {steps}; "
            "correct sampling.steps."
        )
    sigma = _sigmas()
    falling = np.geomspace(greatest, max(least, sigma[0]), steps)
    rising = np.interp(np.log(falling), np.log(sigma), np.arange(NUM_TIMESTEPS))[::-1]
    timesteps = rising.round().astype(np.int64)
    # Many steps can round to the same timestep; they are moved apart.
    positions = np.arange(steps)
    timesteps = np.maximum.accumulate(timesteps - positions) + positions
    return np.minimum(timesteps, NUM_TIMESTEPS - steps + positions)[::-1]


def to_no_noise(denoise: Denoise, timesteps: np.ndarray) -> Denoise:
    """``denoise``, but what it predicts at the last timestep is extrapolated to no noise at all.

    A denoiser leaves out detail that is fainter than the noise, also at the last timestep. To first
    order what is missing grows with the square of sigma (exactly so for Gaussian structure that is
    well above the noise). So the last two predictions, at sigma and sigma_before, give

        x_0 + (x_0 - x_0_before) * sigma^2 / (sigma_before^2 - sigma^2).
    """
    sigma = _sigmas()
    last = int(timesteps[-1])
    earlier: dict[str, Any] = {}

    def extrapolated(x_t: np.ndarray, timestep: int) -> np.ndarray:
        x_0 = denoise(x_t, timestep)
        if timestep != last:
            if sigma[timestep] >= _FAR_ENOUGH * sigma[last]:
                earlier["sigma"], earlier["x_0"] = sigma[timestep], x_0
            return x_0
        if not earlier:
            return x_0
        weight = sigma[last] ** 2 / (earlier["sigma"] ** 2 - sigma[last] ** 2)
        return x_0 + np.float32(weight) * (x_0 - earlier["x_0"])

    return extrapolated


def _sigmas() -> np.ndarray:
    """Amplitude of the noise over that of the signal at each timestep, float64 (1000,), rising."""
    signal = alphas_cumprod()
    return np.sqrt((1 - signal) / signal)


def _levels(timesteps: np.ndarray) -> Iterator[tuple[int, float, float]]:
    """Each timestep, its alphas_cumprod and that of the next timestep, 1 (no noise) at the end."""
    signal = alphas_cumprod()[timesteps]
    for timestep, now, after in zip(timesteps, signal, [*signal[1:], 1.0], strict=True):
        yield int(timestep), float(now), float(after)


def ddpm(
    denoise: Denoise, x_t: np.ndarray, timesteps: np.ndarray, draw_noise: DrawNoise
) -> np.ndarray:
    """Ancestral sampling (Ho et al., arXiv:2006.11239, eq. 6 and 7), over any timesteps."""
    for timestep, now, after in _levels(timesteps):
        x_0 = denoise(x_t, timestep)
        kept = now / after
        mean = (
            np.sqrt(after) * (1 - kept) / (1 - now) * x_0
            + np.sqrt(kept) * (1 - after) / (1 - now) * x_t
        )
        variance = (1 - kept) * (1 - after) / (1 - now)
        x_t = mean.astype(np.float32)
        if after < 1.0:
            x_t = x_t + np.float32(np.sqrt(variance)) * draw_noise()
    return x_t


def ddim(
    denoise: Denoise, x_t: np.ndarray, timesteps: np.ndarray, draw_noise: DrawNoise
) -> np.ndarray:
    """Deterministic DDIM (Song et al., arXiv:2010.02502, eq. 12 with sigma 0)."""
    for timestep, now, after in _levels(timesteps):
        x_0 = denoise(x_t, timestep)
        eps = (x_t - np.sqrt(now) * x_0) / np.sqrt(1 - now)
        x_t = (np.sqrt(after) * x_0 + np.sqrt(1 - after) * eps).astype(np.float32)
    return x_t


def dpmpp_2m(
    denoise: Denoise, x_t: np.ndarray, timesteps: np.ndarray, draw_noise: DrawNoise
) -> np.ndarray:
    """DPM-Solver++(2M) (Lu et al., arXiv:2211.01095, algorithm 2); first order at both ends."""
    x_0_before, step_before = None, 0.0
    for timestep, now, after in _levels(timesteps):
        x_0 = denoise(x_t, timestep)
        if after == 1.0:
            return x_0
        # The step in lambda, half the logarithm of the signal-to-noise ratio.
        step = 0.5 * (np.log(after / (1 - after)) - np.log(now / (1 - now)))
        estimate = x_0
        if x_0_before is not None:
            ratio = step_before / step
            estimate = (1 + 0.5 / ratio) * x_0 - 0.5 / ratio * x_0_before
        shrink = np.sqrt((1 - after) / (1 - now))
        x_t = (shrink * x_t - np.sqrt(after) * np.expm1(-step) * estimate).astype(np.float32)
        x_0_before, step_before = x_0, step
    return x_t


def unipc(
    denoise: Denoise, x_t: np.ndarray, timesteps: np.ndarray, draw_noise: DrawNoise
) -> np.ndarray:
    """UniPC of order 2 with B(h) = exp(h) - 1 (Zhao et al., arXiv:2302.04867, algorithms 5 and 7).

    A step predicts x_t almost as DPM-Solver++(2M) does. The denoiser's prediction there also
    corrects the step that led there, at no further evaluation.
    """
    correct: Callable[[np.ndarray], np.ndarray] | None = None
    x_0_before, step_before = None, 0.0
    for timestep, now, after in _levels(timesteps):
        x_0 = denoise(x_t, timestep)
        if after == 1.0:
            return x_0
        if correct is not None:
            x_t = correct(x_0)
        step = 0.5 * (np.log(after / (1 - after)) - np.log(now / (1 - now)))
        base = np.sqrt((1 - after) / (1 - now)) * x_t - np.sqrt(after) * np.expm1(-step) * x_0
        scale = -np.sqrt(after) * np.expm1(-step)
        slope = None if x_0_before is None else (x_0_before - x_0) / (-step_before / step)
        x_t = (base if slope is None else base + scale * 0.5 * slope).astype(np.float32)
        correct = _unipc_corrector(base, scale, x_0, slope, step, step_before)
        x_0_before, step_before = x_0, step
    raise AssertionError("the last level has no noise")


def _unipc_corrector(
    base: np.ndarray,
    scale: float,
    x_0: np.ndarray,
    slope: np.ndarray | None,
    step: float,
    step_before: float,
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that corrects the step, given ``x_0_after``, the prediction at its end."""
    if slope is None:
        return lambda x_0_after: (base + scale * 0.5 * (x_0_after - x_0)).astype(np.float32)
    phi = np.expm1(-step) / -step - 1
    moments = np.array([phi, (phi / -step - 0.5) * 2]) / np.expm1(-step)
    ratios = np.array([[1.0, 1.0], [-step_before / step, 1.0]])
    before, after = np.linalg.solve(ratios, moments)
    return lambda x_0_after: (base + scale * (before * slope + after * (x_0_after - x_0))).astype(
        np.float32
    )


SOLVERS: dict[str, Solver] = {"ddpm": ddpm, "ddim": ddim, "dpmpp_2m": dpmpp_2m, "unipc": unipc}
# With as many steps, each draws Gaussian structure of every scale from 0.05 up within 3%.
DEFAULT_STEPS: dict[str, int] = {"ddpm": 250, "ddim": 150, "dpmpp_2m": 15, "unipc": 15}
