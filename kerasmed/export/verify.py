"""``kerasmed export --check``: whether an exported file is complete and its metadata is true."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from kerasmed.errors import ModelFileError
from kerasmed.files import read_json, sha256_of
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.denoiser import OnnxDenoiser
from kerasmed.inference.precisions import precision_path
from kerasmed.inference.session import open_session
from kerasmed.inference.upscaler import OnnxUpscaler
from kerasmed.random_streams import Purpose, random_stream

if TYPE_CHECKING:
    import keras

_COMPLETE = {
    *("backbone", "class_names", "format", "formats", "input_size", "kerasmed_version", "opset"),
    *("parity", "precision", "resize_filter", "temperature", "weights"),
}
# A study says this as well; it is recognised by any of them.
_OF_A_STUDY = {"data_hash", "n_train", "seed", "trained_on"}
_COMPLETE_DENOISER = {
    *("class_names", "format", "image_size", "kerasmed_version", "opset", "parity"),
    *("pixel_mean", "pixel_scale"),
}
_COMPLETE_UPSCALER = {
    *_COMPLETE_DENOISER,
    *("base_size", "detail_scale", "greatest_base_noise", "reach", "stride"),
}
# Kinds of files that draw images.
_DRAWING: dict[str, tuple[type[OnnxDenoiser | OnnxUpscaler], set[str]]] = {
    "denoiser": (OnnxDenoiser, _COMPLETE_DENOISER),
    "upscaler": (OnnxUpscaler, _COMPLETE_UPSCALER),
}


def verify_file(
    path: Path, open_trained: Callable[[Path], "keras.Model | None"] = lambda _: None
) -> dict[str, str]:
    """The checks of a classifier, denoiser or upscaler file, and the result of each.

    They cover the ONNX standard, the metadata, and parity with the Keras model if there is one. For
    a classifier they also cover the sidecar with its SHA-256 and the outputs on noise images.

    Args:
        path: path of the file.
        open_trained: returns the Keras model that a file was exported from, or None.

    Raises:
        ModelFileError: names the first fault.
    """
    session, provider = open_session(path, "cpu")
    results = {"runs on": provider, "ONNX standard": _check_standard(path)}
    kind = session.get_modelmeta().custom_metadata_map.get("kerasmed.kind", "").strip('"')
    if kind in _DRAWING:
        open_file, complete = _DRAWING[kind]
        metadata = open_file(path, "cpu").metadata
        results["metadata"] = _check_metadata(metadata, complete, path)
        results["parity"] = _check_drawing_parity(metadata, path, open_trained(path))
        return results
    engine = OnnxClassifier(path, provider="cpu")
    is_of_a_study = not _OF_A_STUDY.isdisjoint(engine.metadata)
    complete = _COMPLETE | _OF_A_STUDY if is_of_a_study else _COMPLETE
    results["metadata"] = _check_metadata(engine.metadata, complete, path)
    results["sidecar"] = _check_sidecar(engine.metadata, path)
    images = noise_images(engine.input_size)
    results["outputs"] = _check_outputs(engine.outputs(images), engine.metadata, path)
    results["parity"] = _check_parity(engine.metadata, path, images, open_trained)
    return results


def _check_standard(path: Path) -> str:
    proto = onnx.load(path)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(
            f"{path}: expected a file that follows the ONNX standard, received: {reason}; "
            "export it again."
        ) from None
    opsets = ", ".join(
        f"{opset.domain or 'ai.onnx'} {opset.version}" for opset in proto.opset_import
    )
    return f"followed, opset {opsets}"


def _check_metadata(metadata: dict[str, Any], complete: set[str], path: Path) -> str:
    missing = sorted(complete - metadata.keys())
    if missing:
        raise ModelFileError(
            f"{path}: expected complete metadata, received none for {', '.join(missing)}; "
            "export it again."
        )
    return f"complete, {len(metadata)} entries"


def _check_sidecar(metadata: dict[str, Any], path: Path) -> str:
    sidecar_path = path.with_suffix(".json")
    if not sidecar_path.exists():
        return f"no {sidecar_path.name} next to the file, so no SHA-256 to compare with"
    sidecar = read_json(sidecar_path, "kerasmed export CONFIG")
    if not isinstance(sidecar, dict):
        raise ModelFileError(
            f"{sidecar_path}: expected the metadata of {path.name}; export it again."
        )
    expected, received = sidecar.pop("sha256", None), sha256_of(path)
    if expected != received:
        raise ModelFileError(
            f"{path}: expected the SHA-256 {expected} of {sidecar_path.name}, received {received}; "
            "the file was changed after its export, export it again."
        )
    if sidecar != metadata:
        keys = sorted(key for key in sidecar | metadata if sidecar.get(key) != metadata.get(key))
        raise ModelFileError(
            f"{path}: expected the metadata of {sidecar_path.name}, received other values for "
            f"{', '.join(keys)}; export it again."
        )
    return "the same metadata, SHA-256 matches"


def noise_images(size: int) -> np.ndarray:
    """Nine images from dark to bright: uint8 (9, size, size, 3)."""
    rng = random_stream(0, Purpose.CLASSIFIER_PARITY)
    images = rng.integers(0, 256, (9, size, size, 3))
    return (images * np.linspace(0.1, 1, 9)[:, None, None, None]).astype(np.uint8)


def _check_outputs(outputs: dict[str, np.ndarray], metadata: dict[str, Any], path: Path) -> str:
    probabilities = outputs["probabilities"]
    if not all(np.isfinite(output).all() for output in outputs.values()):
        raise ModelFileError(
            f"{path}: expected finite outputs, received NaN or infinity; export it again."
        )
    sums = probabilities.sum(axis=1)
    classes, count = len(metadata["class_names"]), probabilities.shape[1]
    if count != classes or not np.allclose(sums, 1, atol=1e-3):
        raise ModelFileError(
            f"{path}: expected {classes} probabilities summing to 1, received {count} summing to "
            f"{sums.min():.4g} and more; export it again."
        )
    return f"{count} probabilities summing to 1, {outputs['features'].shape[1]} features"


def _check_parity(
    metadata: dict[str, Any],
    path: Path,
    images: np.ndarray,
    open_trained: Callable[[Path], "keras.Model | None"],
) -> str:
    float32 = precision_path(path, "fp32")
    source = metadata.get("float32_sha256")
    if source and float32.exists() and sha256_of(float32) != source:
        raise ModelFileError(
            f"{path}: expected a conversion of the {float32.name} in the same folder, received one "
            "of another file; export it again."
        )
    model = open_trained(path)
    if model is None:
        return f"as stated at export: {metadata['parity']} (no Keras model to check against)"
    from kerasmed.export.classifiers import TOLERANCES, keras_outputs, parity

    differences = parity(path, keras_outputs(model, metadata["temperature"], images), images)
    tolerance = TOLERANCES.get(metadata["precision"])
    if tolerance is not None and not all(value <= tolerance for value in differences.values()):
        raise ModelFileError(
            f"{path}: expected agreement with its Keras model within {tolerance}, received "
            f"{differences}; the network was trained again; export it again."
        )
    summary = ", ".join(f"{name} {value:.2g}" for name, value in differences.items())
    return f"with Keras on {len(images)} noise images: {summary}"


def _check_drawing_parity(metadata: dict[str, Any], path: Path, model: "keras.Model | None") -> str:
    if model is None:
        return f"as stated at export: {metadata['parity']} (no Keras model to check against)"
    from kerasmed.export.denoisers import PARITY, TOLERANCE

    difference = PARITY[metadata["kind"]](path, model)
    if not difference <= TOLERANCE:
        raise ModelFileError(
            f"{path}: expected agreement with its Keras model within {TOLERANCE}, "
            f"received {difference:.2g}; the network was trained again; export it again."
        )
    return f"with Keras on noise: {difference:.2g}"
