"""What the benchmarks of LIME explain: a CNN on a real set, and 20 unseen images of 224 pixels.

    python benchmarks/lime_models.py CONFIG --data DIR --weights PATH --out DIR

The CNN is the backbone with ImageNet weights and a logistic regression on the role `train`. With
`--weights none` it is trained from scratch for `--epochs`, or untrained, which is enough for times.
The images are of the role `reserve`, equally many of each class. Writes model.keras, model.onnx and
images.npz.
"""

import argparse
from pathlib import Path

import numpy as np

from kerasmed.parallel.resolve import resolve_runtime
from kerasmed.runtime.backend import load_keras
from kerasmed.study.config import load_config
from kerasmed.study.engine import perform
from kerasmed.study.inputs import load_split
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import STAGES

load_keras()  # before anything imports Keras, so that TensorFlow's notices stay off the output

from kerasmed.classify.model import ImageClassifier  # noqa: E402
from kerasmed.classify.recipes import Phase  # noqa: E402
from kerasmed.classify.training import train_classifier  # noqa: E402

IMAGES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--weights", required=True, help="of the backbone, without top")
    parser.add_argument("--input-size", type=int, default=224, help="images have 224 pixels")
    parser.add_argument("--epochs", type=int, default=0, help="from scratch")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    scratch = arguments.weights == "none"
    trained = not scratch or arguments.epochs > 0
    settings = ["data.image_size=224", f"classifiers.weights={arguments.weights}"]
    if trained:
        settings += [f"classifiers.finetune_epochs={arguments.epochs}"]
    if scratch:
        settings += ["classifiers.finetune_learning_rate=0.001"]
    config = load_config(arguments.config, settings, arguments.data)
    run = RunFolder(arguments.out)
    if "data" not in run.finished_stages():
        perform(STAGES["data"], config, run)
    image_set, split = load_split(config, run)
    train, validation, reserve = (
        image_set.subset(split[role]) for role in ("train", "validation", "reserve")
    )
    recipe = config.classifiers.of_backbone(arguments.backbone).model_copy(
        update={"input_size": arguments.input_size}
    )
    if trained:
        runtime = resolve_runtime(config.runtime, cpu_bfloat16=False)
        common = config.data.symmetry, config.seed, runtime, arguments.out
        phases = [Phase(train, recipe)]
        model, _ = train_classifier(arguments.backbone, phases, validation, *common)
    else:
        model = ImageClassifier(arguments.backbone, train.image_size, train.class_names, recipe)
        model.save(arguments.out / "model.keras")
    metadata = {"trained_on": "real", "seed": config.seed, "n_train": len(train)}
    images = validation.images[:33]
    print(model.export(arguments.out / "model.onnx", images, **metadata)["parity"])
    chosen = np.concatenate([_spread(reserve.labels, label) for label in np.unique(train.labels)])
    np.savez(arguments.out / "images.npz", images=reserve.images[np.sort(chosen)])


def _spread(labels: np.ndarray, label: int) -> np.ndarray:
    """Positions of images of one class, far from each other in file order."""
    positions = np.flatnonzero(labels == label)
    count = IMAGES // len(np.unique(labels))
    return positions[np.linspace(0, len(positions) - 1, count).astype(int)]


if __name__ == "__main__":
    main()
