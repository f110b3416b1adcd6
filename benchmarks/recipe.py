"""Which network and recipe give the best synthetic training set for a fixed budget.

    python benchmarks/recipe.py CONFIG --data DIR --weights PATH --minutes 10 --out DIR \
        --variant NAME "diffusion.learning_rate=0.002 diffusion.cooldown=0.3" --variant ...

Each variant trains a denoiser on the role `diffusion`, draws as many images as that holds, and is
judged on the role `train`, never on `test`: kernel distance and the accuracy of logistic
regression, trained on the synthetic images, both on features of an ImageNet MobileNet. One line a
variant is printed and added to OUT/results.jsonl.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from kerasmed.config import load_config
from kerasmed.runs import RunFolder
from kerasmed.runtime import load_keras, machine, resolve_runtime, versions
from kerasmed.stages import STAGES, perform
from kerasmed.stages.inputs import load_split

load_keras()  # before anything imports Keras, so that TensorFlow's notices stay off the output

import keras  # noqa: E402

from kerasmed.classify.classifier import build_classifier, predict_outputs  # noqa: E402
from kerasmed.diffusion.generate import generate_images  # noqa: E402
from kerasmed.diffusion.training import keras_denoiser, train_denoiser  # noqa: E402
from kerasmed.evaluate.fidelity import fidelity  # noqa: E402
from kerasmed.evaluate.leakage import probe_accuracy  # noqa: E402


def judge(extract, held_out, held_out_labels, seen, seen_labels, images, labels) -> dict:
    """Kernel distance and train-on-synthetic accuracy on held-out real images."""
    features = {"held": extract(held_out), "seen": extract(seen), "made": extract(images)}
    found = fidelity(features["held"], features["seen"], features["made"], seed=0)

    def accuracy(x, y) -> float:
        return probe_accuracy(x, y, features["held"], held_out_labels)

    return {
        "accuracy": round(accuracy(features["made"], labels), 4),
        "accuracy_real": round(accuracy(features["seen"], seen_labels), 4),
        "kid": round(found["generated_to_held_out"]["kid"], 4),
        "kid_interval": [round(v, 4) for v in found["generated_to_held_out"]["interval"]],
        "kid_real": round(found["seen_to_held_out"]["kid"], 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", required=True, help="MobileNet without top, for the judge")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.5])
    parser.add_argument("--solver", default="dpmpp_2m")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--variant", nargs=2, action="append", metavar=("NAME", "SETTINGS"))
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    base = load_config(arguments.config, [], arguments.data)
    run = RunFolder(arguments.out)
    if "data" not in run.finished_stages():
        perform(STAGES["data"], base, run)
    image_set, split = load_split(base, run)
    seen, validation = image_set.subset(split["diffusion"]), image_set.subset(split["validation"])
    held_out = image_set.subset(split["train"])
    judge_network = build_classifier(
        "MobileNet", 1, image_set.image_size, 160, arguments.weights, 0.0
    )

    def extract(images: np.ndarray) -> np.ndarray:
        return predict_outputs(judge_network, images)["features"]

    for name, settings in arguments.variant or [("default", "")]:
        config = load_config(arguments.config, settings.split(), arguments.data)
        budget = {"max_minutes": arguments.minutes, "preview_every": 10_000}
        diffusion = config.diffusion.model_copy(update=budget)
        folder = arguments.out / name
        symmetry, seed = config.data.symmetry, config.seed
        runtime = resolve_runtime(config.runtime)
        result = train_denoiser(seen, validation, diffusion, symmetry, seed, runtime, folder)
        denoiser = keras_denoiser(keras.saving.load_model(folder / "denoiser.keras", compile=False))
        counts = np.bincount(seen.labels)
        wanted = [(label, i) for label, count in enumerate(counts) for i in range(count)]
        for scale in arguments.guidance:
            started = time.monotonic()
            made = list(
                generate_images(
                    denoiser, wanted, len(counts), image_set.image_size, seed,
                    arguments.solver, arguments.steps, scale,
                )
            )  # fmt: skip
            seconds = time.monotonic() - started
            images = np.stack([image for _, _, image in made])
            labels = np.array([label for label, _, _ in made])
            verdict = judge(
                extract, held_out.images, held_out.labels, seen.images, seen.labels, images, labels
            )
            rows = [images[labels == label][:10] for label in range(len(counts))]
            grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
            Image.fromarray(grid).save(folder / f"guidance-{scale:g}.png")
            line = {
                "variant": name, "settings": settings, "guidance": scale,
                "solver": f"{arguments.solver} {arguments.steps}",
                "sampling_s": round(seconds, 1), **verdict, **result,
            }  # fmt: skip
            print(json.dumps(line), flush=True)
            with (arguments.out / "results.jsonl").open("a") as stream:
                stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
