"""Shuffled networks: the same numbers in other places."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from scipy.special import softmax

from kerasmed.errors import ModelFileError
from kerasmed.explain.randomisation import LOGITS, randomise_weights

IMAGES = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)


@pytest.fixture
def network(tmp_path):
    """Two dense layers with biases, and arrays of other kinds that must stay."""
    rng, helper = np.random.default_rng(1), onnx.helper
    arrays = {
        "first": rng.standard_normal((12, 8)).astype(np.float32),
        "first_bias": rng.standard_normal(8).astype(np.float32),
        "second": rng.standard_normal((8, 3)).astype(np.float32),
        "scale": np.float32(0.5),
        "whole_numbers": np.arange(6).reshape(1, 6),
        "doubles": np.arange(6.0).reshape(2, 3),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Add", ["a", "first_bias"], ["b"]),
        helper.make_node("Tanh", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "second"], ["d"]),
        helper.make_node("Mul", ["d", "scale"], ["y"]),
        helper.make_node("Softmax", ["y"], ["probabilities"]),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", kind, ["n", 12])],
        [helper.make_tensor_value_info("probabilities", kind, ["n", 3])],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in arrays.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    helper.set_model_props(model, {"kerasmed.kind": '"classifier"', "kerasmed.seed": "3"})
    path = tmp_path / "network.onnx"
    onnx.save(model, path)
    return path


def _arrays(path):
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


def _outputs(path, name="probabilities"):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run([name], {"x": IMAGES})[0]


@pytest.fixture
def shuffled(network):
    path = network.with_name("shuffled.onnx")
    randomise_weights(network, path, 0)
    return path


@pytest.mark.parametrize("name", ["first", "second"])
def test_weights_are_the_old_ones_in_another_order(network, shuffled, name):
    before, after = _arrays(network)[name], _arrays(shuffled)[name]

    assert (after.shape, after.dtype) == (before.shape, np.float32)
    assert (after != before).mean() > 0.5
    np.testing.assert_array_equal(np.sort(after.ravel()), np.sort(before.ravel()))


@pytest.mark.parametrize("name", ["first_bias", "scale", "whole_numbers", "doubles"])
def test_other_arrays_stay(network, shuffled, name):
    np.testing.assert_array_equal(_arrays(shuffled)[name], _arrays(network)[name])


def test_graph_and_metadata_stay(network, shuffled):
    before, after = onnx.load(network), onnx.load(shuffled)

    assert after.metadata_props == before.metadata_props
    assert after.graph.node[:-1] == before.graph.node
    assert [each.name for each in after.graph.initializer] == list(_arrays(network))
    onnx.checker.check_model(after)


def test_outputs_change_and_still_depend_on_the_input(network, shuffled):
    before, after = _outputs(network), _outputs(shuffled)

    assert np.abs(after - before).max() > 0.1
    assert after.std(axis=0).min() > 0.01


def test_what_goes_into_the_softmax_is_an_output(shuffled):
    logits = _outputs(shuffled, LOGITS)

    np.testing.assert_allclose(softmax(logits, axis=1), _outputs(shuffled), rtol=1e-5)


def test_network_without_a_softmax_is_refused(network):
    model = onnx.load(network)
    model.graph.node[-1].op_type = "Relu"
    onnx.save(model, network)

    with pytest.raises(
        ModelFileError, match="expected probabilities from a softmax, received Relu"
    ):
        randomise_weights(network, network.with_name("shuffled.onnx"), 0)


def test_seed_governs_the_order(network, shuffled):
    again, other = (network.with_name(name) for name in ("again.onnx", "other.onnx"))
    randomise_weights(network, again, 0)
    randomise_weights(network, other, 1)

    assert again.read_bytes() == shuffled.read_bytes()
    assert (_arrays(other)["first"] != _arrays(shuffled)["first"]).any()


def test_source_is_left_as_it_was(network):
    before = network.read_bytes()
    randomise_weights(network, network.with_name("shuffled.onnx"), 0)

    assert network.read_bytes() == before


def test_nothing_is_left_of_a_failure(network, monkeypatch):
    def full(*_):
        raise OSError("no room")

    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(OSError, match="no room"):
        randomise_weights(network, network.with_name("shuffled.onnx"), 0)

    assert [each.name for each in network.parent.iterdir()] == ["network.onnx"]


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        randomise_weights(tmp_path / "nowhere.onnx", tmp_path / "shuffled.onnx", 0)
