"""The explainers by name."""

from kerasmed.explain.config import ExplainConfig
from kerasmed.explain.explainer import Explainer
from kerasmed.explain.kernel_shap import KernelShapExplainer
from kerasmed.explain.lime import LimeExplainer
from kerasmed.explain.occlusion import OcclusionExplainer
from kerasmed.explain.perturbation import Predict

EXPLAINERS: dict[str, type[Explainer]] = {
    explainer.name: explainer
    for explainer in (LimeExplainer, KernelShapExplainer, OcclusionExplainer)
}


def build_explainer(name: str, predict: Predict, settings: ExplainConfig, seed: int) -> Explainer:
    """An explainer of EXPLAINERS, with the settings that it takes."""
    explainer = EXPLAINERS[name]
    values = {**settings.model_dump(), "seed": seed}
    return explainer(predict, **{key: values[key] for key in explainer.takes})
