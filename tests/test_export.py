"""Keras against onnxruntime: float32, tolerance 1e-4, on networks whose outputs really vary."""

import json

import keras
import numpy as np
import onnx
import pytest

from kerasmed import export
from kerasmed.classify.backbones import BACKBONES
from kerasmed.classify.classifier import build_classifier
from kerasmed.config import DiffusionConfig
from kerasmed.diffusion.pixels import PixelRange
from kerasmed.diffusion.unet import build_denoiser
from kerasmed.errors import ModelFileError
from kerasmed.inference import OnnxClassifier, OnnxDenoiser

METADATA = {"class_names": ["a", "b", "c"], "backbone": "any", "trained_on": "real", "seed": 0}


def _images(count=5, size=16):
    """Images of very different brightness, so that features vary between them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3))
    return (images * np.linspace(0.1, 1, count)[:, None, None, None]).astype(np.uint8)


def lively_classifier(backbone, size=16):
    """An untrained network whose batch normalisation has the statistics of real activations."""
    keras.utils.set_random_seed(0)
    model = build_classifier(backbone, 3, size, max(64, BACKBONES[backbone].smallest), "none", 0.2)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    for _ in range(2):
        model(_images(32, size), training=True)
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([5 * kernel, bias])
    return model


# The eight backbones: two here, since conversion takes its time; the rest are marked slow.
FAST = ("MobileNet", "EfficientNetB0")


@pytest.mark.parametrize(
    "backbone",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES],
)
def test_exported_file_agrees_with_keras_and_stands_alone(backbone, tmp_path):
    model, images = lively_classifier(backbone), _images(33)
    path = tmp_path / "model.onnx"
    sidecar = export.export_classifier(model, 2.0, METADATA, images, path)
    outputs = {k: np.array(v) for k, v in model(images, training=False).items()}
    scaled = np.exp(outputs["logits"] / 2.0)
    expected = scaled / scaled.sum(axis=1, keepdims=True)
    found = OnnxClassifier(path).outputs(images)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-4)
    assert expected.std(axis=0).min() > 1e-3, "outputs that do not vary would hide any mistake"
    assert found["features"].std(axis=0).max() > 1e-2
    assert sidecar["parity"]["probabilities"] <= 1e-4
    assert json.loads(path.with_suffix(".json").read_text()) == sidecar
    assert [i.name for i in onnx.load(path).graph.input] == ["images"]


def test_swapped_preprocessing_is_noticed(tmp_path):
    model, images = lively_classifier("MobileNet"), _images(33)
    export.export_classifier(model, 1.0, METADATA, images, tmp_path / "model.onnx")
    found = OnnxClassifier(tmp_path / "model.onnx").predict(np.ascontiguousarray(images[..., ::-1]))
    expected = keras.ops.softmax(model(images, training=False)["logits"])
    assert np.abs(found - np.array(expected)).max() > 1e-3


def test_disagreement_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    wrong = {"probabilities": 0.2, "features": 0.0}
    monkeypatch.setattr(export, "_classifier_parity", lambda *_: wrong)
    model = lively_classifier("MobileNet")
    with pytest.raises(ModelFileError, match=r"agree with Keras within 0\.0001, received"):
        export.export_classifier(model, 1.0, METADATA, _images(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("predict", ["x0", "v"])
def test_exported_denoiser_agrees_with_keras(predict, tmp_path):
    settings = DiffusionConfig(widths=[8, 16], predict=predict, dropout=0.1)
    model = build_denoiser(16, 2, settings, PixelRange((90.0, 80.0, 70.0), 55.0))
    rng = np.random.default_rng(0)
    model.set_weights([w + 0.1 * rng.standard_normal(w.shape) for w in model.get_weights()])
    export.export_denoiser(model, {}, tmp_path / "denoiser.onnx")
    noise = rng.standard_normal((7, 16, 16, 3)).astype(np.float32)
    timesteps = np.linspace(0, 999, 7).astype(np.int32)
    labels = np.array([0, 1, 2, 0, 1, 2, 0], np.int32)
    expected = np.array(model([noise, timesteps, labels], training=False))
    found = OnnxDenoiser(tmp_path / "denoiser.onnx")(noise, timesteps, labels)
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
