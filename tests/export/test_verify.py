"""``kerasmed export --check`` on a file of a finished study, whole and spoilt in every way."""

import json
import shutil

import numpy as np
import onnx
import pytest

from kerasmed.errors import ModelFileError
from kerasmed.export.classifiers import export_float16
from kerasmed.export.verify import verify_file
from kerasmed.saved_models import load_model
from kerasmed.study.run_folder import open_trained_model

NAME = "MobileNet-real-s0"


@pytest.fixture
def exported(tiny_run, tmp_path):
    """A classifier file with its sidecar, alone in a folder."""
    for suffix in (".onnx", ".json"):
        shutil.copyfile(tiny_run / "exported" / f"{NAME}{suffix}", tmp_path / f"{NAME}{suffix}")
    return tmp_path / f"{NAME}.onnx"


@pytest.fixture
def in_run(exported, tiny_run, tmp_path):
    """The same in a run folder with its Keras model."""
    run = tmp_path / "run"
    (run / "exported").mkdir(parents=True)
    for path in (exported, exported.with_suffix(".json")):
        shutil.copyfile(path, run / "exported" / path.name)
    shutil.copytree(tiny_run / "classifiers" / NAME, run / "classifiers" / NAME)
    return run / "exported" / exported.name


def test_a_whole_file_passes(exported):
    results = verify_file(exported)
    assert results["ONNX standard"] == "followed, opset ai.onnx 18"
    assert results["sidecar"] == "the same metadata, SHA-256 matches"
    assert "no Keras model to check against" in results["parity"]


def test_parity_is_tried_again_where_the_keras_model_is(in_run):
    assert verify_file(in_run, open_trained_model)["parity"].startswith(
        "with Keras on 9 noise images: probabilities"
    )


def test_model_that_was_trained_again_is_noticed(in_run):
    path = in_run.parent.parent / "classifiers" / NAME / "model.keras"
    model = load_model(path)
    head = model.network.get_layer("logits")
    kernel, bias = head.get_weights()
    head.set_weights([kernel, bias + np.float32([1, 0])])
    model.save(path)
    with pytest.raises(ModelFileError, match="trained again; export it again"):
        verify_file(in_run, open_trained_model)


def _spoil(path, change):
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def _forget_seed(model):
    kept = [entry for entry in model.metadata_props if entry.key != "kerasmed.seed"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def test_changed_bytes_are_noticed(exported):
    _spoil(exported, lambda model: setattr(model, "producer_name", "someone else"))
    with pytest.raises(ModelFileError, match="the file was changed after its export"):
        verify_file(exported)


def test_missing_metadata_is_named(exported):
    _spoil(exported, _forget_seed)
    with pytest.raises(ModelFileError, match="complete metadata, received none for seed"):
        verify_file(exported)


def test_sidecar_of_another_file_is_noticed(exported):
    sidecar = json.loads(exported.with_suffix(".json").read_text())
    exported.with_suffix(".json").write_text(json.dumps({**sidecar, "seed": 7}))
    with pytest.raises(ModelFileError, match="received other values for seed"):
        verify_file(exported)


def test_sidecar_that_is_none_is_noticed(exported):
    exported.with_suffix(".json").write_text("[]")
    with pytest.raises(ModelFileError, match="expected the metadata of"):
        verify_file(exported)


def test_features_that_are_no_numbers_are_noticed(exported):
    def spoil(model):
        for node in model.graph.node:
            node.output[:] = ["raw" if name == "features" else name for name in node.output]
            node.input[:] = ["raw" if name == "features" else name for name in node.input]
        nothing = onnx.helper.make_node("Sub", ["raw", "raw"], ["nothing"])
        model.graph.node.extend(
            [nothing, onnx.helper.make_node("Div", ["nothing"] * 2, ["features"])]
        )

    _spoil(exported, spoil)
    exported.with_suffix(".json").unlink()
    with pytest.raises(ModelFileError, match="expected finite outputs"):
        verify_file(exported)


def test_missing_sidecar_is_said(exported):
    exported.with_suffix(".json").unlink()
    assert "no SHA-256 to compare with" in verify_file(exported)["sidecar"]


def test_probabilities_that_do_not_sum_to_one_are_noticed(exported):
    def double(model):
        (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
        softmax.op_type = "Identity"
        del softmax.attribute[:]

    exported.with_suffix(".json").unlink()
    _spoil(exported, double)
    with pytest.raises(ModelFileError, match="expected 2 probabilities summing to 1"):
        verify_file(exported)


def test_file_made_from_another_float32_file_is_noticed(exported):
    half = exported.with_suffix(".fp16.onnx")
    export_float16(exported, np.zeros((3, 16, 16, 3), np.uint8), half)
    assert verify_file(half)
    _spoil(exported, lambda model: setattr(model, "producer_name", "trained again"))
    with pytest.raises(ModelFileError, match="received one of another file; export it again"):
        verify_file(half)


def test_wrong_declared_shape_is_noticed(exported):
    def widen(model):
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7

    exported.with_suffix(".json").unlink()
    _spoil(exported, widen)
    with pytest.raises(ModelFileError, match=r"follows the ONNX standard|can load"):
        verify_file(exported)


def test_a_denoiser_is_one_of_our_files_too(tiny_run, tmp_path):
    for suffix in (".onnx", ".keras"):
        shutil.copyfile(tiny_run / "diffusion" / f"denoiser{suffix}", tmp_path / f"d{suffix}")
    path = tmp_path / "d.onnx"
    assert verify_file(path, open_trained_model)["parity"].startswith("with Keras on noise: ")
    model = load_model(path.with_suffix(".keras"))
    model.set_weights([weight + np.float32(0.01) for weight in model.get_weights()])
    model.save(path.with_suffix(".keras"))
    with pytest.raises(ModelFileError, match="trained again; export it again"):
        verify_file(path, open_trained_model)
    path.with_suffix(".keras").unlink()
    assert "as stated at export" in verify_file(path, open_trained_model)["parity"]
    _spoil(path, lambda model: model.metadata_props.pop(0))
    with pytest.raises(ModelFileError, match=r"d\.onnx"):
        verify_file(path, open_trained_model)
