"""LIME of kerasmed against the `lime` package: fidelity, time and stability, on the same images.

    python benchmarks/lime_against_package.py DIR... --results FILE

Each DIR is as benchmarks/lime_models.py leaves it. Fidelity is the rank correlation of the
superpixel weights of the predicted class with those of 20,000 samples of `lime`'s own kind (kept in
DIR/reference/, 100 seconds of one core an image). Both sides get the same superpixels, those of
quickshift as `lime` makes them. `lime` runs at its defaults: 1,000 samples in batches of 10. Times
want a quiet machine; they are medians over --timed images of each DIR, each side with its own
segmentation.
"""

import argparse
import contextlib
import io
import json
import statistics
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import onnxruntime
from lime.lime_image import LimeImageExplainer

import kerasmed as km
from kerasmed.explain.lime import LimeExplainer
from kerasmed.explain.masks import draw_masks, fill_of, kernel_weights
from kerasmed.explain.perturbation import PerturbedImage
from kerasmed.explain.segments import segment_image
from kerasmed.explain.surrogate import fit_surrogate, rank_correlation, top_overlap
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions

REFERENCE = 20_000
SAMPLES = (256, 384, 512, 640, 1000)
TOP = 5
SEEDS = 10


class Subject:
    """One network and its images."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.engine = OnnxClassifier(folder / "model.onnx")
        session = onnxruntime.InferenceSession(
            folder / "model.onnx", providers=["CPUExecutionProvider"]
        )
        self.plain: Callable = lambda images: session.run(["probabilities"], {"images": images})[0]
        self.images = np.load(folder / "images.npz")["images"]

    def keras(self) -> Callable:
        return km.load_model(self.folder / "model.keras").predict

    def segments(self, number: int) -> np.ndarray:
        """Superpixels of one image, as `lime` makes them."""
        return segment_image(self.images[number], "quickshift", 0)

    def label(self, number: int) -> int:
        """The class that is predicted for one image."""
        return int(self.engine.predict(self.images[number : number + 1])[0].argmax())

    def reference(self, number: int) -> np.ndarray:
        """Weights of the predicted class, one a superpixel."""
        path = self.folder / "reference" / f"{number}.npz"
        image, segments = self.images[number], self.segments(number)
        if not path.exists():
            masks = draw_masks(int(segments.max()) + 1, REFERENCE, 10_000 + number, "independent")
            fill = fill_of(image, segments, "mean")
            perturbed = PerturbedImage(image, segments, fill, self.engine.predict)
            path.parent.mkdir(exist_ok=True)
            np.savez(path, masks=masks, p=perturbed.probabilities(masks))
        samples = np.load(path)
        masks = samples["masks"]
        kernel = kernel_weights(masks.mean(axis=1))
        return fit_surrogate(masks, samples["p"], kernel, False).weights[:, self.label(number)]


def by_lime(
    image: np.ndarray, predict: Callable, samples: int, seed: int, segments: np.ndarray | None
) -> dict[int, np.ndarray]:
    """Weights of every class by the package at its defaults, which segments by itself if None."""
    segmentation = None if segments is None else lambda _: segments
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        explanation = LimeImageExplainer(random_state=seed).explain_instance(
            image, predict, top_labels=4, num_samples=samples, segmentation_fn=segmentation
        )
    return {
        label: np.array([weight for _, weight in sorted(pairs)])
        for label, pairs in explanation.local_exp.items()
    }


def fidelity(subject: Subject, images: int) -> dict[str, list[float]]:
    """Rank correlations with the reference, one an image."""
    correlations: dict[str, list[float]] = {}
    for number in range(images):
        segments, label = subject.segments(number), subject.label(number)
        reference = subject.reference(number)
        image = subject.images[number]
        weights = {"lime 1000": by_lime(image, subject.plain, 1000, number, segments)[label]}
        fill = fill_of(image, segments, "mean")
        perturbed = PerturbedImage(image, segments, fill, subject.engine.predict)
        masks = draw_masks(perturbed.num_segments, SAMPLES[-1], number, "orthogonal")
        probabilities = perturbed.probabilities(masks)
        for count in SAMPLES:
            kernel = kernel_weights(masks[:count].mean(axis=1))
            fitted = fit_surrogate(masks[:count], probabilities[:count], kernel, True)
            weights[f"kerasmed {count}"] = fitted.weights[:, label]
        stopped = LimeExplainer(subject.engine.predict, seed=number).explain(image, segments)
        weights["kerasmed, stopped by its rule"] = stopped.superpixel_weights[:, label]
        correlations.setdefault("samples of the rule", []).append(stopped.num_samples)
        for name, values in weights.items():
            correlations.setdefault(name, []).append(rank_correlation(values, reference))
    return correlations


def times(subject: Subject, images: int, samples: int) -> dict[str, float]:
    """Median seconds an image, each side with its own segmentation."""
    keras_predict = subject.keras()
    engine = subject.engine.predict
    quick, own = (
        LimeExplainer(engine, num_samples=samples, min_samples=samples, segmentation=segmentation)
        for segmentation in ("quickshift", "foreground")
    )
    ways: dict[str, Callable] = {
        "lime over Keras predict": lambda image: by_lime(image, keras_predict, 1000, 0, None),
        "lime over onnxruntime": lambda image: by_lime(image, subject.plain, 1000, 0, None),
        f"kerasmed {samples}, quickshift": quick.explain,
        f"kerasmed {samples}": own.explain,
        "kerasmed, stopped by its rule": LimeExplainer(engine).explain,
    }
    seconds: dict[str, list[float]] = {}
    for name, way in ways.items():
        way(subject.images[0])  # warms up
        for image in subject.images[:images]:
            started = time.perf_counter()
            way(image)
            seconds.setdefault(name, []).append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def stability(subject: Subject, images: int, samples: int, equal_time: int) -> dict[str, float]:
    """Mean Jaccard index of the strongest superpixels over pairs of seeds."""
    overlaps: dict[str, list[float]] = {}
    for number in range(images):
        segments, label = subject.segments(number), subject.label(number)
        image = subject.images[number]
        explanations = [
            LimeExplainer(
                subject.engine.predict, num_samples=samples, min_samples=samples, seed=seed
            ).explain(image, segments)
            for seed in range(SEEDS)
        ]
        sides = {
            f"kerasmed {samples}": [run.superpixel_weights[:, label] for run in explanations],
            f"lime {equal_time}, as long": [
                by_lime(image, subject.plain, equal_time, seed, segments)[label]
                for seed in range(SEEDS)
            ],
        }
        for name, weights in sides.items():
            first, second = map(np.array, zip(*combinations(weights, 2), strict=True))
            overlaps.setdefault(name, []).append(top_overlap(first, second, TOP))
        stated = [run.stability["top_overlap"] for run in explanations]
        overlaps.setdefault("kerasmed, as stated by one run", []).append(float(np.mean(stated)))
    return {name: float(np.mean(values)) for name, values in overlaps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=20, help="of each folder, for the fidelity")
    parser.add_argument("--timed", type=int, default=3)
    parser.add_argument("--samples", type=int, default=640, help="of kerasmed when it is timed")
    measures = ("fidelity", "times", "stability")
    parser.add_argument("--measures", nargs="+", choices=measures, default=measures)
    parser.add_argument("--results", type=Path, required=True)
    arguments = parser.parse_args()
    lines = [{**machine(), **versions()}]
    for folder in arguments.folders:
        subject = Subject(folder)
        line: dict = {"folder": folder.name, "backbone": subject.engine.metadata["backbone"]}
        if "fidelity" in arguments.measures:
            correlations = fidelity(subject, arguments.images)
            line["images"] = arguments.images
            line["fidelity"] = {
                name: round(float(np.mean(values)), 3) for name, values in correlations.items()
            }
        if {"times", "stability"} & set(arguments.measures):  # the latter is in equal time
            seconds = times(subject, arguments.timed, arguments.samples)
            line["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
            ours = seconds[f"kerasmed {arguments.samples}"]
            line["times as fast"] = {
                name: round(value / ours, 1) for name, value in seconds.items() if "lime" in name
            }
            if "stability" in arguments.measures:
                equal = round(1000 * ours / seconds["lime over onnxruntime"])
                line["top 5 overlap"] = stability(
                    subject, arguments.timed, arguments.samples, equal
                )
        lines.append(line)
        print(json.dumps(line), flush=True)
    arguments.results.write_text(json.dumps(lines, indent=2) + "\n")


if __name__ == "__main__":
    main()
