"""The stage that measures what a random split would have claimed."""

from contextlib import suppress
from typing import Any

import numpy as np

from kerasmed.data.image_set import ImageSet
from kerasmed.data.splits import Split, make_split
from kerasmed.errors import DataError
from kerasmed.files import write_json
from kerasmed.runtime.backend import load_keras
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_grouped_split
from kerasmed.study.run_folder import RunFolder

_SPLITS, _SEEDS = 5, 50  # so many, of so many seeds at most
_EDGE = 16  # of the reduced images that stand in for features


def measure_leakage(config: Config, run: RunFolder) -> dict[str, Any]:
    """Logistic regression on frozen features: this rule of splitting against a random one."""
    from kerasmed.study.leakage import leakage

    image_set, _, grouped = load_grouped_split(config, run)
    groups = grouped.tolist()
    each_alone = [f"{i} {file.sha256}" for i, file in enumerate(image_set.files)]

    def splits(belonging: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        labels, names = image_set.labels, image_set.class_names
        made = []
        for seed in range(config.seed, config.seed + _SEEDS):
            # Where groups are few, only some seeds leave a group of each class for each role.
            with suppress(DataError):
                made.append(make_split(labels, belonging, names, config.split, seed))
            if len(made) == _SPLITS:
                break
        return [(_trained_on(split), split["test"]) for split in made]

    features, features_of = _frozen_features(config, image_set)
    found = leakage(features, image_set.labels, splits(groups), splits(each_alone))
    write_json(run.evaluation / "leakage.json", {"features_of": features_of, **found})
    return {"features_of": features_of, **found}


def _trained_on(split: Split) -> np.ndarray:
    return np.concatenate([at for role, at in split.items() if role != "test"])


def _frozen_features(config: Config, image_set: ImageSet) -> tuple[np.ndarray, str]:
    """Of the first backbone with pretrained weights; reduced pixels where there is none."""
    for backbone in config.classifiers.backbones:
        load_keras()
        from kerasmed.classify.backbones import weights_for
        from kerasmed.classify.classifier import build_classifier, predict_outputs

        settings = config.classifiers.of_backbone(backbone)
        weights = weights_for(backbone, settings.weights)
        if weights != "none":
            model = build_classifier(
                backbone, 1, image_set.image_size, settings.input_size, weights, dropout=0.0
            )
            name = f"{backbone} ({weights.rsplit('/')[-1]})"
            return predict_outputs(model, image_set.images)["features"], name
    step = max(1, image_set.image_size // _EDGE)
    reduced = np.asarray(image_set.images[:, ::step, ::step], dtype=np.float32)
    return reduced.reshape(len(reduced), -1), f"{reduced.shape[1]} x {reduced.shape[2]} pixels"
