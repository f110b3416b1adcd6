"""The stage that tests the CNNs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.comparison import Comparison, TrainedOn, compare_regimes
from kerasmed.audit.subgroups import by_subgroup
from kerasmed.audit.tables import (
    comparisons_csv,
    metrics_csv,
    metrics_latex,
    predictions_csv,
)
from kerasmed.audit.usefulness import test_images_in, usefulness
from kerasmed.classify.config import SYNTHETIC_REGIMES, Regime
from kerasmed.data.config import DataConfig, SplitConfig
from kerasmed.data.csv_table import subgroup_columns
from kerasmed.data.image_set import ImageSet
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError
from kerasmed.export.config import Precision
from kerasmed.files import write_json, write_text
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.evaluate import read_test_images
from kerasmed.metrics.classification import (
    ClassifierMetrics,
    Curves,
    Spread,
    classification_curves,
    classification_metrics,
    over_seeds,
)
from kerasmed.metrics.copy_detector import identical_images
from kerasmed.result_types import Whole
from kerasmed.settings import Count, UnitInterval
from kerasmed.study.classifier_specs import ClassifierSpec, open_classifiers
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_grouped_split, read_synthetic, real_source
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


class OutsideResult(TypedDict):
    """The CNNs, tested on images from elsewhere (``evaluation/outside.json``)."""

    source: str
    """Where the images are."""
    images: dict[str, Whole]
    """Number of images of each class."""
    groups: Count
    """Number of groups of these images."""
    metrics: list[MetricsRow]
    """Figures of each CNN in float32."""
    comparisons: list[Comparison]
    """Each two regimes of a CNN."""


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


class _Tested(NamedTuple):
    """CNNs tested on the same images."""

    rows: list[MetricsRow]
    comparisons: list[Comparison]
    correct: dict[TrainedOn, list[np.ndarray]]
    probabilities: dict[str, np.ndarray]
    provider: str


def evaluate_classifiers(config: Config, run: RunFolder) -> EvaluateResult:
    """Test every exported CNN on the role `test` and on outside images; compare the regimes."""
    image_set, split, all_groups = load_grouped_split(config, run)
    groups = all_groups[split["test"]]
    test = replace(image_set.subset(split["test"]), groups=groups)
    class_names = list(test.class_names)
    is_drawn = "sampling" in run.finished_stages()
    synthetic = read_synthetic(config, run) if is_drawn else None
    tested = _test(config, run, test, synthetic, config.export.precisions)
    curves = {
        name: classification_curves(probabilities, test.labels, class_names)
        for name, probabilities in tested.probabilities.items()
    }
    useful = usefulness(tested.correct, test.labels, class_names, groups)
    reason = None if synthetic is None else test_images_in(synthetic, test)
    if reason is not None:
        useful["not_computed"] = reason
    write_json(run.evaluation / "usefulness.json", useful)
    _evaluate_outside(config, run, image_set)
    _evaluate_subgroups(config, run, test, groups, tested.correct)
    caption = f"{config.name}: CNNs tested on {len(test)} unseen real images."
    _write(run.evaluation, tested, curves, caption)
    write_text(run.evaluation / "predictions.csv", predictions_csv(test, tested.probabilities))
    names = tested.probabilities
    accuracy = {name: row["accuracy"] for name, row in zip(names, tested.rows, strict=True)}
    return {"accuracy": accuracy, "provider": tested.provider}


def _test(
    config: Config,
    run: RunFolder,
    images: ImageSet,
    synthetic: ImageSet | None,
    precisions: Sequence[Precision],
) -> _Tested:
    """Test every exported CNN on images, and compare the regimes."""
    class_names = list(images.class_names)
    rows: list[MetricsRow] = []
    correct: dict[TrainedOn, list[np.ndarray]] = {}
    of_networks, provider = {}, ""
    for spec, engine in open_classifiers(config, run, precisions):
        probabilities = engine.predict(images.images)
        metrics = classification_metrics(
            probabilities,
            images.labels,
            class_names,
            config.evaluation.bootstrap_samples,
            config.seed,
            images.groups,
        )
        of_networks[engine.path.stem], provider = probabilities, engine.provider
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
            is_correct = (probabilities.argmax(axis=1) == images.labels).astype(float)
            key = TrainedOn(spec.backbone, spec.trained_on, spec.variant)
            correct.setdefault(key, []).append(is_correct)
    groups = np.asarray(images.groups)
    # The CNNs of `best` are copies of others, with which they have every answer in common.
    compared = {key: right for key, right in correct.items() if key.regime != "best"}
    comparisons = compare_regimes(compared, images.labels, class_names, groups, config.seed)
    return _Tested(rows, comparisons, correct, of_networks, provider)


def _evaluate_subgroups(
    config: Config,
    run: RunFolder,
    test: ImageSet,
    groups: np.ndarray,
    correct: dict[TrainedOn, list[np.ndarray]],
) -> None:
    """Accuracy by sex, age, site and device, where the table of the images has such a column."""
    path, source = run.evaluation / "subgroups.json", config.data.source
    path.unlink(missing_ok=True)
    columns = subgroup_columns(source) if source and source.suffix.lower() == ".csv" else {}
    if columns:
        values = {
            name: [of_image[file.path] for file in test.files] for name, of_image in columns.items()
        }
        write_json(path, by_subgroup(correct, groups, values))


def check_outside(config: Config) -> None:
    """Refuse an outside set that cannot be listed.

    Raises:
        DataError: it is missing, or has another layout.
    """
    source = config.evaluation.outside
    if source is not None:
        open_source(DataConfig(source=source, official_split="merge"), least_classes=1)


def _evaluate_outside(config: Config, run: RunFolder, image_set: ImageSet) -> None:
    """Test the CNNs on ``evaluation.outside``, if it is given.

    Raises:
        DataError: images of the study are among them, or other classes.
    """
    path, source = run.evaluation / "outside.json", config.evaluation.outside
    path.unlink(missing_ok=True)
    if source is None:
        return
    # Another set has its own subsets and its own names of files.
    data = real_source(config, run).model_copy(
        update={"source": source, "official_split": "merge", **image_set.formats}
    )
    split = SplitConfig(patient=config.split.patient)
    images = read_test_images(data, split, image_set.class_names, run.cache / "outside")
    both = len(identical_images(np.asarray(image_set.images), np.asarray(images.images)))
    if both:
        raise DataError(
            f"evaluation.outside: expected images that are not in the study, received {both} with "
            "the pixels of its images; remove them, or name another set."
        )
    tested = _test(config, run, images, None, ("fp32",))
    result: OutsideResult = {
        "source": str(source),
        "images": images.counts(),
        "groups": len(np.unique(np.asarray(images.groups))),
        "metrics": tested.rows,
        "comparisons": tested.comparisons,
    }
    write_json(path, result)


def _accuracy_on_synthetic(
    spec: ClassifierSpec, engine: OnnxClassifier, synthetic: ImageSet | None
) -> float | None:
    """Accuracy of a CNN trained on real images only; None for others or without a set."""
    if synthetic is None or spec.trained_on in (*SYNTHETIC_REGIMES, "best"):
        return None
    predicted = engine.predict(synthetic.images).argmax(axis=1)
    return float((predicted == synthetic.labels).mean())


def _write(folder: Path, tested: _Tested, curves: dict[str, Curves], caption: str) -> None:
    rows, comparisons = tested.rows, tested.comparisons
    write_json(folder / "metrics.json", rows)
    write_json(folder / "over_seeds.json", over_seeds(rows))
    write_json(folder / "comparisons.json", comparisons)
    write_json(folder / "curves.json", curves)
    write_text(folder / "metrics.csv", metrics_csv(rows))
    write_text(folder / "comparisons.csv", comparisons_csv(comparisons))
    write_text(folder / "metrics.tex", metrics_latex(rows, caption))
