"""kerasmed: labelled synthetic medical images, and the evidence of what they are worth.

The public names are imported when they are first used, so ``import kerasmed`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kerasmed.data.image_set import ImageSet, Roles
    from kerasmed.explain.explanation import Explanation
    from kerasmed.explain.kernel_shap import KernelShapExplainer
    from kerasmed.explain.lime import LimeExplainer
    from kerasmed.explain.occlusion import OcclusionExplainer
    from kerasmed.inference.classifier import OnnxClassifier
    from kerasmed.inference.denoiser import OnnxDenoiser

__all__ = [
    "Explanation",
    "ImageSet",
    "KernelShapExplainer",
    "LimeExplainer",
    "OcclusionExplainer",
    "OnnxClassifier",
    "OnnxDenoiser",
    "Roles",
]

_HOMES = {
    "Explanation": "kerasmed.explain.explanation",
    "ImageSet": "kerasmed.data.image_set",
    "KernelShapExplainer": "kerasmed.explain.kernel_shap",
    "LimeExplainer": "kerasmed.explain.lime",
    "OcclusionExplainer": "kerasmed.explain.occlusion",
    "OnnxClassifier": "kerasmed.inference.classifier",
    "OnnxDenoiser": "kerasmed.inference.denoiser",
    "Roles": "kerasmed.data.image_set",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kerasmed' has no attribute {name!r}")
    try:
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:  # only the inference engine is installed
        raise ImportError(
            f"kerasmed.{name} needs {error.name}, which is not installed; run `pip install "
            "kerasmed`, which brings it."
        ) from None
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
