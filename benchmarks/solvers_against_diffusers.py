"""The solvers against those of diffusers: same noise levels, same denoiser, step by step.

    pip install torch==2.13.0 diffusers==0.42.1
    PYTHONPATH=. python benchmarks/solvers_against_diffusers.py

Prints the greatest difference of x_t over all steps of each solver; exits with 1 above TOLERANCE.
kerasmed's solvers need NumPy alone, so any environment with diffusers will do.
"""

import sys

import diffusers
import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
)

from kerasmed.diffusion.schedule import NUM_TIMESTEPS, alphas_cumprod
from kerasmed.diffusion.solvers import SOLVERS

TOLERANCE = 1e-4
STEPS = 20
SHAPE = (4, 8, 8, 3)

# diffusers' "trailing" spacing, which all four of its schedulers know.
TIMESTEPS = np.arange(NUM_TIMESTEPS, 0, -NUM_TIMESTEPS // STEPS) - 1


def scheduler_of(name: str):
    """diffusers' counterpart, over the same noise levels."""
    signal = alphas_cumprod()
    betas = 1 - signal / np.concatenate([[1.0], signal[:-1]])
    common = {
        "trained_betas": betas,
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
    }
    return {
        "ddpm": lambda: DDPMScheduler(**common, clip_sample=False),
        "ddim": lambda: DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=True),
        "dpmpp_2m": lambda: DPMSolverMultistepScheduler(**common, final_sigmas_type="zero"),
        "unipc": lambda: UniPCMultistepScheduler(**common, final_sigmas_type="zero"),
    }[name]()


def denoise(x_t: np.ndarray, timestep: int) -> np.ndarray:
    """Any smooth function that leans on x_t and the timestep will do."""
    signal = alphas_cumprod()[timestep]
    return np.tanh(np.sqrt(signal) * x_t + 0.3 * np.sin(5 * x_t)).astype(np.float32)


def ours(name: str, start: np.ndarray, fresh: np.ndarray) -> list[np.ndarray]:
    """x_t at each evaluation, and the result."""
    visited, draws = [], iter(fresh)

    def recorded(x_t, timestep):
        visited.append(x_t)
        return denoise(x_t, timestep)

    end = SOLVERS[name](recorded, start, TIMESTEPS, lambda: next(draws))
    return [*visited[1:], end]


def theirs(name: str, start: np.ndarray, fresh: np.ndarray) -> list[np.ndarray]:
    """The same from diffusers, whose own noise is replaced by ours."""
    draws = iter(fresh)
    module = sys.modules[DDPMScheduler.__module__]
    module.randn_tensor = lambda *_, **__: torch.from_numpy(next(draws))
    scheduler = scheduler_of(name)
    scheduler.set_timesteps(STEPS)
    assert scheduler.timesteps.tolist() == TIMESTEPS.tolist(), name
    x_t, visited = torch.from_numpy(start), []
    for timestep in scheduler.timesteps:
        x_0 = torch.from_numpy(denoise(x_t.numpy(), int(timestep)))
        x_t = scheduler.step(x_0, timestep, x_t).prev_sample.float()
        visited.append(x_t.numpy())
    return visited


def main() -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal(SHAPE).astype(np.float32)
    fresh = rng.standard_normal((STEPS, *SHAPE)).astype(np.float32)
    print(f"diffusers {diffusers.__version__}, torch {torch.__version__}, {STEPS} steps")
    worst = 0.0
    for name in SOLVERS:
        pairs = zip(ours(name, start, fresh), theirs(name, start, fresh), strict=True)
        differences = [float(np.abs(a - b).max()) for a, b in pairs]
        worst = max(worst, *differences)
        print(f"{name}: greatest difference of x_t {max(differences):.2g}")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
