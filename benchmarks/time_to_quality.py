"""Quality of the synthetic set against training time: kerasmed and two other packages.

    python benchmarks/time_to_quality.py CONFIG --data DIR --weights PATH --out DIR \
        --rival-python PATH --rival-minutes 60 --ours 2 5 10 --threads 2

PATH of --rival-python is the interpreter of an environment with torch, diffusers and
denoising-diffusion-pytorch (see benchmarks/rivals.py, which says with which settings they run).
All learn from the role `train` and are judged as in benchmarks/recipe.py, on the role `reserve`.
Ours draws as many images as the role `train` holds, the others fewer, since their networks
take minutes for them. Run it under `taskset` for fewer cores.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
from recipe import Judge, draw, judged_parser, save_grid, train

from kerasmed.diffusion.denoisers import open_denoiser
from kerasmed.diffusion.solvers import sampling_timesteps
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import load_config
from kerasmed.study.run_folder import RunFolder

RIVALS = ("denoising-diffusion-pytorch", "diffusers")


def main() -> None:
    parser = judged_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rival-python", required=True)
    parser.add_argument("--rival-minutes", type=float, default=60)
    parser.add_argument("--rival-per-class", type=int, default=30, help="images that they draw")
    parser.add_argument("--small", action="store_true", help="small networks of the rivals")
    parser.add_argument("--rivals", nargs="*", default=RIVALS, choices=RIVALS)
    parser.add_argument("--ours", type=float, nargs="*", default=[2, 5, 10], help="minutes")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    config = load_config(arguments.config, arguments.set, arguments.data)
    judge = Judge(config, RunFolder(arguments.out), arguments.weights)
    data = arguments.out / "images.npz"
    np.savez(data, images=judge.train.images, labels=judge.train.labels)
    for name in arguments.rivals:
        drawn = arguments.out / f"{name}.npz"
        command = [
            arguments.rival_python, str(Path(__file__).with_name("rivals.py")),
            name, str(data), str(drawn),
            "--minutes", str(arguments.rival_minutes), "--threads", str(arguments.threads),
            "--per-class", str(arguments.rival_per_class),
            *(["--small"] if arguments.small else []),
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with np.load(drawn) as arrays:
            images, labels, log = arrays["images"], arrays["labels"], json.loads(str(arrays["log"]))
        save_grid(images, labels, drawn.with_suffix(".png"))
        print(json.dumps({**log, **judge.verdict(images, labels)}), flush=True)
    for minutes in arguments.ours:
        folder = arguments.out / f"kerasmed-{minutes:g}"
        result = train(judge, config, minutes, folder)
        options = {"solver": "unipc", "timesteps": sampling_timesteps(15), "guidance_scale": 1.0}
        opened = open_denoiser(folder / "denoiser.keras")
        images, labels, seconds = draw(judge, opened, config.seed, **options)
        np.savez(arguments.out / f"kerasmed-{minutes:g}.npz", images=images, labels=labels)
        save_grid(images, labels, folder / "drawn.png")
        line = {"ours": f"{minutes:g} minutes", "sampling_minutes": round(seconds / 60, 2)}
        print(json.dumps({**line, **judge.verdict(images, labels), **result}), flush=True)


if __name__ == "__main__":
    main()
