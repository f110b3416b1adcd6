"""``kerasmed export --check``: whether one of our files is whole and says the truth of itself."""

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
from kerasmed.random_streams import Purpose, random_stream

if TYPE_CHECKING:
    import keras

_COMPLETE = {
    *("backbone", "class_names", "data_hash", "format", "input_size", "kerasmed_version"),
    *("n_train", "opset", "parity", "precision", "resize_filter", "seed", "temperature"),
    *("trained_on", "weights"),
}
_COMPLETE_DENOISER = {
    *("class_names", "data_hash", "format", "image_size", "kerasmed_version", "opset", "parity"),
    *("pixel_mean", "pixel_scale"),
}


def verify_file(
    path: Path, open_trained: Callable[[Path], "keras.Model | None"] = lambda _: None
) -> dict[str, str]:
    """What was looked at in a classifier file or a denoiser, and what came of it.

    The ONNX standard, the metadata, of a classifier the sidecar and the SHA-256 in it and the
    outputs over images made of noise, and parity with the Keras model where there is one.

    Args:
        path: of the file.
        open_trained: gives the Keras model that a file was exported from, or None.

    Raises:
        ModelFileError: the first thing that is wrong.
    """
    session, provider = open_session(path, "cpu")
    found = {"runs on": provider, "ONNX standard": _check_standard(path)}
    if session.get_modelmeta().custom_metadata_map.get("kerasmed.kind") == '"denoiser"':
        metadata = OnnxDenoiser(path, "cpu").metadata
        found["metadata"] = _check_metadata(metadata, _COMPLETE_DENOISER, path)
        found["parity"] = _check_denoiser_parity(metadata, path, open_trained(path))
        return found
    engine = OnnxClassifier(path, provider="cpu")
    found["metadata"] = _check_metadata(engine.metadata, _COMPLETE, path)
    found["sidecar"] = _check_sidecar(engine.metadata, path)
    images = _noise_images(engine.input_size)
    found["outputs"] = _check_outputs(engine.outputs(images), engine.metadata, path)
    found["parity"] = _check_parity(engine.metadata, path, images, open_trained)
    return found


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
    opsets = ", ".join(f"{each.domain or 'ai.onnx'} {each.version}" for each in proto.opset_import)
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
    beside = path.with_suffix(".json")
    if not beside.exists():
        return f"none beside the file ({beside.name}), so no SHA-256 to compare with"
    sidecar = read_json(beside, "kerasmed export CONFIG")
    if not isinstance(sidecar, dict):
        raise ModelFileError(f"{beside}: expected what the file says of itself; export it again.")
    wanted, received = sidecar.pop("sha256", None), sha256_of(path)
    if wanted != received:
        raise ModelFileError(
            f"{path}: expected SHA-256 {wanted} as {beside.name} says, received {received}; "
            "the file was changed after its export, export it again."
        )
    if sidecar != metadata:
        differ = sorted(k for k in sidecar | metadata if sidecar.get(k) != metadata.get(k))
        raise ModelFileError(
            f"{path}: expected the metadata of {beside.name}, received others for "
            f"{', '.join(differ)}; export it again."
        )
    return "the same metadata, SHA-256 matches"


def _noise_images(size: int) -> np.ndarray:
    """Nine images from dark to bright: uint8 (9, size, size, 3)."""
    rng = random_stream(0, Purpose.CLASSIFIER_PARITY)
    images = rng.integers(0, 256, (9, size, size, 3))
    return (images * np.linspace(0.1, 1, 9)[:, None, None, None]).astype(np.uint8)


def _check_outputs(outputs: dict[str, np.ndarray], metadata: dict[str, Any], path: Path) -> str:
    probabilities = outputs["probabilities"]
    if not all(np.isfinite(each).all() for each in outputs.values()):
        raise ModelFileError(
            f"{path}: expected outputs that are numbers, received NaN or infinity; export it again."
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
            f"{path}: expected to have been made from {float32.name} as it lies beside, received "
            "one made from another; export it again."
        )
    model = open_trained(path)
    if model is None:
        return f"as stated at export: {metadata['parity']} (no Keras model beside it to try again)"
    from kerasmed.export.classifiers import TOLERANCES, keras_outputs, parity

    found = parity(path, keras_outputs(model, metadata["temperature"], images), images)
    allowed = TOLERANCES.get(metadata["precision"])
    if allowed is not None and not all(each <= allowed for each in found.values()):
        raise ModelFileError(
            f"{path}: expected agreement with its Keras model within {allowed}, received "
            f"{found}; the network was trained again since, export it again."
        )
    shown = ", ".join(f"{name} {value:.2g}" for name, value in found.items())
    return f"with Keras on {len(images)} noise images: {shown}"


def _check_denoiser_parity(
    metadata: dict[str, Any], path: Path, model: "keras.Model | None"
) -> str:
    if model is None:
        return f"as stated at export: {metadata['parity']} (no Keras model beside it to try again)"
    from kerasmed.export.denoisers import TOLERANCE, denoiser_parity

    found = denoiser_parity(path, model)
    if not found <= TOLERANCE:
        raise ModelFileError(
            f"{path}: expected agreement with its Keras model within {TOLERANCE}, received "
            f"{found:.2g}; the network was trained again since, export it again."
        )
    return f"with Keras over noise: {found:.2g}"
