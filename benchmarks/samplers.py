"""How solver, steps and spacing change what a trained denoiser draws.

    python benchmarks/samplers.py CONFIG --data DIR --weights PATH --denoiser DIR/denoiser.keras \
        --out DIR [--seeds 2] [--sampler unipc:15 --sampler ddim:150 ...]

For each sampler, as many images as the role `train` holds are drawn with each seed. They are judged
on the role `reserve` as in benchmarks/recipe.py, and their power by frequency band, brightness and
contrast are compared with it (`kerasmed.metrics.strength`). The first line of the table is the
former default: 15 steps of unipc, even in the fifth root of sigma, without the extrapolated end.
The role `train` itself is judged too, as a measure of what real images reach.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from recipe import Judge, draw, judged_parser, save_grid

from kerasmed.diffusion import generate
from kerasmed.diffusion.denoisers import open_denoiser
from kerasmed.diffusion.schedule import NUM_TIMESTEPS, alphas_cumprod
from kerasmed.diffusion.solvers import sampling_timesteps
from kerasmed.metrics.strength import relative_strength
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import load_config
from kerasmed.study.run_folder import RunFolder

FORMER = "former:15"


def former_timesteps(steps: int) -> np.ndarray:
    """Timesteps even in the fifth root of sigma, from 80 down."""
    signal = alphas_cumprod()
    sigma = np.sqrt((1 - signal) / signal)
    falling = np.linspace(80 ** (1 / 5), sigma[0] ** (1 / 5), steps) ** 5
    return np.interp(falling, sigma, np.arange(NUM_TIMESTEPS)).round().astype(np.int64)


def strengths(judge: Judge, images: np.ndarray, labels: np.ndarray, groups=None) -> dict:
    """Ratios to the role `reserve`, with the intervals of the bands, in percent."""
    reserve = judge.reserve
    found = relative_strength(
        images, labels, reserve.images, reserve.labels, groups, judge.groups["reserve"]
    )
    percent = [[round(100 * x) for x in (b["ratio"], *b["interval"])] for b in found["bands"]]
    return {
        "bands_percent": percent,
        "brightness": round(found["brightness"]["ratio"], 3),
        "contrast": round(found["contrast"]["ratio"], 3),
    }


def main() -> None:
    parser: argparse.ArgumentParser = judged_parser(__doc__)
    parser.add_argument("--denoiser", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sampler", action="append", metavar="SOLVER:STEPS")
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    config = load_config(arguments.config, arguments.set, arguments.data)
    judge = Judge(config, RunFolder(arguments.out), arguments.weights)
    train = judge.train
    line = strengths(judge, np.asarray(train.images), train.labels, judge.groups["train"])
    print(json.dumps({"sampler": "the role train", **line}), flush=True)
    extrapolate, opened = generate.to_no_noise, open_denoiser(arguments.denoiser)
    for sampler in arguments.sampler or [FORMER, "unipc:15", "unipc:20", "dpmpp_2m:15"]:
        solver, steps = sampler.split(":")
        is_former = solver == "former"
        generate.to_no_noise = (lambda denoise, _: denoise) if is_former else extrapolate
        timesteps = former_timesteps if is_former else sampling_timesteps
        for seed in range(arguments.seeds):
            images, labels, seconds = draw(
                judge,
                opened,
                seed,
                solver="unipc" if is_former else solver,
                timesteps=timesteps(int(steps)),
                guidance_scale=1.0,
            )
            save_grid(images, labels, arguments.out / f"{solver}-{steps}-s{seed}.png")
            line = {
                "sampler": sampler,
                "seed": seed,
                "s_per_image": round(seconds / len(images), 4),
                **judge.verdict(images, labels),
                **strengths(judge, images, labels),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
