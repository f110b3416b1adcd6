"""Settings of the evaluation and the audit."""

from typing import Annotated

from pydantic import (
    Field,
    model_validator,
)

from kerasmed.settings import Section


class EvaluationConfig(Section):
    """Intervals of the figures."""

    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000


class AuditConfig(Section):
    """What fidelity is measured in, beside the features of a CNN of the study and pixels."""

    # Backbones by name, such as InceptionV3.
    extractors: list[str] = []
    extractor_weights: str | dict[str, str] = "imagenet"

    @model_validator(mode="after")
    def extractors_have_learned(self) -> "AuditConfig":
        weights = self.extractor_weights
        if "none" in (weights.values() if isinstance(weights, dict) else [weights]):
            raise ValueError(
                'audit.extractor_weights: expected "imagenet" or a path, received "none"; a '
                "network without weights sees nothing"
            )
        return self
