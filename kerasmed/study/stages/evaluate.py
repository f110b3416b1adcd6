"""The stage that tests the CNNs."""

from typing import Any

import numpy as np

from kerasmed.files import write_json, write_text
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_grouped_split, load_synthetic, open_classifiers
from kerasmed.study.run_folder import RunFolder


def evaluate_classifiers(config: Config, run: RunFolder) -> dict[str, Any]:
    """Test every exported CNN on the role `test`, and compare what they were trained on."""
    from kerasmed.audit.comparison import TrainedOn, compare_regimes
    from kerasmed.audit.tables import comparisons_csv, metrics_csv, metrics_latex
    from kerasmed.metrics.classification import (
        classification_curves,
        classification_metrics,
        over_seeds,
    )

    image_set, split, all_groups = load_grouped_split(config, run)
    test, groups = image_set.subset(split["test"]), all_groups[split["test"]]
    class_names = list(test.class_names)
    is_drawn = "sampling" in run.finished_stages()
    synthetic = load_synthetic(config, run) if is_drawn else None
    rows, accuracy, provider = [], {}, ""
    correct: dict[TrainedOn, list[np.ndarray]] = {}
    curves = {}
    for cell, engine in open_classifiers(config, run, config.export.precisions):
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
        precision = engine.metadata["precision"]
        accuracy[engine.path.stem], provider = metrics["accuracy"], engine.provider
        on_synthetic = None
        if synthetic is not None and cell.trained_on in ("real", "real_all"):
            predicted = engine.predict(synthetic.images).argmax(axis=1)
            on_synthetic = float((predicted == synthetic.labels).mean())
        rows.append(
            {
                "backbone": cell.backbone,
                "trained_on": cell.trained_on,
                "seed": cell.seed,
                "variant": cell.variant,
                "precision": precision,
                "n_train": engine.metadata["n_train"],
                **metrics,
                "accuracy_on_synthetic": on_synthetic,
            }
        )
        if precision == "fp32":
            right = (probabilities.argmax(axis=1) == test.labels).astype(float)
            key = TrainedOn(cell.backbone, cell.trained_on, cell.variant)
            correct.setdefault(key, []).append(right)
    compared = compare_regimes(
        {key: np.mean(each, axis=0) for key, each in correct.items()},
        groups,
        config.evaluation.bootstrap_samples,
        config.seed,
    )
    write_json(run.evaluation / "metrics.json", rows)
    write_json(run.evaluation / "over_seeds.json", over_seeds(rows))
    write_json(run.evaluation / "comparisons.json", compared)
    write_json(run.evaluation / "curves.json", curves)
    write_text(run.evaluation / "metrics.csv", metrics_csv(rows))
    write_text(run.evaluation / "comparisons.csv", comparisons_csv(compared))
    caption = f"{config.name}: CNNs tested on {len(test)} unseen real images."
    write_text(run.evaluation / "metrics.tex", metrics_latex(rows, caption))
    return {"accuracy": accuracy, "provider": provider}
