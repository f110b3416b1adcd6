"""Denoisers as ONNX, checked against Keras. Needs TensorFlow."""

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmed import __version__
from kerasmed.errors import ModelFileError
from kerasmed.export.conversion import OPSET, convert, write_model
from kerasmed.files import written_aside
from kerasmed.fingerprint import Fingerprint
from kerasmed.inference.denoiser import OnnxDenoiser
from kerasmed.inference.metadata import FORMAT
from kerasmed.inference.pixels import PixelRange
from kerasmed.random_streams import Purpose, random_stream

# Greatest allowed difference from Keras, relative to the largest value (at least 1).
TOLERANCE = 1e-4


def export_denoiser(
    model: keras.Model, pixels: PixelRange, metadata: dict[str, Any], path: Path
) -> dict[str, Any]:
    """Write a float32 denoiser as ONNX, with the same inputs, checked against Keras.

    A file that was exported from this model stays unchanged. tf2onnx would give its nodes new
    names, and images drawn with it would seem to come from another network.

    Args:
        model: a float32 denoiser, see ``build_denoiser``.
        pixels: pixel range of its images.
        metadata: further metadata of the file.
        path: path of the ONNX file.

    Returns:
        All metadata of the file.

    Raises:
        ModelFileError: onnxruntime and Keras disagree by more than TOLERANCE.
    """
    size = model.input[0].shape[1]
    metadata = {
        "kerasmed_version": __version__,
        "format": FORMAT,
        "kind": "denoiser",
        "image_size": size,
        "pixel_mean": list(pixels.mean),
        "pixel_scale": pixels.scale,
        "opset": OPSET,
        **metadata,
    }
    made_from = Fingerprint(metadata, {"weights": _hash_of(model)}).digest()
    kept = _metadata_of(path)
    if kept.get("fingerprint") == made_from:
        return kept
    metadata["fingerprint"] = made_from

    def serve(noisy_images, timesteps, labels):
        return {"clean_images": model([noisy_images, timesteps, labels], training=False)}

    signature = [
        tf.TensorSpec((None, size, size, 3), tf.float32, name="noisy_images"),
        tf.TensorSpec((None,), tf.int32, name="timesteps"),
        tf.TensorSpec((None,), tf.int32, name="labels"),
    ]
    proto = convert(serve, signature, model.weights)
    with written_aside(path) as temporary:
        write_model(proto, metadata, temporary)
        difference = denoiser_parity(temporary, model)
        if not difference <= TOLERANCE:  # NaN is refused too
            raise ModelFileError(
                f"{path.name}: expected onnxruntime to agree with Keras within {TOLERANCE}, "
                f"received {difference:.2g}; this is a fault of the conversion, please report it."
            )
        metadata["parity"] = {"clean_images": difference}
        write_model(proto, metadata, temporary)
    return metadata


def _hash_of(model: keras.Model) -> str:
    """SHA-256 of the weights."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(f"{weight.shape}".encode() + weight.tobytes())
    return digest.hexdigest()


def _metadata_of(path: Path) -> dict[str, Any]:
    """The metadata of a file; empty if it is missing or not a denoiser."""
    try:
        return OnnxDenoiser(path, "cpu").metadata
    except ModelFileError:
        return {}


def denoiser_parity(path: Path, model: keras.Model) -> float:
    """Greatest difference between a denoiser file and Keras, relative to the largest value."""
    size = model.input[0].shape[1]
    rng = random_stream(0, Purpose.DENOISER_PARITY)
    noise = rng.standard_normal((3, size, size, 3), dtype=np.float32)
    arguments = (noise, np.array([0, 500, 999], np.int32), np.array([0, 1, 0], np.int32))
    with tf.device("CPU"):  # a GPU rounds convolutions more coarsely
        expected = keras.ops.convert_to_numpy(model(list(arguments), training=False))
    received = OnnxDenoiser(path, "cpu")(*arguments)
    return float(np.abs(expected - received).max() / max(1.0, np.abs(expected).max()))
