"""LIME: this package against `lime` 0.2.0.1, over the same onnxruntime session and image."""

import numpy as np
import pytest
from lime.lime_image import LimeImageExplainer

from kerasmed.classify.network import build_classifier
from kerasmed.data.phantoms import draw_phantom
from kerasmed.explain.lime import LimeExplainer
from kerasmed.export.classifiers import export_classifier
from kerasmed.inference.classifier import OnnxClassifier

METADATA = {"class_names": ["a", "b"], "backbone": "", "trained_on": "real", "seed": 0}
SIZE, SAMPLES = 128, 300


@pytest.fixture(scope="module")
def predict(tmp_path_factory):
    """A small network through onnxruntime."""
    model = build_classifier("MobileNet", 2, SIZE, SIZE, "none", 0.0)
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    export_classifier(model, 1.0, METADATA, images, path)
    return OnnxClassifier(path).predict


@pytest.fixture(scope="module")
def image():
    """A head phantom."""
    return draw_phantom("mri", "ring_lesion", 0, SIZE, 0)[0]


def test_kerasmed(benchmark, predict, image):
    benchmark.group = f"LIME, {SAMPLES} samples at {SIZE}, quickshift"
    explainer = LimeExplainer(
        predict, num_samples=SAMPLES, min_samples=SAMPLES, segmentation="quickshift"
    )
    benchmark.pedantic(explainer.explain, (image,), rounds=3, warmup_rounds=1)


def test_lime(benchmark, predict, image):
    benchmark.group = f"LIME, {SAMPLES} samples at {SIZE}, quickshift"
    explain = LimeImageExplainer(random_state=0).explain_instance
    options = {"num_samples": SAMPLES, "top_labels": 2}
    benchmark.pedantic(explain, (image, predict), options, rounds=3, warmup_rounds=1)
