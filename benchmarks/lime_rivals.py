"""LIME of kerasmed against captum and xplique, in seconds an image of 224 pixels by MobileNetV2.

    python benchmarks/lime_rivals.py DIR --captum PYTHON --xplique PYTHON

DIR is as benchmarks/lime_models.py leaves it; each PYTHON is that of an environment with the rival
(captum and torchvision; xplique and TensorFlow 2.18 to 2.20). Each side runs in a process of its
own, one after the other, on the same image, with the network that is natural to it: torchvision's
or Keras's MobileNetV2 with random weights, on which the time does not depend, or our ONNX file.
Rivals run at their defaults (captum: 50 samples one at a time; xplique: 150 samples in batches of
64) and at 1,000 samples in batches of 16. What is hidden, kernel and regression differ between
the three, so their weights cannot be compared.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

REPEATS = 3


def captum_ways(image: np.ndarray) -> dict[str, Callable]:
    import torch
    from captum.attr import Lime
    from skimage.segmentation import quickshift
    from torchvision.models import mobilenet_v2

    network = mobilenet_v2(num_classes=4).eval()

    def probabilities(batch):
        with torch.no_grad():
            return network(batch).softmax(dim=1)

    def explain(**options) -> None:
        segments = quickshift(image, kernel_size=4, max_dist=200, ratio=0.2, rng=0)
        pixels = torch.from_numpy(image.transpose(2, 0, 1)[None]).float() / 255
        mask = torch.from_numpy(segments)[None, None]
        Lime(probabilities).attribute(pixels, target=0, feature_mask=mask, **options)

    return {
        "captum, 50 samples": explain,
        "captum, 1000 samples": lambda: explain(n_samples=1000, perturbations_per_eval=16),
    }


def xplique_ways(image: np.ndarray) -> dict[str, Callable]:
    import tensorflow as tf
    from xplique.attributions import Lime

    network = tf.keras.applications.MobileNetV2(weights=None, classes=4)
    pixels = image[None].astype(np.float32) / 127.5 - 1
    target = np.eye(4, dtype=np.float32)[:1]
    default = Lime(network)
    large = Lime(network, batch_size=16, nb_samples=1000)
    return {
        "xplique, 150 samples": lambda: default.explain(pixels, target),
        "xplique, 1000 samples": lambda: large.explain(pixels, target),
    }


def kerasmed_ways(image: np.ndarray, model: Path) -> dict[str, Callable]:
    from kerasmed.explain.lime import LimeExplainer
    from kerasmed.inference.classifier import OnnxClassifier

    predict = OnnxClassifier(model).predict

    def explainer(samples: int) -> Callable:
        lime = LimeExplainer(
            predict, num_samples=samples, min_samples=samples, segmentation="quickshift"
        )
        return lambda: lime.explain(image)

    ways = {f"kerasmed, {count} samples": explainer(count) for count in (50, 150, 1000)}
    stopping = LimeExplainer(predict)
    return ways | {"kerasmed, its defaults": lambda: stopping.explain(image)}


def timed(ways: dict[str, Callable]) -> dict[str, float]:
    """Median seconds of each way, warmed up."""
    medians = {}
    for name, way in ways.items():
        way()
        seconds = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            way()
            seconds.append(time.perf_counter() - started)
        medians[name] = round(statistics.median(seconds), 2)
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--captum", help="Python with captum")
    parser.add_argument("--xplique", help="Python with xplique")
    parser.add_argument("--side", choices=["captum", "xplique"], help="used by the script itself")
    arguments = parser.parse_args()
    image = np.load(arguments.folder / "images.npz")["images"][0]
    if arguments.side:
        ways = captum_ways(image) if arguments.side == "captum" else xplique_ways(image)
        print(json.dumps(timed(ways)))
        return
    from kerasmed.runtime.hardware import machine
    from kerasmed.runtime.versions import versions

    print(json.dumps({**machine(), **versions()}))
    print(json.dumps(timed(kerasmed_ways(image, arguments.folder / "model.onnx"))))
    for side in ("captum", "xplique"):
        if python := getattr(arguments, side):
            command = [python, __file__, str(arguments.folder), "--side", side]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
