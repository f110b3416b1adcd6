"""What the detail of large images is worth: those of a study with an upscaler, and its small ones.

    python benchmarks/large_images.py CONFIG --data DIR --run RUN --weights PATH [--cnn SEEDS]

RUN is the folder of a study with the same settings that has drawn its synthetic set. What its
diffusion model drew is drawn again and enlarged by the bicubic filter, as a study of that size
would have it. All is judged on the role `reserve`, never on `test`: the power by octave, over that
of real images; KID and coverage in features of a frozen MobileNet at 224 pixels; and the accuracy
of a logistic regression on these features, trained on synthetic and on equally many real images.
What learned from small images is tested on small images. `--cnn` trains the first backbone of the
study likewise. RUN/large_images.png shows two images a class: drawn small, bicubic, upscaled, and a
real one.
"""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from recipe import judged_parser
from upscaling import MOST_OF_A_CLASS, bicubic, by_class, octaves_percent, rounded

from kerasmed.audit.fidelity import fidelity
from kerasmed.classify.recipes import Phase
from kerasmed.data.image_set import ImageSet
from kerasmed.diffusion.config import FACTOR
from kerasmed.diffusion.denoisers import open_denoiser
from kerasmed.diffusion.enlarge import reduce_images
from kerasmed.diffusion.generate import generate_images
from kerasmed.metrics.jackknife import mean_figure, ratio_of
from kerasmed.metrics.linear_probe import fit_probe
from kerasmed.parallel.resolve import resolve_runtime
from kerasmed.runtime.backend import load_keras
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import Config, load_config
from kerasmed.study.inputs import denoiser_path, load_grouped_split, read_synthetic
from kerasmed.study.run_folder import RunFolder

load_keras()  # before anything imports Keras, so that TensorFlow's notices stay off the output

from kerasmed.classify.network import build_classifier, predict_outputs  # noqa: E402
from kerasmed.classify.training import train_classifier  # noqa: E402

SMALL = ", small"


class Study:
    """The sets of a study, at full size and as its small images would be."""

    def __init__(self, config: Config, run: RunFolder):
        image_set, split, groups = load_grouped_split(config, run)
        synthetic = read_synthetic(config, run)
        most = {"train": int(np.bincount(synthetic.labels).max()), "reserve": MOST_OF_A_CLASS}
        rows = {role: by_class(image_set, split[role], count) for role, count in most.items()}
        real, reserve = (image_set.subset(of_role) for of_role in rows.values())
        self.drawn = draw_small(config, run, synthetic.labels)
        self.groups = {role: groups[of_role] for role, of_role in rows.items()}
        self.validation = image_set.subset(split["validation"])
        self.sets = {
            "synthetic": synthetic,
            f"synthetic{SMALL}": replace(synthetic, images=bicubic(self.drawn)),
            "real": real,
            f"real{SMALL}": small(real),
            "reserve": reserve,
            f"reserve{SMALL}": small(reserve),
        }

    def save_grid(self, path: Path) -> None:
        """Two images a class: drawn small, bicubic, upscaled, and a real one."""
        synthetic, real = self.sets["synthetic"], self.sets["real"]
        pixels = self.drawn.repeat(FACTOR, axis=1).repeat(FACTOR, axis=2)
        columns = [
            (pixels, synthetic.labels),
            (self.sets[f"synthetic{SMALL}"].images, synthetic.labels),
            (synthetic.images, synthetic.labels),
            (real.images, real.labels),
        ]
        rows = [
            np.concatenate([images[labels == label][at] for images, labels in columns], axis=1)
            for label in range(len(real.class_names))
            for at in (0, 1)
        ]
        Image.fromarray(np.concatenate(rows)).save(path)


def draw_small(config: Config, run: RunFolder, labels: np.ndarray) -> np.ndarray:
    """What the diffusion model drew first for images of these labels, class after class."""
    counts = np.bincount(labels)
    wanted = [(label, i) for label, count in enumerate(counts) for i in range(count)]
    opened, settings = open_denoiser(denoiser_path(config, run)), config.sampling
    started = time.monotonic()
    drawn = generate_images(
        *opened, wanted, len(counts), config.base_size, config.seed, settings.solver,
        settings.timesteps(), 1.0, settings.batch_size,
    )  # fmt: skip
    images = np.stack([image for *_, image in drawn])
    seconds = (time.monotonic() - started) / len(images)
    print(json.dumps({"drawn": len(images), "s_per_small_image": round(seconds, 2)}), flush=True)
    return images


def small(images: ImageSet) -> ImageSet:
    """The images at a quarter of their size, enlarged again by the bicubic filter."""
    return replace(images, images=bicubic(reduce_images(images.images)))


def compare(study: Study, features: dict[str, np.ndarray]) -> None:
    """Print the spectrum of each set, and how close it is to the reserve images at full size."""
    compared = {"reserve": features["reserve"], "train": features["real"]}
    for name in (f"synthetic{SMALL}", "synthetic", f"real{SMALL}", "real"):
        found = fidelity({**compared, "synthetic": features[name]}, study.groups)
        distances = found["train_to_reserve" if name == "real" else "synthetic_to_reserve"]
        power = octaves_percent(study.sets[name].images, study.sets["reserve"].images)
        print(json.dumps({"set": name, "octaves_percent": power, **rounded(distances)}))


def print_accuracies(name: str, right: dict[str, np.ndarray], groups: np.ndarray) -> None:
    """Print accuracies in percent, and their ratio with its interval over groups.

    Args:
        name: the classifier.
        right: how often each test image was named correctly, float (n,), by a classifier trained on
            ``synthetic`` and on ``real`` images.
        groups: (n,) of the test images.
    """
    _, group = np.unique(groups, return_inverse=True)
    synthetic = mean_figure(right["synthetic"], {"reserve": group}, (0, 1))
    real = mean_figure(right["real"], {"reserve": group}, (1, 0))
    ratio = ratio_of(synthetic, real)
    line = {
        "classifier": name,
        "synthetic": round(100 * synthetic.value, 1),
        "real": round(100 * real.value, 1),
        "ratio": round(ratio.value, 3),
        "interval": [round(end, 3) for end in ratio.interval()],
    }
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = judged_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--cnn", type=int, default=0, metavar="SEEDS", help="trainings of each CNN")
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    config = load_config(arguments.config, arguments.set, arguments.data)
    run = RunFolder(arguments.run)
    study = Study(config, run)
    study.save_grid(run.root / "large_images.png")
    sets, groups = study.sets, study.groups["reserve"]
    facts = {name: len(sets[name]) for name in ("synthetic", "real", "reserve")}
    print(json.dumps({"set": config.name, "image_size": config.data.image_size, **facts}))
    network = build_classifier("MobileNet", 1, config.data.image_size, 224, arguments.weights, 0.0)
    features = {
        name: predict_outputs(network, images.images)["features"] for name, images in sets.items()
    }
    compare(study, features)
    for of in ("", SMALL):
        right = {}
        for name in ("synthetic", "real"):
            images = sets[name + of]
            probe = fit_probe(features[name + of], images.labels, len(images.class_names))
            named = probe.logits(features[f"reserve{of}"]).argmax(axis=1)
            right[name] = (named == sets["reserve"].labels).astype(float)
        print_accuracies(f"logistic regression{of}", right, groups)
    backbone = config.classifiers.backbones[0]
    for of in ("", SMALL) if arguments.cnn else ():
        validation = small(study.validation) if of else study.validation
        right = {}
        for name in ("synthetic", "real"):
            phases = [Phase(sets[name + of], config.classifiers.of_backbone(backbone))]
            of_seeds = []
            for seed in range(arguments.cnn):
                folder = run.root / "large_images" / f"{name}{of}-s{seed}"
                cnn, _ = train_classifier(
                    backbone, phases, validation, config.data.symmetry, seed,
                    resolve_runtime(config.runtime), folder,
                )  # fmt: skip
                of_seeds.append(cnn.predict(sets[f"reserve{of}"]).argmax(axis=1))
            right[name] = (np.array(of_seeds) == sets["reserve"].labels).mean(axis=0)
        print_accuracies(f"{backbone}{of}", right, groups)


if __name__ == "__main__":
    main()
