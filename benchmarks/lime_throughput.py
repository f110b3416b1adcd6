"""Images explained a minute by LIME, and what it depends on.

    python benchmarks/lime_throughput.py DIR     (as benchmarks/lime_models.py leaves it)

A folder of 100 images at the defaults, then 10 images for each other setting; for the resolution,
untrained networks of the same backbone.
"""

import argparse
import json
import time
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from kerasmed.explain.lime import LimeExplainer
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.runtime.backend import load_keras
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions

FOLDER, FEW, SAMPLES = 100, 10, 512


def images_a_minute(engine: OnnxClassifier, images: np.ndarray, count: int, **settings) -> dict:
    explainer = LimeExplainer(engine.predict, **settings)
    explainer.explain(images[0])
    started = time.perf_counter()
    explanations = [explainer.explain(image) for image in islice(cycle(images), count)]
    seconds = time.perf_counter() - started
    superpixels = np.mean([len(run.superpixel_weights) for run in explanations])
    return {
        **settings,
        "images": count,
        "images a minute": round(60 * count / seconds, 1),
        "superpixels in the mean": round(superpixels, 1),
        "samples in the mean": round(np.mean([run.num_samples for run in explanations])),
        "with warnings": sum(bool(run.warnings) for run in explanations),
    }


def fixed(samples: int) -> dict:
    return {"num_samples": samples, "min_samples": samples}


def of_size(backbone: str, size: int, folder: Path) -> OnnxClassifier:
    """An untrained network for images of that size."""
    load_keras()
    from kerasmed.classify.network import build_classifier
    from kerasmed.export.classifiers import export_classifier

    model = build_classifier(backbone, 4, size, size, "none", 0.0)
    metadata = {"class_names": list("abcd"), "backbone": backbone, "trained_on": "real", "seed": 0}
    noise = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    path = folder / f"{size}.onnx"
    export_classifier(model, 1.0, metadata, noise, path)
    return OnnxClassifier(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    engine = OnnxClassifier(folder / "model.onnx")
    images = np.load(folder / "images.npz")["images"]
    print(json.dumps({**machine(), **versions()}))
    print(json.dumps(images_a_minute(engine, images, FOLDER)), flush=True)
    for samples in (256, 512, 1000, 2000):
        print(json.dumps(images_a_minute(engine, images, FEW, **fixed(samples))), flush=True)
    for superpixels in (25, 100, 200, 400):
        settings = {**fixed(SAMPLES), "superpixels": superpixels}
        print(json.dumps(images_a_minute(engine, images, FEW, **settings)), flush=True)
    with TemporaryDirectory() as temporary:
        for size in (64, 128, 224, 384):
            sized = np.stack([np.asarray(Image.fromarray(i).resize((size, size))) for i in images])
            network = of_size(engine.metadata["backbone"], size, Path(temporary))
            line = images_a_minute(network, sized, FEW, **fixed(SAMPLES))
            print(json.dumps({"resolution": size, **line}), flush=True)


if __name__ == "__main__":
    main()
