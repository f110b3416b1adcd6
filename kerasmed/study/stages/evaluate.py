"""The stage that tests the CNNs."""

from pathlib import Path

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.comparison import Comparison, TrainedOn, compare_regimes
from kerasmed.audit.usefulness import test_images_in, usefulness
from kerasmed.classify.config import SYNTHETIC_REGIMES, Regime
from kerasmed.data.image_set import ImageSet
from kerasmed.export.config import Precision
from kerasmed.files import write_json, write_text
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.metrics.classification import (
    ClassifierMetrics,
    Curves,
    Spread,
    classification_curves,
    classification_metrics,
    over_seeds,
)
from kerasmed.result_types import Whole
from kerasmed.settings import Count, UnitInterval
from kerasmed.study.classifier_specs import ClassifierSpec, open_classifiers
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_grouped_split, read_synthetic
from kerasmed.study.run_folder import RunFolder


class MetricsRow(ClassifierMetrics):
    """One CNN in one precision, tested on the role ``test`` (``evaluation/metrics.json``)."""

    backbone: str
    """Name of the network."""
    trained_on: Regime
    """What it was trained on."""
    seed: Whole
    """Seed of its training."""
    variant: str | None
    """Name of the synthetic set it was trained on; null for the main one, and for real images."""
    precision: Precision
    """Precision of its file."""
    n_train: Count
    """Number of training images."""
    accuracy_on_synthetic: UnitInterval | None
    """Accuracy on the main synthetic set; null unless it was trained on real images only."""


class SeedsRow(TypedDict):
    """Mean and spread of one CNN over its seeds (``evaluation/over_seeds.json``)."""

    backbone: str
    """Name of the network."""
    trained_on: Regime
    """What it was trained on."""
    variant: str | None
    """Name of the synthetic set it was trained on; null for the main one, and for real images."""
    precision: Precision
    """Precision of its files."""
    seeds: Count
    """Number of seeds."""
    mean: Spread
    """Mean over the seeds."""
    standard_deviation: Spread
    """Standard deviation (n - 1) over the seeds; null for a single one."""


class EvaluateResult(TypedDict):
    """What ``run.json`` records of the evaluation."""

    accuracy: dict[str, UnitInterval]
    """Accuracy of each exported file on the role ``test``."""
    provider: str
    """The provider of onnxruntime that ran."""


def evaluate_classifiers(config: Config, run: RunFolder) -> EvaluateResult:
    """Test every exported CNN on the role `test`, and compare the regimes."""
    image_set, split, all_groups = load_grouped_split(config, run)
    test, groups = image_set.subset(split["test"]), all_groups[split["test"]]
    class_names = list(test.class_names)
    is_drawn = "sampling" in run.finished_stages()
    synthetic = read_synthetic(config, run) if is_drawn else None
    rows: list[MetricsRow] = []
    accuracy, curves, provider = {}, {}, ""
    correct: dict[TrainedOn, list[np.ndarray]] = {}
    for spec, engine in open_classifiers(config, run, config.export.precisions):
        probabilities = engine.predict(test.images)
        metrics = classification_metrics(
            probabilities,
            test.labels,
            class_names,
            config.evaluation.bootstrap_samples,
            config.seed,
            groups,
        )
        curves[engine.path.stem] = classification_curves(probabilities, test.labels, class_names)
        accuracy[engine.path.stem], provider = metrics["accuracy"], engine.provider
        rows.append(
            {
                "backbone": spec.backbone,
                "trained_on": spec.trained_on,
                "seed": spec.seed,
                "variant": spec.variant,
                "precision": engine.metadata["precision"],
                "n_train": engine.metadata["n_train"],
                **metrics,
                "accuracy_on_synthetic": _accuracy_on_synthetic(spec, engine, synthetic),
            }
        )
        if engine.metadata["precision"] == "fp32":
            is_correct = (probabilities.argmax(axis=1) == test.labels).astype(float)
            key = TrainedOn(spec.backbone, spec.trained_on, spec.variant)
            correct.setdefault(key, []).append(is_correct)
    comparisons = compare_regimes(
        {key: np.mean(of_seeds, axis=0) for key, of_seeds in correct.items()},
        groups,
        config.evaluation.bootstrap_samples,
        config.seed,
    )
    useful = usefulness(correct, test.labels, class_names, groups)
    reason = None if synthetic is None else test_images_in(synthetic, test)
    if reason is not None:
        useful["not_computed"] = reason
    write_json(run.evaluation / "usefulness.json", useful)
    caption = f"{config.name}: CNNs tested on {len(test)} unseen real images."
    _write(run.evaluation, rows, comparisons, curves, caption)
    return {"accuracy": accuracy, "provider": provider}


def _accuracy_on_synthetic(
    spec: ClassifierSpec, engine: OnnxClassifier, synthetic: ImageSet | None
) -> float | None:
    """Accuracy of a CNN trained on real images only; None for others or without a set."""
    if synthetic is None or spec.trained_on in SYNTHETIC_REGIMES:
        return None
    predicted = engine.predict(synthetic.images).argmax(axis=1)
    return float((predicted == synthetic.labels).mean())


def _write(
    folder: Path,
    rows: list[MetricsRow],
    comparisons: list[Comparison],
    curves: dict[str, Curves],
    caption: str,
) -> None:
    from kerasmed.audit.tables import comparisons_csv, metrics_csv, metrics_latex

    write_json(folder / "metrics.json", rows)
    write_json(folder / "over_seeds.json", over_seeds(rows))
    write_json(folder / "comparisons.json", comparisons)
    write_json(folder / "curves.json", curves)
    write_text(folder / "metrics.csv", metrics_csv(rows))
    write_text(folder / "comparisons.csv", comparisons_csv(comparisons))
    write_text(folder / "metrics.tex", metrics_latex(rows, caption))
