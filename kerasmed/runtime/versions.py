"""Installed versions, for the record of a run."""

import platform
from importlib import metadata

# Packages whose versions can change a figure.
_RECORDED = (
    *("kerasmed", "tensorflow", "jax", "torch", "keras", "keras-cv", "numpy", "pillow", "scipy"),
    *("scikit-learn", "scikit-image", "lime", "onnx", "tf2onnx", "onnxruntime-gpu", "onnxruntime"),
)


def versions() -> dict[str, str]:
    """Installed versions of the packages that figures depend on, and of Python."""
    installed = {"python": platform.python_version()}
    for name in _RECORDED:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed
