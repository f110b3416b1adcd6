"""Keras models as self-contained ONNX files, checked against Keras. Needs TensorFlow."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnx import numpy_helper

from kerasmed import __version__
from kerasmed.data.readers import FILTER
from kerasmed.diffusion.unet import pixels_of
from kerasmed.errors import ModelFileError
from kerasmed.files import sha256_of, write_json, written_aside
from kerasmed.inference import OnnxClassifier, OnnxDenoiser

OPSET = 18

# float32 parity: greatest difference of probabilities, and of features as a share of the largest.
TOLERANCE = 1e-4


def export_classifier(
    model: keras.Model,
    temperature: float,
    metadata: dict[str, Any],
    images: np.ndarray,
    path: Path,
) -> dict[str, Any]:
    """Write ``<name>.onnx`` and beside it ``<name>.json``.

    Args:
        model: a float32 classifier, see ``build_classifier``.
        temperature: divides the logits before softmax.
        metadata: what the file should say of itself; must hold ``class_names`` and ``backbone``.
        images: uint8 images for the parity check.
        path: where to.

    Returns:
        The sidecar's content: metadata, parity, SHA-256.

    Raises:
        ModelFileError: onnxruntime and Keras disagree by more than TOLERANCE; nothing is written.
    """
    size = model.input.shape[1]

    def serve(images):
        outputs = model(images, training=False)
        probabilities = tf.nn.softmax(outputs["logits"] / temperature)
        return {"probabilities": probabilities, "features": outputs["features"]}

    signature = [tf.TensorSpec((None, size, size, 3), tf.uint8, name="images")]
    proto = _convert(serve, signature)
    metadata = {
        "kerasmed_version": __version__,
        "kind": "classifier",
        "input_size": size,
        "resize_filter": FILTER,
        "temperature": temperature,
        "opset": OPSET,
        **metadata,
    }
    with written_aside(path) as temporary:
        _write(proto, metadata, temporary)
        parity = _classifier_parity(serve, temporary, images)
        if max(parity["probabilities"], parity["features"]) > TOLERANCE:
            raise ModelFileError(
                f"{path.name}: expected onnxruntime to agree with Keras within {TOLERANCE}, "
                f"received {parity}; this is a fault of the conversion, please report it."
            )
        metadata["parity"] = parity
        _write(proto, metadata, temporary)
    sidecar = {**metadata, "sha256": sha256_of(path)}
    write_json(path.with_suffix(".json"), sidecar)
    return sidecar


def export_denoiser(model: keras.Model, metadata: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write a float32 denoiser as ONNX, with the same inputs, checked against Keras.

    Raises:
        ModelFileError: onnxruntime and Keras disagree by more than TOLERANCE.
    """
    size = model.input[0].shape[1]

    def serve(noisy_images, timesteps, labels):
        return {"clean_images": model([noisy_images, timesteps, labels], training=False)}

    signature = [
        tf.TensorSpec((None, size, size, 3), tf.float32, name="noisy_images"),
        tf.TensorSpec((None,), tf.int32, name="timesteps"),
        tf.TensorSpec((None,), tf.int32, name="labels"),
    ]
    proto = _convert(serve, signature)
    metadata = {
        "kerasmed_version": __version__,
        "kind": "denoiser",
        "image_size": size,
        "pixel_mean": pixels_of(model).mean,
        "pixel_scale": pixels_of(model).scale,
        "opset": OPSET,
        **metadata,
    }
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((3, size, size, 3), dtype=np.float32)
    arguments = (noise, np.array([0, 500, 999], np.int32), np.array([0, 1, 0], np.int32))
    with written_aside(path) as temporary:
        _write(proto, metadata, temporary)
        expected = serve(*arguments)["clean_images"].numpy()
        received = OnnxDenoiser(temporary)(*arguments)
        parity = float(np.abs(expected - received).max() / max(1.0, np.abs(expected).max()))
        if parity > TOLERANCE:
            raise ModelFileError(
                f"{path.name}: expected onnxruntime to agree with Keras within {TOLERANCE}, "
                f"received {parity:.2g}; this is a fault of the conversion, please report it."
            )
        metadata["parity"] = {"clean_images": parity}
        _write(proto, metadata, temporary)
    return metadata


def _convert(serve, signature: list[tf.TensorSpec]) -> onnx.ModelProto:
    """A TensorFlow function as ONNX, with every constant that it captured inside the file.

    tf2onnx 1.17 turns captured eager tensors (a Normalization layer's mean, a Rescaling layer's
    list) into graph inputs; each is put back as an initializer.
    """
    function = tf.function(serve, input_signature=signature, autograph=False)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    captures = {
        internal.name: tensor
        for tensor, internal in function.get_concrete_function().graph.captures
        if tensor.dtype != tf.resource
    }
    wanted = {spec.name for spec in signature}
    for graph_input in list(proto.graph.input):
        if graph_input.name in wanted:
            continue
        tensor = captures.get(graph_input.name)
        if tensor is None:
            raise ModelFileError(
                f"The converted graph asks for an input {graph_input.name!r}: expected only "
                f"{sorted(wanted)}; this is a fault of the conversion, please report it."
            )
        value = numpy_helper.from_array(tensor.numpy(), graph_input.name)
        proto.graph.initializer.append(value)
        proto.graph.input.remove(graph_input)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _write(proto: onnx.ModelProto, metadata: dict[str, Any], path: Path) -> None:
    onnx.helper.set_model_props(
        proto, {f"kerasmed.{key}": json.dumps(value) for key, value in metadata.items()}
    )
    path.write_bytes(proto.SerializeToString())


def _classifier_parity(serve, path: Path, images: np.ndarray) -> dict[str, float]:
    """Greatest differences over all images, at batch 1 and at the whole batch."""
    expected = {name: value.numpy() for name, value in serve(tf.constant(images)).items()}
    differences = {"probabilities": 0.0, "features": 0.0}
    for batch_size in (1, len(images)):
        received = OnnxClassifier(path, batch_size=batch_size).outputs(images)
        for name in differences:
            scale = max(np.abs(expected[name]).max(), 1e-12) if name == "features" else 1.0
            difference = float(np.abs(expected[name] - received[name]).max() / scale)
            differences[name] = max(differences[name], difference)
    return differences
