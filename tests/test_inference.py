import json

import numpy as np
import onnx
import onnxruntime
import pytest

from kerasmed import inference
from kerasmed.errors import DataError, InputError, MachineError, ModelFileError
from kerasmed.inference import OnnxClassifier, OnnxDenoiser


@pytest.fixture
def model_path(tmp_path):
    """A hand-made classifier: probabilities from the mean of the red channel alone."""
    helper, kinds = onnx.helper, onnx.TensorProto
    scale = onnx.numpy_helper.from_array(np.float32([1 / 255]), "scale")
    axes = onnx.numpy_helper.from_array(np.int64([1, 2]), "axes")
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=kinds.FLOAT),
        helper.make_node("Mul", ["x", "scale"], ["y"]),
        helper.make_node("ReduceMean", ["y", "axes"], ["features"], keepdims=0),
        helper.make_node("Softmax", ["features"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("images", kinds.UINT8, ["n", 4, 4, 3])],
        [
            helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("features", kinds.FLOAT, ["n", 3]),
        ],
        [scale, axes],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    own = {"kind": "classifier", "class_names": ["r", "g", "b"], "input_size": 4}
    helper.set_model_props(model, {f"kerasmed.{k}": json.dumps(v) for k, v in own.items()})
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)


def test_outputs_are_those_of_the_graph(model_path):
    engine = OnnxClassifier(model_path)
    means = IMAGES.mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(engine.features(IMAGES), means, atol=1e-6)
    expected = np.exp(means) / np.exp(means).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(engine.predict(IMAGES), expected, atol=1e-6)
    assert engine.class_names == ["r", "g", "b"]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_results_do_not_depend_on_batch_size(model_path, batch_size):
    found = OnnxClassifier(model_path, batch_size=batch_size).predict(IMAGES)
    np.testing.assert_allclose(found, OnnxClassifier(model_path).predict(IMAGES), atol=1e-7)


def test_plain_onnxruntime_is_enough(model_path):
    session = onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["kerasmed.class_names"])
    (probabilities,) = session.run(["probabilities"], {"images": IMAGES})
    assert names == ["r", "g", "b"]
    np.testing.assert_allclose(probabilities, OnnxClassifier(model_path).predict(IMAGES), atol=1e-7)


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (IMAGES / np.float32(255), r"received float32 \(7, 4, 4, 3\)"),
        (IMAGES.transpose(0, 3, 1, 2), r"received uint8 \(7, 3, 4, 4\)"),
        (IMAGES[..., 0], r"received uint8 \(7, 4, 4\)"),
        (IMAGES[:0], "received an empty batch"),
        (IMAGES[:, :2, :2], r"received \(7, 2, 2, 3\)"),
        ([[1]], "received list"),
    ],
)
def test_other_arrays_are_refused(model_path, images, received):
    with pytest.raises(InputError, match=received):
        OnnxClassifier(model_path).predict(images)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="No model file at"):
        OnnxClassifier(tmp_path / "nowhere.onnx")


def test_file_that_is_not_onnx_is_refused(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    with pytest.raises(ModelFileError, match=r"text\.onnx is not a model that onnxruntime"):
        OnnxClassifier(path)


def test_foreign_onnx_is_refused(model_path):
    model = onnx.load(model_path)
    del model.metadata_props[:]
    onnx.save(model, model_path)
    with pytest.raises(ModelFileError, match="ONNX but not a kerasmed classifier"):
        OnnxClassifier(model_path)


def test_classifier_is_not_taken_for_a_denoiser(model_path):
    with pytest.raises(ModelFileError, match="not a kerasmed denoiser"):
        OnnxDenoiser(model_path)


def test_unknown_provider_is_refused(model_path):
    with pytest.raises(InputError, match="expected one of auto, cpu, cuda; received 'tpu'"):
        OnnxClassifier(model_path, provider="tpu")


def test_cuda_that_does_not_run_is_an_error_not_a_quiet_cpu(model_path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(MachineError, match="cuda was asked for but CPUExecutionProvider runs"):
        OnnxClassifier(model_path, provider="cuda")


def test_auto_takes_the_cpu_where_there_is_no_driver(model_path, monkeypatch):
    monkeypatch.setattr(inference, "has_cuda_driver", lambda: False)
    assert OnnxClassifier(model_path).provider == "CPUExecutionProvider"


def test_no_paths_and_unreadable_paths_are_refused(model_path, tmp_path):
    engine = OnnxClassifier(model_path)
    with pytest.raises(InputError, match="at least one path"):
        engine.read([])
    with pytest.raises(DataError, match=r"nowhere\.png"):
        engine.read([tmp_path / "nowhere.png"])
