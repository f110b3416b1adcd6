"""Reads and checks the metadata of model files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime

from kerasmed.errors import InputError, ModelFileError

# Format of the metadata. A later one may give its entries another meaning.
FORMAT = 1

OUTPUTS = ("probabilities", "features")


def resolved_formats(
    stored: dict[str, Any], grey_range: tuple[float, float] | None, path: Path
) -> dict[str, Any]:
    """How a model reads files: as its metadata states, and every frame or slice as an image.

    Raises:
        InputError: the grey range is empty, or the metadata already states one.
    """
    formats = dict(stored)
    for name in ("dicom", "nifti"):
        formats[name] = {**stored.get(name, {}), "frames": "split"}
    if grey_range is None:
        return formats
    if "grey_range" in stored:
        raise InputError(
            f"{path} was trained with the grey range {stored['grey_range']}: expected no other, "
            f"received {list(grey_range)}; leave it out."
        )
    if not grey_range[0] < grey_range[1]:
        raise InputError(f"Grey range: expected LOW below HIGH, received {list(grey_range)}.")
    return {**formats, "grey_range": list(grey_range)}


def check_graph(
    session: onnxruntime.InferenceSession, path: Path, metadata: dict[str, Any]
) -> None:
    """Refuse a file whose metadata contradicts its graph.

    Raises:
        ModelFileError: image size or number of classes differ.
    """
    names, size = metadata["class_names"], metadata["input_size"]
    inputs = {value.name: value.shape for value in session.get_inputs()}
    outputs = {value.name: value.shape for value in session.get_outputs()}
    shape = inputs["images"][1:] if "images" in inputs else None
    width = outputs["probabilities"][-1] if outputs.get("probabilities") else None
    if shape != [size, size, 3] or (isinstance(width, int) and width != len(names)):
        raise ModelFileError(
            f"{path}: expected images of {size} pixels and {len(names)} classes, as its metadata "
            f"say, received a graph with images {shape} and probabilities {width}; export it again."
        )


def read_metadata(session: onnxruntime.InferenceSession, path: Path, kind: str) -> dict[str, Any]:
    """The metadata of a kerasmed file.

    Args:
        session: a session of the file.
        path: its path, for messages.
        kind: "classifier", "denoiser" or "upscaler".

    Raises:
        ModelFileError: the file was not written by kerasmed, is of another kind, is from a later
            version of kerasmed, or lacks metadata.
    """
    stored = session.get_modelmeta().custom_metadata_map
    prefix = "kerasmed."
    try:
        metadata = {
            key.removeprefix(prefix): json.loads(value)
            for key, value in stored.items()
            if key.startswith(prefix)
        }
    except ValueError:
        metadata = {}
    if metadata.get("kind") != kind:
        raise ModelFileError(
            f"{path} is ONNX but not a kerasmed {kind}: expected metadata kerasmed.kind={kind}, "
            f"received {metadata.get('kind', 'none')}; use a file that kerasmed wrote."
        )
    if not isinstance(metadata.get("format", 1), int) or metadata.get("format", 1) > FORMAT:
        raise ModelFileError(
            f"{path} is of kerasmed {metadata.get('kerasmed_version')}: expected format {FORMAT} "
            f"or below, received {metadata['format']}; update kerasmed."
        )
    missing = {key for key, is_right in _REQUIRED[kind].items() if not is_right(metadata.get(key))}
    if missing:
        raise ModelFileError(
            f"{path}: expected metadata for {', '.join(sorted(_REQUIRED[kind]))}, received none "
            f"that can be used for {', '.join(sorted(missing))}; export it again."
        )
    return metadata


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _are_several_names(value: Any) -> bool:
    return _are_names(value) and len(value) > 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


# Required metadata of each kind of file, and the check of each value.
_REQUIRED: dict[str, dict[str, Callable[[Any], bool]]] = {
    "classifier": {"class_names": _are_several_names, "input_size": _is_size},
    "denoiser": {
        "image_size": _is_size,
        "pixel_mean": _are_numbers,
        "pixel_scale": _is_number,
    },
    "upscaler": {
        "class_names": _are_names,
        "image_size": _is_size,
        "base_size": _is_size,
        "stride": _is_size,
        "reach": _is_size,
        "pixel_mean": _are_numbers,
        "pixel_scale": _is_number,
        "detail_scale": _is_number,
        "greatest_base_noise": _is_number,
    },
}
