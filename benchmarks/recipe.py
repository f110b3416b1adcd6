"""Which network and recipe give the best synthetic training set for a fixed budget.

    python benchmarks/recipe.py CONFIG --data DIR --weights PATH --minutes 10 --out DIR \
        --variant NAME "diffusion.learning_rate=0.002 diffusion.cooldown=0.3" --variant ...

Each variant trains a denoiser on the role `train` and draws as many images as that role holds. They
are judged on the role `reserve`, never on `test`: by kernel distance, and by the accuracy of a
logistic regression trained on them, both on features of an ImageNet MobileNet. One line a variant
is printed and added to OUT/results.jsonl.
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

from kerasmed.classify.network import build_classifier, predict_outputs  # noqa: E402
from kerasmed.diffusion.model import DiffusionModel  # noqa: E402
from kerasmed.diffusion.training import train_model  # noqa: E402


class Judge:
    """Kernel distance and train-on-synthetic accuracy on unseen real images.

    Attributes:
        train: the role `train`, to learn from.
        validation: the role `validation`.
        reserve: the role `reserve`, to be judged on.
        groups: groups of the images of `reserve` and `train`.
    """

    def __init__(self, config: Config, run: RunFolder, weights: str):
        if "data" not in run.finished_stages():
            perform(STAGES["data"], config, run)
        image_set, split, groups = load_grouped_split(config, run)
        self.train: ImageSet = image_set.subset(split["train"])
        self.validation: ImageSet = image_set.subset(split["validation"])
        self.reserve: ImageSet = image_set.subset(split["reserve"])
        self._network = build_classifier("MobileNet", 1, image_set.image_size, 160, weights, 0.0)
        self._reserve = self.features(self.reserve.images), self.reserve.labels
        self._train = self.features(self.train.images), self.train.labels
        self.groups = {role: groups[split[role]] for role in ("reserve", "train")}

    def features(self, images: np.ndarray) -> np.ndarray:
        return predict_outputs(self._network, images)["features"]

    def verdict(self, images: np.ndarray, labels: np.ndarray) -> dict:
        synthetic = self.features(images)
        features = {"reserve": self._reserve[0], "train": self._train[0], "synthetic": synthetic}
        distances = fidelity(features, self.groups)
        return {
            "accuracy": round(probe_accuracy(synthetic, labels, *self._reserve), 4),
            "accuracy_real": round(probe_accuracy(*self._train, *self._reserve), 4),
            "kid": round(distances["synthetic_to_reserve"]["kid"], 4),
            "kid_interval": [
                round(end, 4) for end in distances["synthetic_to_reserve"]["interval"]
            ],
            "kid_real": round(distances["train_to_reserve"]["kid"], 4),
        }


def brightness_deviation(images: np.ndarray, labels: np.ndarray) -> float:
    """Standard deviation of the images' mean brightness within a class, as a fraction of white.

    Averaged over the classes.
    """
    means = images.mean(axis=(1, 2, 3)) / 255
    return round(float(np.mean([means[labels == label].std() for label in np.unique(labels)])), 4)


def save_grid(images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """The first ten images of each class, one row a class."""
    rows = [images[labels == label][:10] for label in range(labels.max() + 1)]
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    Image.fromarray(grid).save(path)


def train(judge: Judge, config: Config, minutes: float, folder: Path) -> dict:
    """Train a denoiser in the folder for so many minutes; the record of the training."""
    return train_model(
        DiffusionModel,
        judge.train,
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
    counts = np.bincount(judge.train.labels)
    wanted = [(label, i) for label, count in enumerate(counts) for i in range(count)]
    size = judge.train.image_size
    started = time.monotonic()
    drawn = list(generate_images(*opened, wanted, len(counts), size, seed, **options))
    seconds = time.monotonic() - started
    images = np.stack([image for _, _, image in drawn])
    return images, np.array([label for label, _, _ in drawn]), seconds


def judged_parser(doc: str) -> argparse.ArgumentParser:
    """A parser of the arguments common to all judging scripts."""
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
