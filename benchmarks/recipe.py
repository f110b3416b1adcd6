"""Which network and recipe give the best synthetic training set for a fixed budget.

    python benchmarks/recipe.py CONFIG --data DIR --weights PATH --minutes 10 --out DIR \
        --variant NAME "diffusion.learning_rate=0.002 diffusion.cooldown=0.3" --variant ...

Each variant trains a denoiser on the role `train`, draws as many images as that holds, and is
judged on the role `reserve`, never on `test`: kernel distance and the accuracy of logistic
regression, trained on the synthetic images, both on features of an ImageNet MobileNet. One line a
variant is printed and added to OUT/results.jsonl.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from kerasmed.audit.fidelity import fidelity
from kerasmed.data.image_set import ImageSet
from kerasmed.diffusion.denoisers import open_denoiser
from kerasmed.diffusion.generate import Denoiser, generate_images
from kerasmed.diffusion.solvers import sampling_timesteps
from kerasmed.inference.pixels import PixelRange
from kerasmed.metrics.linear_probe import probe_accuracy
from kerasmed.parallel.resolve import resolve_runtime
from kerasmed.runtime.backend import load_keras
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import Config, load_config
from kerasmed.study.engine import perform
from kerasmed.study.inputs import load_grouped_split
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import STAGES

load_keras()  # before anything imports Keras, so that TensorFlow's notices stay off the output

from kerasmed.classify.classifier import build_classifier, predict_outputs  # noqa: E402
from kerasmed.diffusion.training import train_denoiser  # noqa: E402


class Judge:
    """Kernel distance and train-on-synthetic accuracy on real images that nothing has seen.

    Attributes:
        seen: the role `train`, to learn from.
        validation: the role `validation`.
    """

    def __init__(self, config: Config, run: RunFolder, weights: str):
        if "data" not in run.finished_stages():
            perform(STAGES["data"], config, run)
        image_set, split, groups = load_grouped_split(config, run)
        self.seen: ImageSet = image_set.subset(split["train"])
        self.validation: ImageSet = image_set.subset(split["validation"])
        held_out = image_set.subset(split["reserve"])
        self._network = build_classifier("MobileNet", 1, image_set.image_size, 160, weights, 0.0)
        self._held_out = self._features(held_out.images), held_out.labels
        self._seen = self._features(self.seen.images), self.seen.labels
        roles = {"held_out": "reserve", "seen": "train"}
        self._groups = {name: groups[split[role]] for name, role in roles.items()}

    def _features(self, images: np.ndarray) -> np.ndarray:
        return predict_outputs(self._network, images)["features"]

    def verdict(self, images: np.ndarray, labels: np.ndarray) -> dict:
        made = self._features(images)
        sets = {"held_out": self._held_out[0], "seen": self._seen[0], "generated": made}
        found = fidelity(sets, self._groups)
        return {
            "accuracy": round(probe_accuracy(made, labels, *self._held_out), 4),
            "accuracy_real": round(probe_accuracy(*self._seen, *self._held_out), 4),
            "kid": round(found["generated_to_held_out"]["kid"], 4),
            "kid_interval": [round(v, 4) for v in found["generated_to_held_out"]["interval"]],
            "kid_real": round(found["seen_to_held_out"]["kid"], 4),
        }


def brightness_deviation(images: np.ndarray, labels: np.ndarray) -> float:
    """How much the images of a class differ in mean brightness, as a share of full white.

    The standard deviation of their means, the mean over the classes.
    """
    means = images.mean(axis=(1, 2, 3)) / 255
    return round(float(np.mean([means[labels == each].std() for each in np.unique(labels)])), 4)


def save_grid(images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """The first ten images of each class, one row a class."""
    rows = [images[labels == label][:10] for label in range(labels.max() + 1)]
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    Image.fromarray(grid).save(path)


def train(judge: Judge, config: Config, minutes: float, folder: Path) -> dict:
    """A denoiser in the folder, trained for that long; what really ran."""
    return train_denoiser(
        judge.seen,
        judge.validation,
        config.diffusion.model_copy(update={"max_minutes": minutes}),
        config.data.symmetry,
        config.seed,
        resolve_runtime(config.runtime),
        folder,
    )


def draw(
    judge: Judge, opened: tuple[Denoiser, PixelRange], seed: int, **options
) -> tuple[np.ndarray, np.ndarray, float]:
    """As many images as the role `train` holds, their labels, and the seconds taken."""
    counts = np.bincount(judge.seen.labels)
    wanted = [(label, i) for label, count in enumerate(counts) for i in range(count)]
    size = judge.seen.image_size
    started = time.monotonic()
    made = list(generate_images(*opened, wanted, len(counts), size, seed, **options))
    seconds = time.monotonic() - started
    images = np.stack([image for _, _, image in made])
    return images, np.array([label for label, _, _ in made]), seconds


def judged_parser(doc: str) -> argparse.ArgumentParser:
    """With what every script needs that judges: experiment file, settings, data and weights."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--weights", required=True, help="MobileNet without top, for the judge")
    return parser


def main() -> None:
    parser = judged_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0])
    parser.add_argument("--solver", default="unipc")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--variant", nargs=2, action="append", metavar=("NAME", "SETTINGS"))
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    base = load_config(arguments.config, arguments.set, arguments.data)
    judge = Judge(base, RunFolder(arguments.out), arguments.weights)
    for name, settings in arguments.variant or [("default", "")]:
        chosen = [*arguments.set, *settings.split()]
        config = load_config(arguments.config, chosen, arguments.data)
        folder = arguments.out / name
        result = train(judge, config, arguments.minutes, folder)
        for scale in arguments.guidance:
            images, labels, seconds = draw(
                judge,
                open_denoiser(folder / "denoiser.keras"),
                config.seed,
                solver=arguments.solver,
                timesteps=sampling_timesteps(arguments.steps),
                guidance_scale=scale,
            )
            save_grid(images, labels, folder / f"guidance-{scale:g}.png")
            line = {
                "variant": name,
                "settings": settings,
                "guidance": scale,
                "solver": f"{arguments.solver} {arguments.steps}",
                "sampling_s": round(seconds, 1),
                **judge.verdict(images, labels),
                **result,
            }
            print(json.dumps(line), flush=True)
            with (arguments.out / "results.jsonl").open("a") as stream:
                stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
