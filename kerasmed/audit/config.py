"""Settings of the evaluation and the audit."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from kerasmed.settings import Section


class EvaluationConfig(Section):
    """Intervals of the figures, and a further test set."""

    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000
    # Images of the same classes from elsewhere, such as another hospital: a folder, .csv or .npz,
    # read as data.source is. It may lack some classes. Nothing learns from them.
    outside: Path | None = None


class AuditConfig(Section):
    """The networks in whose features images are compared."""

    # Names of backbones, such as InceptionV3, or ONNX files of any network. The first decides
    # whether a set is faithful. If null, the first CNN that has pretrained weights, frozen.
    extractors: list[str] | None = None
    # Of the backbones: "imagenet" or a path, for all of them or one for each.
    extractor_weights: str | dict[str, str] = "imagenet"

    @model_validator(mode="after")
    def extractors_have_learned(self) -> "AuditConfig":
        """Refuse networks without weights, whose features mean nothing."""
        weights = self.extractor_weights
        if "none" in (weights.values() if isinstance(weights, dict) else [weights]):
            raise ValueError(
                'audit.extractor_weights: expected "imagenet" or a path, received "none"; a '
                "network without weights has learned no features"
            )
        return self
