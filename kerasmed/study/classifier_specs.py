"""The CNNs of a study: their names, their exported files, and opening these."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerasmed.classify.config import SYNTHETIC_REGIMES, Regime
from kerasmed.export.config import Precision
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.precisions import precision_path
from kerasmed.study.config import Config
from kerasmed.study.inputs import variants_of
from kerasmed.study.run_folder import RunFolder


@dataclass(frozen=True)
class ClassifierSpec:
    """One CNN of a study: a backbone, its training images and a seed.

    Attributes:
        backbone: name of the backbone.
        trained_on: regime, such as real images, synthetic ones, or both.
        seed: seed of the training.
        variant: name of the synthetic set; None for the main one.
    """

    backbone: str
    trained_on: Regime
    seed: int
    variant: str | None = None

    @property
    def name(self) -> str:
        """Name of its folder under ``classifiers/`` and of its file under ``exported/``."""
        variant = "" if self.variant is None else f"-{self.variant}"
        return f"{self.backbone}-{self.trained_on}{variant}-s{self.seed}"


def classifier_specs(config: Config) -> list[ClassifierSpec]:
    """Every CNN that the settings ask for."""
    settings = config.classifiers
    return [
        ClassifierSpec(backbone, regime, config.seed + i, variant)
        for backbone in settings.backbones
        for regime in settings.train_on
        for variant in (variants_of(config) if regime in SYNTHETIC_REGIMES else [None])
        for i in range(settings.seeds)
    ]


def trained_path(spec: ClassifierSpec, run: RunFolder) -> Path:
    """Path of a CNN's Keras network."""
    return run.classifiers / spec.name / "model.keras"


def training_record(spec: ClassifierSpec, run: RunFolder) -> Path:
    """Path of a CNN's training record, next to its ``model.keras``."""
    return run.classifiers / spec.name / "training.json"


def exported_path(spec: ClassifierSpec, run: RunFolder, precision: Precision = "fp32") -> Path:
    """Path of a CNN's ONNX file of that precision."""
    return precision_path(run.exported / f"{spec.name}.onnx", precision)


def open_classifier(spec: ClassifierSpec, run: RunFolder) -> OnnxClassifier:
    """An exported CNN, in float32."""
    return OnnxClassifier(exported_path(spec, run))


def open_classifiers(
    config: Config, run: RunFolder, precisions: Sequence[Precision] = ("fp32",)
) -> Iterator[tuple[ClassifierSpec, OnnxClassifier]]:
    """Every exported CNN in each precision, one at a time, float32 first.

    A precision that the export refused to write is left out.
    """
    for spec in classifier_specs(config):
        for precision in dict.fromkeys(("fp32", *precisions)):
            path = exported_path(spec, run, precision)
            if precision == "fp32" or path.exists():
                yield spec, OnnxClassifier(path)
