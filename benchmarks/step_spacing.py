"""How the steps of sampling are best spaced: evenly in time, or in a root of sigma.

    python benchmarks/step_spacing.py CONFIG --data DIR --weights PATH --run RUN

RUN is the folder of a study whose denoiser is trained. For each spacing as many images as the role
`train` holds are drawn by the study's own solver, steps and guidance, and judged as in
benchmarks/recipe.py; the brightness deviation of the real images is printed first.
"""

import json
from pathlib import Path

import numpy as np
from recipe import Judge, brightness_deviation, draw, judged_parser

from kerasmed.diffusion.denoisers import open_denoiser
from kerasmed.diffusion.schedule import NUM_TIMESTEPS
from kerasmed.diffusion.solvers import sampling_timesteps
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import load_config
from kerasmed.study.run_folder import RunFolder


def main() -> None:
    parser = judged_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--roots", type=float, nargs="+", default=[3, 5, 7])
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    config = load_config(arguments.config, arguments.set, arguments.data)
    run, drawing = RunFolder(arguments.run), config.sampling
    judge = Judge(config, run, arguments.weights)
    real = brightness_deviation(judge.train.images, judge.train.labels)
    print(json.dumps({"spacing": "real images", "brightness_deviation": real}), flush=True)
    evenly = np.linspace(NUM_TIMESTEPS - 1, 0, drawing.steps).round().astype(np.int64)
    roots = {f"root {root:g}": sampling_timesteps(drawing.steps, root) for root in arguments.roots}
    for name, timesteps in {"evenly in time": evenly, **roots}.items():
        images, labels, _ = draw(
            judge,
            open_denoiser(run.diffusion / "denoiser.keras"),
            config.seed,
            solver=drawing.solver,
            timesteps=timesteps,
            guidance_scale=drawing.guidance_scale,
        )
        line = {
            "spacing": name,
            **judge.verdict(images, labels),
            "brightness_deviation": brightness_deviation(images, labels),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
