"""The float32, float16 and int8 files of one network, next to each other."""

import hashlib
import logging
from pathlib import Path
from typing import Any, Literal

from kerasmed.inference.session import PROVIDERS
from kerasmed.runtime.hardware import cpu_multiplies

log = logging.getLogger("kerasmed.inference")


def precision_path(path: Path, precision: Literal["fp32", "fp16", "int8"]) -> Path:
    """Path of the same model in a precision: ``X.onnx``, ``X.fp16.onnx`` or ``X.int8.onnx``."""
    stem = path.name.removesuffix(".onnx").removesuffix(".int8").removesuffix(".fp16")
    return path.with_name(f"{stem}.onnx" if precision == "fp32" else f"{stem}.{precision}.onnx")


def is_made_from(path: Path, metadata: dict[str, Any]) -> bool:
    """Whether a file was made from the float32 one next to it; True if there is none."""
    source = precision_path(path, "fp32")
    if not source.is_file():
        return True
    with source.open("rb") as stream:
        same = metadata.get("float32_sha256") == hashlib.file_digest(stream, "sha256").hexdigest()
    if not same:
        log.warning("%s was not made from %s and is ignored; export it again", path, source.name)
    return same


def fastest_precision(path: Path, running: str) -> Path:
    """The file next to ``path`` in the precision that suits a provider, or ``path``.

    Args:
        path: a file of any precision.
        running: onnxruntime's name of the provider that runs.
    """
    precision: Literal["fp16", "int8"] = "fp16"
    if running == PROVIDERS["cpu"].name:
        if not cpu_multiplies("avx512_vnni", "avx_vnni", "amx_int8"):
            return path
        precision = "int8"
    elif running not in (PROVIDERS["cuda"].name, PROVIDERS["tensorrt"].name):
        return path
    faster = precision_path(path, precision)
    return faster if faster.is_file() else path
