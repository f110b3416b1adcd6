"""The stage that trains the CNNs."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.choice import Choice
from kerasmed.audit.extractors import named_extractors
from kerasmed.classify.config import SYNTHETIC_REGIMES
from kerasmed.classify.recipes import Phase, phases_of, recipes_of
from kerasmed.data.image_set import ImageSet
from kerasmed.data.splits import Split
from kerasmed.files import read_json, sha256_of, write_json
from kerasmed.fingerprint import Fingerprint, FingerprintRecord
from kerasmed.parallel.resolve import Runtime, RuntimeRecord, resolve_runtime
from kerasmed.parallel.workers import check_agreed, from_chief, this_worker
from kerasmed.progress import say
from kerasmed.result_types import NotNegative
from kerasmed.runtime.backend import load_keras
from kerasmed.settings import Count, Rate, UnitInterval
from kerasmed.study.best_classifiers import choose_best, chosen_spec
from kerasmed.study.classifier_specs import (
    ClassifierSpec,
    classifier_specs,
    trained_path,
    training_record,
)
from kerasmed.study.config import Config
from kerasmed.study.inputs import (
    images_per_class,
    load_grouped_split,
    load_split,
    read_synthetic,
)
from kerasmed.study.run_folder import RunFolder
from kerasmed.text import counted


class ClassifierTraining(RuntimeRecord):
    """What the training of a CNN came to."""

    kept: Literal["head", "first_phase", "finetune"]
    """The phase whose weights were kept."""
    steps: NotRequired[Count]
    """Steps of the last phase, if there was any."""
    images_per_s: NotRequired[NotNegative]
    """Images per second of the fine-tuning, the median."""
    parameters: Count
    """Number of parameters."""
    n_train: Count
    """Number of training images."""
    n_validation: Count
    """Number of validation images."""
    validation_loss: NotNegative
    """Cross-entropy of the calibrated probabilities of the validation images."""
    validation_accuracy: UnitInterval
    """Accuracy on the validation images."""
    temperature: Rate
    """Divides the logits before the softmax, so that probabilities are calibrated."""
    weights: str
    """The weights it began with: "imagenet", "none" or the name of a file."""
    minutes: NotNegative
    """Duration of the training."""
    recipe: NotRequired[str]
    """Of `real_best`: the recipe with the lowest validation loss."""
    recipe_losses: NotRequired[dict[str, NotNegative]]
    """Of `real_best`: the validation loss of each recipe."""
    chosen: NotRequired[Choice]
    """Of `best`: what was chosen, and by what margin."""


class TrainingRecord(TypedDict):
    """How a CNN was trained (``training.json`` next to its ``model.keras``)."""

    fingerprint: FingerprintRecord
    """What it was trained with."""
    result: ClassifierTraining
    """What the training came to."""


class ClassifiersResult(TypedDict, total=False):
    """What ``run.json`` records of the CNNs."""

    classifiers: dict[str, ClassifierTraining]
    """What the training of each came to."""


def check_classifiers(config: Config) -> None:
    """Refuse unusable backbones, sizes and weights before anything is trained.

    Raises:
        ConfigError: naming the first such setting.
    """
    load_keras()
    from kerasmed.classify.backbones import resolve_input_size, weights_for

    for backbone in [*config.classifiers.backbones, *config.classifiers.by_backbone]:
        resolve_input_size(backbone, config.classifiers.of_backbone(backbone).input_size)
    for backbone in config.classifiers.backbones:
        weights_for(backbone, config.classifiers.weights)
    named_extractors(config.audit, config.classifiers)


def train_classifiers(config: Config, run: RunFolder) -> ClassifiersResult:
    """Train every CNN of the settings that is not trained yet; returns their results."""
    train_shard(config, run)
    if not this_worker().is_chief:  # only the chief writes the records
        return {}
    image_set, split, groups = load_grouped_split(config, run)
    chosen_on = split["validation"]
    choose_best(classifier_specs(config), run, image_set.subset(chosen_on), groups[chosen_on])
    records = {
        spec.name: read_json(training_record(spec, run), "kerasmed train classifier CONFIG")
        for spec in classifier_specs(config)
    }
    return {"classifiers": {name: record["result"] for name, record in records.items()}}


def train_shard(config: Config, run: RunFolder, index: int = 1, shards: int = 1) -> int:
    """Train every ``shards``-th CNN from the ``index``-th on that is not trained yet.

    Several processes can do so in one run folder at the same time. The workers of ``multi_worker``
    train each CNN together, and only the chief writes.

    Returns:
        How many CNNs of the study are still missing.
    """
    runtime = resolve_runtime(config.runtime, cpu_bfloat16=False)
    check_classifiers(config)
    weights = {name: version_of_weights(config, name) for name in config.classifiers.backbones}
    image_set, split = load_split(config, run)
    validation = image_set.subset(split["validation"])
    images_per_epoch = images_per_epoch_of(config, image_set.counts(split["train"]))
    to_train = [spec for spec in classifier_specs(config) if spec.trained_on != "best"]
    missing = 0
    minutes: list[float] = []
    for number, spec in enumerate(to_train):
        phases = phases_of_spec(spec, config, run, image_set, split)
        made_from = fingerprint_of(
            config, spec.backbone, weights[spec.backbone], phases, validation, images_per_epoch
        )
        check_agreed(made_from)
        if _is_trained(spec, run, made_from):
            continue
        if number % shards != index - 1:
            missing += 1
            continue
        say(f"classifier {number + 1} of {len(to_train)}: {spec.name}")
        started = time.monotonic()
        result = _train(spec, config, run, runtime, phases, validation, images_per_epoch)
        if this_worker().is_chief:
            record = {"fingerprint": made_from.as_record(), "result": result}
            write_json(training_record(spec, run), record)
        minutes.append((time.monotonic() - started) / 60 / _trainings(spec))
        mine = to_train[number + shards :: shards]
        left = [other for other in mine if not training_record(other, run).exists()]
        if left:
            about = np.mean(minutes) * sum(map(_trainings, left))
            say(f"about {about:.0f} minutes are left for {counted(len(left), 'CNN')}, at this rate")
    return missing


def fingerprint_of(
    config: Config,
    backbone: str,
    weights: str,
    phases: Sequence[Phase],
    validation: ImageSet,
    images_per_epoch: int | None,
) -> Fingerprint:
    """The settings and images that a CNN is trained with; ``weights`` as their version."""
    of_backbone = config.classifiers.of_backbone(backbone)
    settings = {
        "classifiers": of_backbone.model_dump(
            mode="json", exclude={"backbones", "train_on", "seeds", "by_backbone", "weights"}
        ),
        "data": {"symmetry": config.data.symmetry, "image_size": validation.image_size},
        # As in the settings: another machine's choice for "auto" does not change the network.
        "runtime": config.runtime.model_dump(mode="json", exclude={"distribution"}),
        "images_per_epoch": images_per_epoch,
    }
    hashes = [images.data_hash for phase in phases for images in phase.sets()]
    inputs = {
        "weights": weights,
        "training images": " then ".join(hashes),
        "validation images": validation.data_hash,
    }
    return Fingerprint(settings, inputs)


def _trainings(spec: ClassifierSpec) -> float:
    """How many trainings of the set length a CNN takes."""
    return (
        6.5 if spec.trained_on == "real_best" else 1.0
    )  # six recipes, one twice as long and one half


def images_per_epoch_of(config: Config, real: dict[str, int]) -> int | None:
    """Images in an epoch of every CNN under ``equal_steps``; None if each image is shown once."""
    if not config.classifiers.equal_steps:
        return None
    return sum(real.values()) + images_per_class(config, real) * len(real)


def _is_trained(spec: ClassifierSpec, run: RunFolder, made_from: Fingerprint) -> bool:
    """Whether a CNN has been trained with these settings and images, as the chief sees it."""
    path = training_record(spec, run)
    record = read_json(path, "kerasmed train classifier CONFIG") if path.exists() else {}
    is_saved = trained_path(spec, run).exists()
    return bool(from_chief(is_saved and made_from.matches(record.get("fingerprint")))[0])


def _train(
    spec: ClassifierSpec,
    config: Config,
    run: RunFolder,
    runtime: Runtime,
    phases: list[Phase],
    validation: ImageSet,
    images_per_epoch: int | None,
) -> dict[str, Any]:
    """Train one CNN; returns what ran and what came of it."""
    from kerasmed.classify.training import train_best_classifier, train_classifier

    path = training_record(spec, run)
    if this_worker().is_chief:
        path.unlink(missing_ok=True)
    common = (
        *(validation, config.data.symmetry, spec.seed, runtime, path.parent),
        images_per_epoch,
    )
    if spec.trained_on == "real_best":
        result = train_best_classifier(spec.backbone, recipes_of(phases), *common)
    else:
        _, result = train_classifier(spec.backbone, phases, *common)
    return {**runtime.as_record(), **result}


def version_of_weights(config: Config, backbone: str) -> str:
    """SHA-256 of the file of weights; "imagenet" and "none" stay as they are."""
    from kerasmed.classify.backbones import weights_for

    weights = weights_for(backbone, config.classifiers.of_backbone(backbone).weights)
    return weights if weights in ("imagenet", "none") else sha256_of(Path(weights))


def phases_of_spec(
    spec: ClassifierSpec, config: Config, run: RunFolder, image_set: ImageSet, split: Split
) -> list[Phase]:
    """The images that a CNN is trained on, one phase after the other."""
    spec = chosen_spec(spec, run)
    sets = {"train": image_set.subset(split["train"])}
    if spec.trained_on == "real_all":
        sets["reserve"] = image_set.subset(split["reserve"])
    if spec.trained_on in SYNTHETIC_REGIMES:
        sets["synthetic"] = read_synthetic(config, run, spec.variant)
    return phases_of(spec.trained_on, config.classifiers.of_backbone(spec.backbone), sets)
