"""Settings of the evaluation and the audit."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from kerasmed.classify.config import SYNTHETIC_REGIMES, Regime
from kerasmed.settings import Rate, Section


class EvaluationConfig(Section):
    """Intervals of the figures, and a further test set."""

    bootstrap_samples: Annotated[int, Field(ge=100)] = 1000
    """Resamples of the intervals in `metrics.json`."""
    outside: Path | None = None
    """Images of the same classes from elsewhere, such as another hospital: a folder, .csv or .npz,
    read as data.source is. It may lack some classes. Nothing learns from them."""


class WorthConfig(Section):
    """The learning curve of real images alone, by which a synthetic set is valued."""

    in_study: bool = False
    """`kerasmed worth CONFIG` measures it, and a study does so too if this is true."""
    regime: Regime | None = None
    """The use of the synthetic set that is valued. If null, the one that `best` chose, or, where it
    chose none, the one with the lowest loss on the validation images."""
    times_train: list[Rate] = [0.25, 0.5, 2, 4]
    """Numbers of real images, as multiples of those of the role `train`; five of each class, all of
    `train`, and all real images but the test images are always on the curve."""
    draws: Annotated[int, Field(ge=2)] = 3
    """CNNs of each number, each with its own draw of groups."""

    @field_validator("regime")
    @classmethod
    def uses_synthetic_images(cls, regime: Regime | None) -> Regime | None:
        """Refuse a regime that does not learn from a synthetic set."""
        if regime is not None and regime not in SYNTHETIC_REGIMES:
            raise ValueError(
                f"expected one of {', '.join(SYNTHETIC_REGIMES)}, received {regime}; correct it"
            )
        return regime


class AuditConfig(Section):
    """The networks in whose features images are compared."""

    extractors: list[str] | None = None
    """Names of backbones, such as InceptionV3, or ONNX files of any network. The first decides
    whether a set is faithful. If null, the first CNN that has pretrained weights, frozen."""
    extractor_weights: str | dict[str, str] = "imagenet"
    """Of the backbones: "imagenet" or a path, for all of them or one for each."""

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
