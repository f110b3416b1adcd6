"""What an upscaler costs and gains: from real small images to their full size.

    python benchmarks/upscaling.py CONFIG --data DIR --weights PATH --out DIR \
        [--images 100000] [--steps 4 6 10] [--variant NAME "widths=[48,96,128] base_noise=0.1" ...]

Each variant trains an upscaler on the role `train` for so many crops, and exports it. Half of the
groups of the role `reserve` are then reduced to a quarter of their size and enlarged again, by the
upscaler through onnxruntime, in a process of its own, and by the bicubic filter. The power by
octave is over that of the same images at full size. KID and coverage are of features of an ImageNet
MobileNet at 224 pixels, against the other half. `OUT/NAME.png` shows two images a class, a row
each: the small image with visible pixels, bicubic, upscaled, real.
"""

import argparse
import json
import multiprocessing
import re
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from kerasmed.audit.fidelity import Distances, fidelity
from kerasmed.data.image_set import ImageSet
from kerasmed.diffusion.config import FACTOR
from kerasmed.diffusion.enlarge import reduce_images
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions

MOST_OF_A_CLASS = 50  # images of each half of `reserve`


def power_by_octave(images: np.ndarray) -> np.ndarray:
    """Mean power of the grey images by octave, the last of which ends at half a cycle a pixel."""
    grey = images @ np.array([0.299, 0.587, 0.114])
    size = grey.shape[1]
    power = np.square(np.abs(np.fft.fft2(grey))).mean(axis=0)
    frequencies = np.fft.fftfreq(size)
    radius = np.hypot(frequencies[:, None], frequencies[None])
    ends = 0.5 / 2 ** np.arange(4, -1, -1)
    return np.array([power[(radius > end / 2) & (radius <= end)].mean() for end in ends])


def octaves_percent(images: np.ndarray, real: np.ndarray) -> list[int]:
    """The power by octave, in percent of that of real images."""
    return (100 * power_by_octave(images) / power_by_octave(real)).round().astype(int).tolist()


def rounded(distances: Distances) -> dict:
    return {
        "kid": round(distances["kid"], 3),
        "kid_interval": [round(end, 3) for end in distances["interval"]],
        "coverage": round(distances["coverage"], 3),
    }


def bicubic(base: np.ndarray) -> np.ndarray:
    size = FACTOR * base.shape[1]
    enlarged = [Image.fromarray(i).resize((size, size), Image.Resampling.BICUBIC) for i in base]
    return np.stack([np.asarray(image) for image in enlarged])


def draw(file: Path, base: np.ndarray, labels: np.ndarray, steps: int, out: Path) -> dict:
    """Enlarge the images into ``out``; seconds an image and the peak memory of this process."""
    from kerasmed.diffusion.upscale import upscale_images, upscaling_timesteps
    from kerasmed.inference.upscaler import OnnxUpscaler

    network = OnnxUpscaler(file)
    wanted = [(int(label), i) for i, label in enumerate(labels)]
    started = time.perf_counter()
    drawn = upscale_images(network, network.ranges, base, wanted, 0, upscaling_timesteps(steps))
    images = np.stack([image for _, _, image in drawn])
    seconds = (time.perf_counter() - started) / len(images)
    np.save(out, images)
    return {"s_per_image": round(seconds, 3), "drawing_peak_gib": peak_gib()}


def peak_gib() -> float:
    """The peak of this process; `ru_maxrss` would count that of the process which started it."""
    status = Path("/proc/self/status").read_text()
    return round(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**20, 2)


def by_class(images: ImageSet, rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows from each class, evenly spread."""
    chosen = []
    for label in range(len(images.class_names)):
        of_class = rows[images.labels[rows] == label]
        at = np.linspace(0, len(of_class) - 1, min(most, len(of_class))).round().astype(int)
        chosen.append(of_class[at])
    return np.concatenate(chosen)


class Judge:
    """Compares enlarged images with the real ones, and with other real ones."""

    def __init__(self, reserve: ImageSet, groups: np.ndarray, weights: str):
        from kerasmed.classify.network import build_classifier, predict_outputs

        network = build_classifier("MobileNet", 1, reserve.image_size, 224, weights, 0.0)
        self.features = lambda images: predict_outputs(network, images)["features"]
        names = np.unique(groups)
        is_first = np.isin(groups, names[::2])
        halves = np.flatnonzero(is_first), np.flatnonzero(~is_first)
        given, others = (by_class(reserve, rows, MOST_OF_A_CLASS) for rows in halves)
        self.real, self.groups = reserve.subset(given), groups[given]
        self.other_groups = groups[others]
        self.real_features = self.features(self.real.images)
        self.other_features = self.features(reserve.subset(others).images)

    def verdict(self, images: np.ndarray) -> dict:
        features = {
            "reserve": self.other_features,
            "train": self.real_features,
            "synthetic": self.features(images),
        }
        found = fidelity(features, {"reserve": self.other_groups, "train": self.groups})
        off = np.abs(images.astype(int) - self.real.images).mean()
        return {
            "octaves_percent": octaves_percent(images, self.real.images),
            **rounded(found["synthetic_to_reserve"]),
            "real": rounded(found["train_to_reserve"]),
            "grey_levels_off": round(float(off), 2),
        }


def save_grid(columns: list[np.ndarray], labels: np.ndarray, path: Path) -> None:
    rows = [at for label in np.unique(labels) for at in np.flatnonzero(labels == label)[[3, -4]]]
    grid = [np.concatenate([column[row] for column in columns], axis=1) for row in rows]
    Image.fromarray(np.concatenate(grid)).save(path)


def train(roles: dict[str, ImageSet], config, settings: dict, crops: int, path: Path) -> dict:
    """Train and export an upscaler; the record of the training."""
    from kerasmed.diffusion.upscaler import Upscaler
    from kerasmed.parallel.resolve import resolve_runtime

    runtime = resolve_runtime(config.runtime)
    model = Upscaler.from_images(
        roles["train"], config.data.symmetry, config.seed, runtime.precision, **settings
    )
    model.compile(jit_compile=runtime.jit_compile)
    epochs = 5
    steps = max(1, crops // epochs // model.settings.batch_size)
    started = time.perf_counter()
    history = model.fit(
        roles["train"],
        validation_data=roles["validation"],
        epochs=epochs,
        steps_per_epoch=steps,
        verbose=2,
    )
    seconds = time.perf_counter() - started
    model.save(path.with_suffix(".keras"))
    model.export(path)
    crops = epochs * steps * model.settings.batch_size
    return {
        "parameters": model.count_params(),
        "precision": runtime.precision,
        "crops": crops,
        "crops_per_s": round(crops / seconds, 1),
        "training_s": round(seconds),
        "training_peak_gib": peak_gib(),
        "detail_scale": round(model.detail_scale, 1),
        "validation_loss": [round(loss, 4) for loss in history.history["val_loss"]],
    }


def main() -> None:
    from kerasmed.runtime.backend import load_keras
    from kerasmed.study.config import load_config
    from kerasmed.study.engine import perform
    from kerasmed.study.inputs import load_grouped_split
    from kerasmed.study.run_folder import RunFolder
    from kerasmed.study.stages import STAGES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--weights", required=True, help="MobileNet without top, for the judge")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100_000, help="crops to learn from")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 10])
    parser.add_argument("--variant", nargs=2, action="append", metavar=("NAME", "SETTINGS"))
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    load_keras()
    config = load_config(arguments.config, arguments.set, arguments.data)
    run = RunFolder(arguments.out)
    if "data" not in run.finished_stages():
        perform(STAGES["data"], config, run)
    image_set, split, groups = load_grouped_split(config, run)
    roles = {role: image_set.subset(split[role]) for role in ("train", "validation", "reserve")}
    judge = Judge(roles["reserve"], groups[split["reserve"]], arguments.weights)
    base, labels = reduce_images(judge.real.images), judge.real.labels
    print(json.dumps({"enlarged": "bicubic", "images": len(base), **judge.verdict(bicubic(base))}))
    for name, text in arguments.variant or [("default", "")]:
        settings = {
            key: yaml.safe_load(value) for key, value in (s.split("=") for s in text.split())
        }
        file = arguments.out / f"{name}.onnx"
        record = train(roles, config, settings, arguments.images, file)
        print(json.dumps({"variant": name, "settings": settings, **record}), flush=True)
        shown = [base.repeat(FACTOR, axis=1).repeat(FACTOR, axis=2), bicubic(base)]
        for steps in arguments.steps:
            out = arguments.out / f"{name}-{steps}.npy"
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                drawing = pool.apply(draw, (file, base, labels, steps, out))
            images = np.load(out)
            line = {"variant": name, "steps": steps, **drawing, **judge.verdict(images)}
            print(json.dumps(line), flush=True)
            save_grid(
                [*shown, images, judge.real.images], labels, arguments.out / f"{name}-{steps}.png"
            )


if __name__ == "__main__":
    main()
