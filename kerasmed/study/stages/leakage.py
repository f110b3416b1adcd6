"""The stage that measures by how much a random split overstates the accuracy."""

from contextlib import suppress

import numpy as np

from kerasmed.data.image_set import ImageSet
from kerasmed.data.splits import Split, make_split
from kerasmed.errors import DataError
from kerasmed.files import write_json
from kerasmed.runtime.backend import load_keras
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_grouped_split
from kerasmed.study.leakage import LeakageResult, leakage
from kerasmed.study.run_folder import RunFolder

_SPLITS, _SEEDS = 5, 50  # 5 splits, trying at most 50 seeds
_EDGE = 16  # of the reduced images that serve as features without pretrained weights


def measure_leakage(config: Config, run: RunFolder) -> LeakageResult:
    """Accuracy of logistic regression on frozen features, under splits by group and by image."""
    image_set, _, groups_of_images = load_grouped_split(config, run)
    group_names = groups_of_images.tolist()
    single_images = [f"{i} {file.sha256}" for i, file in enumerate(image_set.files)]

    def splits(groups: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        labels, names = image_set.labels, image_set.class_names
        drawn: list[Split] = []
        for seed in range(config.seed, config.seed + _SEEDS):
            # With few groups, only some seeds leave a group of each class for each role.
            with suppress(DataError):
                drawn.append(make_split(labels, groups, names, config.split, seed))
            if len(drawn) == _SPLITS:
                break
        return [(_trained_on(split), split["test"]) for split in drawn]

    grouped = splits(group_names)
    if not grouped:
        raise DataError(
            f"Leakage: expected enough groups to split them anew, received none of {_SEEDS} splits "
            "with each class in each role; add images of other groups."
        )
    features, features_of = _features(config, image_set)
    result: LeakageResult = {
        "features_of": features_of,
        **leakage(features, image_set.labels, grouped, splits(single_images)[: len(grouped)]),
    }
    write_json(run.evaluation / "leakage.json", result)
    return result


def _trained_on(split: Split) -> np.ndarray:
    return np.concatenate([positions for role, positions in split.items() if role != "test"])


def _features(config: Config, image_set: ImageSet) -> tuple[np.ndarray, str]:
    """Features of the first backbone with pretrained weights, or reduced pixels, and a name."""
    pretrained = config.classifiers.pretrained()
    if not pretrained:
        step = max(1, image_set.image_size // _EDGE)
        reduced = np.asarray(image_set.images[:, ::step, ::step], dtype=np.float32)
        return reduced.reshape(len(reduced), -1), f"{reduced.shape[1]} x {reduced.shape[2]} pixels"
    load_keras()
    from kerasmed.classify.backbones import weights_for
    from kerasmed.classify.network import build_classifier, predict_outputs

    backbone = pretrained[0]
    settings = config.classifiers.of_backbone(backbone)
    weights = weights_for(backbone, settings.weights)
    model = build_classifier(
        backbone, 1, image_set.image_size, settings.input_size, weights, dropout=0.0
    )
    name = f"{backbone} ({weights.rsplit('/')[-1]})"
    return predict_outputs(model, image_set.images)["features"], name
