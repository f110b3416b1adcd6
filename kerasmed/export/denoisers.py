"""Denoisers and upscalers as ONNX, checked against Keras. Needs TensorFlow."""

import hashlib
from collections.abc import Callable
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
from kerasmed.inference.pixels import DetailRange, PixelRange
from kerasmed.inference.upscaler import OnnxUpscaler
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
    own = {
        "kind": "denoiser",
        "image_size": model.input[0].shape[1],
        "pixel_mean": list(pixels.mean),
        "pixel_scale": pixels.scale,
    }
    return _export(model, {**own, **metadata}, path, OnnxDenoiser, denoiser_parity)


def export_upscaler(
    model: keras.Model, ranges: DetailRange, metadata: dict[str, Any], path: Path
) -> dict[str, Any]:
    """Write a float32 upscaler as ONNX, for images of any size; see ``export_denoiser``.

    Args:
        model: a float32 upscaler, see ``build_upscaler``.
        ranges: ranges of its small images and detail.
        metadata: further metadata of the file: ``image_size``, ``stride`` and others that
            ``Upscaler.export`` gives.
        path: path of the ONNX file.
    """
    own = {
        "kind": "upscaler",
        "pixel_mean": list(ranges.pixels.mean),
        "pixel_scale": ranges.pixels.scale,
        "detail_scale": ranges.scale,
    }
    return _export(model, {**own, **metadata}, path, OnnxUpscaler, upscaler_parity)


def _export(
    model: keras.Model,
    own: dict[str, Any],
    path: Path,
    open_file: Callable[[Path, str], OnnxDenoiser | OnnxUpscaler],
    parity: Callable[[Path, keras.Model], float],
) -> dict[str, Any]:
    metadata = {"kerasmed_version": __version__, "format": FORMAT, "opset": OPSET, **own}
    made_from = Fingerprint(metadata, {"weights": _hash_of(model)}).digest()
    kept = _metadata_of(path, open_file)
    if kept.get("fingerprint") == made_from:
        return kept
    metadata["fingerprint"] = made_from

    def serve(*inputs):
        return {"clean_images": model(list(inputs), training=False)}

    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in model.inputs
    ]
    proto = convert(serve, signature, model.weights)
    with written_aside(path) as temporary:
        write_model(proto, metadata, temporary)
        difference = parity(temporary, model)
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


def _metadata_of(
    path: Path, open_file: Callable[[Path, str], OnnxDenoiser | OnnxUpscaler]
) -> dict[str, Any]:
    """The metadata of a file; empty if it is missing or of another kind."""
    try:
        return open_file(path, "cpu").metadata
    except ModelFileError:
        return {}


def denoiser_parity(path: Path, model: keras.Model) -> float:
    """Greatest difference between a denoiser file and Keras, relative to the largest value."""
    size = model.input[0].shape[1]
    rng = random_stream(0, Purpose.DENOISER_PARITY)
    noise = rng.standard_normal((3, size, size, 3), dtype=np.float32)
    arguments = (noise, np.array([0, 500, 999], np.int32), np.array([0, 1, 0], np.int32))
    return _difference(model, OnnxDenoiser(path, "cpu"), arguments)


def upscaler_parity(path: Path, model: keras.Model) -> float:
    """As ``denoiser_parity``, of an upscaler file, on images that are wider than high."""
    file = OnnxUpscaler(path, "cpu")
    factor = file.metadata["image_size"] // file.metadata["base_size"]
    step = max(file.metadata["stride"], factor)
    height, width = 2 * step, 3 * step
    rng = random_stream(0, Purpose.UPSCALER_PARITY)
    arguments = (
        rng.standard_normal((3, height, width, 3), dtype=np.float32),
        np.array([0, 500, 999], np.int32),
        np.array([0, 1, 0], np.int32) % len(file.metadata["class_names"]),
        rng.standard_normal((3, height // factor, width // factor, 3), dtype=np.float32),
        np.array([0, 0.1, 0.2], np.float32),
    )
    return _difference(model, file, arguments)


def _difference(
    model: keras.Model, file: OnnxDenoiser | OnnxUpscaler, arguments: tuple[np.ndarray, ...]
) -> float:
    with tf.device("CPU"):  # a GPU rounds convolutions more coarsely
        expected = keras.ops.convert_to_numpy(model(list(arguments), training=False))
    received = file(*arguments)
    return float(np.abs(expected - received).max() / max(1.0, np.abs(expected).max()))


# Of each kind of file.
PARITY = {"denoiser": denoiser_parity, "upscaler": upscaler_parity}
