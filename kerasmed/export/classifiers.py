"""Classifiers as ONNX: float32 checked against Keras, float16 and int8 against float32.

Needs TensorFlow.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf

from kerasmed import __version__
from kerasmed.data.readers import FILTER
from kerasmed.errors import ModelFileError
from kerasmed.export.conversion import OPSET, convert, optimized_graph, write_model
from kerasmed.export.precision import GateImages, greatest_activation, quantize_gated, to_float16
from kerasmed.files import sha256_of, write_json, written_aside
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.metadata import FORMAT

# Greatest allowed difference of probabilities, and of features relative to the largest feature:
# between float32 and Keras, and between float16 and float32.
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2}


def export_classifier(
    model: keras.Model,
    temperature: float,
    metadata: dict[str, Any],
    images: np.ndarray,
    path: Path,
) -> dict[str, Any]:
    """Write ``<name>.onnx`` in float32 and its sidecar ``<name>.json``.

    Args:
        model: a float32 classifier, see ``build_classifier``.
        temperature: divides the logits before softmax.
        metadata: metadata of the file; must contain ``class_names`` and ``backbone``.
        images: uint8 images for the parity check.
        path: path of the ONNX file.

    Returns:
        The sidecar's content: metadata, parity, SHA-256.

    Raises:
        ModelFileError: onnxruntime and Keras disagree by more than the tolerance; nothing is
            written.
    """
    size = model.input.shape[1]
    signature = [tf.TensorSpec((None, size, size, 3), tf.uint8, name="images")]
    proto = convert(serving_function(model, temperature), signature)
    metadata = {
        "kerasmed_version": __version__,
        "format": FORMAT,
        "kind": "classifier",
        "input_size": size,
        "resize_filter": FILTER,
        "temperature": temperature,
        "opset": OPSET,
        "precision": "fp32",
        **metadata,
    }
    expected = keras_outputs(model, temperature, images)
    return _write_checked(proto, metadata, path, expected, images, "Keras")


def export_float16(source: Path, images: np.ndarray, path: Path) -> dict[str, Any]:
    """Convert a float32 classifier file to float16 weights and arithmetic.

    Args:
        source: a file that ``export_classifier`` wrote.
        images: uint8 images for the parity check.
        path: path of the float16 file.

    Returns:
        The sidecar's content.

    Raises:
        ModelFileError: float16 differs from float32 by more than the tolerance, or activations
            exceed float16's range; nothing is written.
    """
    engine = OnnxClassifier(source, provider="cpu")
    expected = engine.outputs(images)
    greatest, limit = greatest_activation(source, images), float(np.finfo(np.float16).max)
    if not greatest <= limit:
        raise ModelFileError(
            f"{path.name}: expected activations of at most {limit:.0f}, the end of float16's "
            f"range, received {greatest:.3g}; use fp32 or int8."
        )
    proto = to_float16(onnx.load(source))
    metadata = {**engine.metadata, "precision": "fp16", "float32_sha256": sha256_of(source)}
    return _write_checked(proto, metadata, path, expected, images, "float32")


def export_int8(
    source: Path, calibration: np.ndarray, gate: GateImages, path: Path
) -> dict[str, Any]:
    """Convert a float32 classifier file to 8-bit weights and arithmetic.

    Args:
        source: a file that ``export_classifier`` wrote.
        calibration: uint8 training images that set the ranges of activations.
        gate: images on which it may lose little accuracy, see ``quantize_gated``.
        path: path of the int8 file.

    Returns:
        The sidecar's content, including the layers that had to stay in float32, the check of the
        accuracy, and as parity the greatest differences from float32 on some of the images.

    Raises:
        ModelFileError: the accuracy falls too far even with many layers in float32; nothing is
            written.
    """
    engine = OnnxClassifier(source, provider="cpu")
    with written_aside(path) as temporary:
        quantization = quantize_gated(source, calibration, gate, temporary)
        parity_images = spread(gate.images)
        metadata = {
            **engine.metadata,
            "precision": "int8",
            "float32_sha256": sha256_of(source),
            "parity": parity(temporary, engine.outputs(parity_images), parity_images),
            "transposes": _count_transposes(temporary),
            **quantization,
        }
        write_model(onnx.load(temporary), metadata, temporary)
    return _write_sidecar(metadata, path)


def spread(images: np.ndarray) -> np.ndarray:
    """At most 33 images as one batch, evenly spread over a set that is sorted by class."""
    return images[np.linspace(0, len(images) - 1, min(33, len(images))).astype(int)]


def serving_function(model: keras.Model, temperature: float):
    """A function from images to ``probabilities`` and ``features``, as in the exported file."""

    def serve(images):
        outputs = model(images, training=False)
        probabilities = tf.nn.softmax(outputs["logits"] / temperature)
        return {"probabilities": probabilities, "features": outputs["features"]}

    return serve


def parity(path: Path, expected: dict[str, np.ndarray], images: np.ndarray) -> dict[str, float]:
    """Greatest differences of a file's outputs from ``expected``, at batch 1 and the whole batch.

    Returns:
        The difference of ``probabilities``, and that of ``features`` relative to the largest one.
    """
    differences = {"probabilities": 0.0, "features": 0.0}
    for batch_size in (1, len(images)):
        received = OnnxClassifier(path, "cpu", batch_size=batch_size).outputs(images)
        for name in differences:
            scale = max(np.abs(expected[name]).max(), 1e-12) if name == "features" else 1.0
            difference = np.abs(expected[name] - received[name]).max() / scale
            differences[name] = float(np.maximum(differences[name], difference))  # NaN stays NaN
    return differences


def keras_outputs(
    model: keras.Model, temperature: float, images: np.ndarray
) -> dict[str, np.ndarray]:
    """The outputs that the exported file should give for uint8 images, computed by Keras."""
    with tf.device("CPU"):  # a GPU rounds convolutions more coarsely
        outputs = serving_function(model, temperature)(tf.constant(images))
    return {name: value.numpy() for name, value in outputs.items()}


def _write_checked(
    proto: onnx.ModelProto,
    metadata: dict[str, Any],
    path: Path,
    expected: dict[str, np.ndarray],
    images: np.ndarray,
    reference: str,
) -> dict[str, Any]:
    """Write file and sidecar if the outputs agree with ``expected`` within the tolerance."""
    tolerance = TOLERANCES[metadata["precision"]]
    with written_aside(path) as temporary:
        write_model(proto, metadata, temporary)
        differences = parity(temporary, expected, images)
        if not all(value <= tolerance for value in differences.values()):  # NaN is refused too
            raise ModelFileError(
                f"{path.name}: expected onnxruntime to agree with {reference} within {tolerance}, "
                f"received {differences}; this is a fault of the conversion, please report it."
            )
        transposes = _count_transposes(temporary)
        metadata = {**metadata, "parity": differences, "transposes": transposes}
        write_model(proto, metadata, temporary)
    return _write_sidecar(metadata, path)


def _count_transposes(path: Path) -> int:
    """Number of transposes that onnxruntime cannot remove, including that of the images."""
    graph = optimized_graph(path, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL).graph
    return sum(node.op_type == "Transpose" for node in graph.node)


def _write_sidecar(metadata: dict[str, Any], path: Path) -> dict[str, Any]:
    sidecar = {**metadata, "sha256": sha256_of(path)}
    write_json(path.with_suffix(".json"), sidecar)
    return sidecar
