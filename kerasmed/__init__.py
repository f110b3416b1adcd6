"""kerasmed: labelled synthetic medical images, and the evidence of what they are worth.

The public names are imported when they are first used, so ``import kerasmed`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kerasmed import metrics
    from kerasmed.classify.model import ImageClassifier
    from kerasmed.data.image_set import ImageSet, Roles
    from kerasmed.diffusion import callbacks
    from kerasmed.diffusion.model import DiffusionModel
    from kerasmed.diffusion.upscaler import Upscaler
    from kerasmed.explain.explanation import Explanation
    from kerasmed.explain.kernel_shap import KernelShapExplainer
    from kerasmed.explain.lime import LimeExplainer
    from kerasmed.explain.occlusion import OcclusionExplainer
    from kerasmed.inference.classifier import OnnxClassifier
    from kerasmed.inference.denoiser import OnnxDenoiser
    from kerasmed.inference.upscaler import OnnxUpscaler
    from kerasmed.saved_models import load_model
    from kerasmed.study.judging import Verdicts, judge

__all__ = [
    "DiffusionModel",
    "Explanation",
    "ImageClassifier",
    "ImageSet",
    "KernelShapExplainer",
    "LimeExplainer",
    "OcclusionExplainer",
    "OnnxClassifier",
    "OnnxDenoiser",
    "OnnxUpscaler",
    "Roles",
    "Upscaler",
    "Verdicts",
    "callbacks",
    "judge",
    "load_model",
    "metrics",
]

# Where each name is defined; a home that ends with its name is that module itself.
_HOMES = {
    "DiffusionModel": "kerasmed.diffusion.model",
    "Explanation": "kerasmed.explain.explanation",
    "ImageClassifier": "kerasmed.classify.model",
    "ImageSet": "kerasmed.data.image_set",
    "KernelShapExplainer": "kerasmed.explain.kernel_shap",
    "LimeExplainer": "kerasmed.explain.lime",
    "OcclusionExplainer": "kerasmed.explain.occlusion",
    "OnnxClassifier": "kerasmed.inference.classifier",
    "OnnxDenoiser": "kerasmed.inference.denoiser",
    "OnnxUpscaler": "kerasmed.inference.upscaler",
    "Roles": "kerasmed.data.image_set",
    "Upscaler": "kerasmed.diffusion.upscaler",
    "Verdicts": "kerasmed.study.judging",
    "callbacks": "kerasmed.diffusion.callbacks",
    "judge": "kerasmed.study.judging",
    "load_model": "kerasmed.saved_models",
    "metrics": "kerasmed.metrics",
}
# These need Keras. The first of them that is used registers all of kerasmed's Keras objects.
_KERAS = {"DiffusionModel", "ImageClassifier", "Upscaler", "callbacks", "load_model"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kerasmed' has no attribute {name!r}")
    try:
        if name in _KERAS:
            import_module("kerasmed.runtime.backend").load_keras()
            import_module("kerasmed.saved_models")
        value = import_module(_HOMES[name])
    except ModuleNotFoundError as error:  # only the inference engine is installed
        from kerasmed.errors import missing_package

        raise ImportError(missing_package(error, f"kerasmed.{name}")) from None
    if not _HOMES[name].endswith(f".{name}"):
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
