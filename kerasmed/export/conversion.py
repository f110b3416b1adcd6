"""Conversion of a TensorFlow function to a small, equivalent ONNX graph. Needs TensorFlow."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx
import tf2onnx.optimizer
from onnx import numpy_helper

from kerasmed.errors import MachineError, ModelFileError

OPSET = 18

# It tries 11,000 orders of the axes of an attention's products, which takes 15 s. onnxruntime runs
# Einsum as fast.
tf2onnx.optimizer._optimizers.pop("einsum_optimizer", None)


def convert(
    serve, signature: list[tf.TensorSpec], weights: Sequence[keras.Variable] = ()
) -> onnx.ModelProto:
    """A TensorFlow function as ONNX, with every captured constant inside the file.

    tf2onnx 1.17 turns captured eager tensors into graph inputs: a Normalization layer's mean, a
    Rescaling layer's list, an array in a user's own network. Here each becomes an initializer.

    Args:
        serve: the function.
        signature: its arguments.
        weights: variables of the networks that it calls, to hide from tf2onnx: it copies constants
            so often that 500 MB of weights take 20 GiB, and minutes.

    Raises:
        MachineError: Keras runs on another backend.
        ModelFileError: the graph has more inputs than the signature.
    """
    if (backend := keras.backend.backend()) != "tensorflow":
        raise MachineError(
            f"The export to ONNX needs TensorFlow, received {backend}; unset KERAS_BACKEND and "
            "repeat the command. Trained models are kept."
        )
    weight_specs = [
        tf.TensorSpec(weight.shape, weight.dtype, name=f"weight_{i}")
        for i, weight in enumerate(weights)
    ]

    def with_weights(*inputs):
        values = inputs[len(signature) :]
        with keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True))):
            return serve(*inputs[: len(signature)])

    arguments = [*signature, *weight_specs]
    function = tf.function(with_weights, input_signature=arguments, autograph=False)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=arguments, opset=OPSET)
    captures = {
        internal.name: tensor
        for tensor, internal in function.get_concrete_function().graph.captures
        if tensor.dtype != tf.resource
    }
    captures |= {
        spec.name: weight.value for spec, weight in zip(weight_specs, weights, strict=True)
    }
    expected = {spec.name for spec in signature}
    for graph_input in list(proto.graph.input):
        if graph_input.name in expected:
            continue
        tensor = captures.get(graph_input.name)
        if tensor is None:
            raise ModelFileError(
                f"The converted graph has an input {graph_input.name!r}: expected only "
                f"{sorted(expected)}; this is a fault of the conversion, please report it."
            )
        value = numpy_helper.from_array(tensor.numpy(), graph_input.name)
        proto.graph.initializer.append(value)
        proto.graph.input.remove(graph_input)
    return _simplify(proto)


def write_model(proto: onnx.ModelProto, metadata: dict[str, Any], path: Path) -> None:
    """Check a model against the ONNX standard and write it with its metadata."""
    onnx.checker.check_model(proto, full_check=True)
    properties = {f"kerasmed.{key}": _json(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(proto, properties)
    path.write_bytes(proto.SerializeToString())


def _json(value: Any) -> str:
    """JSON with readable names in any script; bytes that are not UTF-8 stay escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()


def optimized_graph(path: Path, level: onnxruntime.GraphOptimizationLevel) -> onnx.ModelProto:
    """The graph that onnxruntime runs on a CPU for a file, at an optimisation level."""
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def _simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with constants folded, pads and scales merged, and transposes cancelled.

    Pads and scales go into convolutions. onnxruntime does all this at every start, but its
    quantiser does not, and neither do other runtimes.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "converted.onnx"
        path.write_bytes(proto.SerializeToString())
        simple = optimized_graph(path, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    _pool_globally(simple.graph)
    used = {name for node in simple.graph.node for name in node.input}
    for tensor in [tensor for tensor in simple.graph.initializer if tensor.name not in used]:
        simple.graph.initializer.remove(tensor)
    domains = {node.domain for node in simple.graph.node}
    for opset in [opset for opset in simple.opset_import if opset.domain not in domains]:
        simple.opset_import.remove(opset)
    return simple


def _pool_globally(graph: onnx.GraphProto) -> None:
    """Replace means over height and width by GlobalAveragePool, which the quantiser knows."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        keep = all(attribute.i for attribute in node.attribute if attribute.name == "keepdims")
        axes = constants.get(node.input[1]) if node.op_type == "ReduceMean" else None
        nodes.append(node)
        if axes is None or numpy_helper.to_array(axes).tolist() != [2, 3]:
            continue
        (output,) = node.output
        pooled = output if keep else f"{output}_pooled"
        nodes[-1] = onnx.helper.make_node(
            "GlobalAveragePool", [node.input[0]], [pooled], f"{node.name}_pooled"
        )
        if not keep:
            nodes.append(onnx.helper.make_node("Flatten", [pooled], [output], node.name, axis=1))
    del graph.node[:]
    graph.node.extend(nodes)
