"""Several studies of the same images, such as with several seeds, compared as one."""

import csv
import json
from collections.abc import Sequence

import numpy as np

from kerasmed.audit.comparison import Comparison, TrainedOn, compare_regimes
from kerasmed.errors import InputError, StageError
from kerasmed.study.classifier_specs import classifier_specs
from kerasmed.study.config import parse_config
from kerasmed.study.engine import check_finished
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stage import deciding_settings
from kerasmed.study.stages import STAGES


def compare_studies(runs: Sequence[RunFolder]) -> list[Comparison]:
    """Comparisons of the regimes that all studies have, over all their test images.

    Each study has its own draw of the training images, its own generator and its own CNNs, so the
    intervals are over these too. Test images of one group count as one group in all studies.

    Args:
        runs: run folders whose evaluation has finished.

    Raises:
        InputError: fewer than two studies, one given twice, other images, or no two regimes that
            all have.
        StageError: an evaluation has not finished, or has changed since.
    """
    roots = [run.root.resolve() for run in runs]
    if len(set(roots)) < max(2, len(roots)):
        raise InputError(
            f"Studies: expected two or more, each once, received {len(roots)} with "
            f"{len(set(roots))} different folders; name each folder once."
        )
    studies = [_Answers(run) for run in runs]
    if len({study.data_hash for study in studies}) > 1:
        raise InputError(
            "Studies: expected the same real images in all, received different ones; give studies "
            "that differ only in the seed."
        )
    if len({study.settings for study in studies}) > 1:
        raise InputError(
            "Studies: expected the same settings except the seed, received different ones; compare "
            "only studies with the same settings."
        )
    if len({study.seed for study in studies}) < len(studies):
        raise InputError(
            f"Studies: expected a different seed for each, received "
            f"{[study.seed for study in studies]}; run them with --set seed=..."
        )
    common = [key for key in studies[0].correct if all(key in other.correct for other in studies)]
    regimes_of: dict[str, set[str]] = {}
    for key in common:
        regimes_of.setdefault(key.backbone, set()).add(key.regime)
    if max(map(len, regimes_of.values()), default=0) < 2:
        named = [f"{key.backbone} {key.regime}" for key in common]
        raise InputError(
            f"Studies: expected two or more regimes of a network in all, received {named}; train "
            "the same CNNs in all (classifiers.train_on)."
        )
    class_names = sorted({name for study in studies for name in study.classes})
    return compare_regimes(
        {
            key: [np.concatenate([study.correct[key].mean(axis=0) for study in studies])]
            for key in common
        },
        np.searchsorted(class_names, np.concatenate([study.classes for study in studies])),
        class_names,
        np.concatenate([study.groups for study in studies]),
        studies[0].seed,
        np.repeat(np.arange(len(studies)), [len(study.groups) for study in studies]),
    )


class _Answers:
    """What the CNNs of a study name its test images."""

    def __init__(self, run: RunFolder):
        run.require("evaluate", STAGES["evaluate"].command)
        record = run.record()
        config = parse_config(record["config"], str(run.record_path))
        check_finished(STAGES["evaluate"], config, run)
        self.data_hash, self.seed = record["data_hash"], config.seed
        left_out = {"name", "seed", "runtime", "explain", "audit", "export", "worth", "classifiers"}
        settings = deciding_settings(config.model_dump(mode="json", exclude=left_out))
        settings["data"].pop("source")  # a path, which `data_hash` makes sure of
        # CNNs may be added to a study; those that all have are compared.
        added = {"train_on", "backbones", "seeds", "by_backbone"}
        classifiers = config.classifiers.model_dump(mode="json", exclude=added)
        self.settings = json.dumps([settings, classifiers], sort_keys=True)
        path = run.evaluation / "predictions.csv"
        if not path.exists():
            raise StageError(f"Missing {path}: run `kerasmed evaluate` again.")
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.classes = np.array([row["class"] for row in rows])
        self.groups = np.array([row["group"] for row in rows])
        of_seeds: dict[TrainedOn, list[np.ndarray]] = {}
        for spec in classifier_specs(config):
            if not rows or spec.name not in rows[0]:
                raise StageError(f"{path} lacks {spec.name}; run `kerasmed evaluate` again.")
            right = np.array([row[spec.name] == row["class"] for row in rows], float)
            of_seeds.setdefault(TrainedOn(spec.backbone, spec.trained_on, spec.variant), []).append(
                right
            )
        self.correct = {key: np.array(right) for key, right in of_seeds.items()}
