"""One exported CNN against Keras `predict` on the same images, in one process."""

import keras
import numpy as np
import pytest

from kerasmed.classify.classifier import build_classifier
from kerasmed.export.classifiers import export_classifier
from kerasmed.inference import OnnxClassifier

METADATA = {"class_names": ["a", "b"], "backbone": "", "trained_on": "real", "seed": 0}
IMAGES = np.random.default_rng(0).integers(0, 256, (32, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["MobileNet", "MobileNetV2"])
def pair(request, tmp_path_factory):
    """A network in Keras and in onnxruntime."""
    model = build_classifier(request.param, 2, 64, None, "none", 0.0)
    path = tmp_path_factory.mktemp("models") / f"{request.param}.onnx"
    export_classifier(model, 1.0, METADATA, IMAGES, path)
    return request.param, model, OnnxClassifier(path)


def test_keras_predict(benchmark, pair):
    name, model, _ = pair
    benchmark.group = f"{name}, 32 images at 224"
    benchmark.pedantic(model.predict, (IMAGES,), {"verbose": 0}, rounds=5, warmup_rounds=1)
    keras.backend.clear_session()


def test_onnxruntime(benchmark, pair):
    name, _, engine = pair
    benchmark.group = f"{name}, 32 images at 224"
    benchmark.pedantic(engine.predict, (IMAGES,), rounds=5, warmup_rounds=1)
