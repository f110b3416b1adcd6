"""Metrics: NumPy arrays in, plain results out. A module is imported when it is first used.

Example:
    >>> import kerasmed as km, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> real, same, other = rng.standard_normal((3, 200, 8)) + np.array([0, 0, 3])[:, None, None]
    >>> near = km.metrics.frechet.frechet_distance(real, same)
    >>> far = km.metrics.frechet.frechet_distance(real, other)
    >>> bool(near < 1 < far)
    True
    >>> probabilities, labels = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])
    >>> round(km.metrics.classification.expected_calibration_error(probabilities, labels), 3)
    0.15
"""

from importlib import import_module
from types import ModuleType

__all__ = [
    "classification",
    "copies",
    "detection_power",
    "frechet",
    "kernel_distance",
    "linear_probe",
    "manifold",
    "membership",
    "memorisation",
    "sample",
    "statistics",
    "strength",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'kerasmed.metrics' has no attribute {name!r}")
    try:
        return import_module(f"kerasmed.metrics.{name}")
    except ModuleNotFoundError as error:  # only the inference engine is installed
        from kerasmed.errors import missing_package

        raise ImportError(missing_package(error, f"kerasmed.metrics.{name}")) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
