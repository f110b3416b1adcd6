"""How a pretrained CNN is best fine-tuned on few real images.

    python benchmarks/finetuning.py CONFIG --data DIR --weights PATH --out DIR \
        --variant NAME "classifiers.finetune_learning_rate=0.0001" --variant ...

Each variant trains the first backbone of CONFIG on the role `train` and stops on `validation`. Its
accuracy is on the role `reserve`; use `--role test` only to report the recipe that was chosen.
The baseline is logistic regression on the frozen features of the same network with the same
weights. Each result is one line, also added to OUT/results.jsonl.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from kerasmed.parallel.resolve import resolve_runtime
from kerasmed.runtime.backend import load_keras
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import load_config
from kerasmed.study.engine import perform
from kerasmed.study.inputs import load_split
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import STAGES

load_keras()  # before anything imports Keras, so that TensorFlow's notices stay off the output

from kerasmed.classify.network import build_classifier, predict_outputs  # noqa: E402
from kerasmed.classify.recipes import Phase  # noqa: E402
from kerasmed.classify.training import train_classifier  # noqa: E402
from kerasmed.metrics.linear_probe import probe_accuracy  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", required=True, help="of the backbone, without top")
    parser.add_argument("--role", choices=["reserve", "test"], default="reserve")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", nargs=2, action="append", metavar=("NAME", "SETTINGS"))
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    weights = f"classifiers.weights={arguments.weights}"
    base = load_config(arguments.config, [weights], arguments.data)
    run = RunFolder(arguments.out)
    if "data" not in run.finished_stages():
        perform(STAGES["data"], base, run)
    image_set, split = load_split(base, run)
    train, validation, judged = (
        image_set.subset(split[role]) for role in ("train", "validation", arguments.role)
    )
    backbone, input_size = base.classifiers.backbones[0], base.classifiers.input_size
    frozen = build_classifier(
        backbone, len(train.class_names), train.image_size, input_size, arguments.weights, 0.0
    )
    features, judged_features = (
        predict_outputs(frozen, subset.images)["features"] for subset in (train, judged)
    )
    accuracy = probe_accuracy(features, train.labels, judged_features, judged.labels)
    print(json.dumps({"variant": "logistic regression, frozen", "accuracy": round(accuracy, 4)}))
    for name, settings in arguments.variant or [("default", "")]:
        config = load_config(arguments.config, [weights, *settings.split()], arguments.data)
        runtime = resolve_runtime(config.runtime, cpu_bfloat16=False)
        accuracies = []
        for seed in range(config.seed, config.seed + arguments.seeds):
            trained, result = train_classifier(
                backbone,
                [Phase(train, config.classifiers.of_backbone(backbone))],
                validation,
                config.data.symmetry,
                seed,
                runtime,
                arguments.out / name,
            )
            probabilities = trained.predict(judged)
            accuracies.append(float((probabilities.argmax(axis=1) == judged.labels).mean()))
            line = {"variant": name, "settings": settings, "role": arguments.role, "seed": seed}
            line |= {"accuracy": round(accuracies[-1], 4), **result}
            print(json.dumps(line), flush=True)
            with (arguments.out / "results.jsonl").open("a") as stream:
                stream.write(json.dumps(line) + "\n")
        spread = round(float(np.std(accuracies, ddof=1)), 4) if len(accuracies) > 1 else None
        mean = round(float(np.mean(accuracies)), 4)
        print(json.dumps({"variant": name, "mean": mean, "deviation": spread}), flush=True)


if __name__ == "__main__":
    main()
