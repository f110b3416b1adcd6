"""The eight networks in Keras and through onnxruntime, on the same images in one process.

    make bench, or: python -m pytest benchmarks/test_inference.py --benchmark-only

Untrained, so that nothing is downloaded: the time does not depend on the weights, and what int8
does to the accuracy is not measured here. Images of 64 pixels are enlarged inside, on both sides.
"""

import statistics

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmed.classify.backbones import BACKBONES
from kerasmed.classify.network import build_classifier
from kerasmed.export.classifiers import export_classifier
from kerasmed.export.precision import to_int8
from kerasmed.inference.classifier import OnnxClassifier

METADATA = {"class_names": ["a", "b"], "backbone": "", "trained_on": "real", "seed": 0}
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
WAYS = ("Keras predict", "Keras compiled call", "onnxruntime float32", "onnxruntime int8")
NETWORKS = [name for name in BACKBONES if name != "MobileNet"]


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, tmp_path_factory):
    """One network: its name, and how each way computes a batch."""
    model = build_classifier(request.param, 2, 64, None, "none", 0.0)
    path = tmp_path_factory.mktemp("models") / f"{request.param}.onnx"
    small = path.with_suffix(".int8.onnx")
    export_classifier(model, 1.0, METADATA, IMAGES[:3], path)
    to_int8(path, IMAGES, small)
    compiled = tf.function(lambda x: model(x, training=False))
    calls = (
        lambda images: model.predict(images, verbose=0),
        lambda images: {name: np.asarray(value) for name, value in compiled(images).items()},
        OnnxClassifier(path).outputs,
        OnnxClassifier(small).outputs,
    )
    yield request.param, dict(zip(WAYS, calls, strict=True))
    keras.backend.clear_session()


@pytest.fixture(scope="module")
def medians(note):
    """Seconds by network, batch and way; the ratios are shown at the end."""
    seconds: dict[tuple[str, int, str], float] = {}
    yield seconds
    for batch in sorted({batch for _, batch, _ in seconds}):
        gains: dict[str, list[float]] = {way: [] for way in WAYS[1:]}
        for name in NETWORKS:
            if (name, batch, WAYS[0]) not in seconds:
                continue
            keras_s = seconds[name, batch, WAYS[0]]
            for way in gains:
                gains[way].append(keras_s / seconds[name, batch, way])
            shown = ", ".join(f"{way} {gains[way][-1]:.2f}" for way in gains)
            note(
                f"{name}, batch {batch}: Keras predict {1000 * keras_s / batch:.2f} ms an image; "
                f"times as fast: {shown}"
            )
        means = ", ".join(f"{way} {statistics.geometric_mean(gains[way]):.2f}" for way in gains)
        note(f"Geometric mean over {len(gains[WAYS[1]])} networks, batch {batch}: {means}")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [1, 16])
def test_inference(benchmark, network, medians, batch, way):
    name, calls = network
    benchmark.group = f"{name}, batch {batch}"
    benchmark.pedantic(calls[way], (IMAGES[:batch],), rounds=7, warmup_rounds=2)
    medians[name, batch, way] = benchmark.stats.stats.median
