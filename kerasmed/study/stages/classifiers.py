"""The stage that trains the CNNs."""

from pathlib import Path
from typing import Any

from kerasmed.data.image_set import ImageSet, concatenate
from kerasmed.data.splits import Split
from kerasmed.files import read_json, sha256_of, write_json
from kerasmed.parallel.resolve import resolve_runtime
from kerasmed.parallel.workers import check_agreed, joined, of_chief
from kerasmed.progress import say
from kerasmed.runtime.backend import load_keras
from kerasmed.study.config import Config
from kerasmed.study.inputs import (
    Cell,
    cells_of,
    images_per_class,
    load_split,
    load_synthetic,
)
from kerasmed.study.run_folder import RunFolder


def check_classifiers(config: Config) -> None:
    """Refuse backbones, sizes and weights that cannot be trained, before anything is trained.

    Raises:
        ConfigError: naming the first.
    """
    load_keras()
    from kerasmed.classify.backbones import find_backbone, resolve_input_size, weights_for

    for backbone in [*config.classifiers.backbones, *config.classifiers.by_backbone]:
        resolve_input_size(backbone, config.classifiers.of_backbone(backbone).input_size)
    for backbone in config.classifiers.backbones:
        weights_for(backbone, config.classifiers.weights)
    for extractor in config.audit.extractors:
        find_backbone(extractor)
        weights_for(extractor, config.audit.extractor_weights, "audit.extractor_weights")


def train_classifiers(config: Config, run: RunFolder) -> dict[str, Any]:
    """Train every CNN that the settings ask for and that is not there yet."""
    train_shard(config, run)
    if not joined().is_chief:  # who writes the records
        return {}
    records = {
        cell.name: read_json(training_record(cell, run), "kerasmed train classifier CONFIG")
        for cell in cells_of(config)
    }
    return {"cells": {name: record["result"] for name, record in records.items()}}


def train_shard(config: Config, run: RunFolder, index: int = 1, shards: int = 1) -> int:
    """Train every ``shards``-th CNN from the ``index``-th on, those that are not there yet.

    Several processes may do so in one run folder at once. The workers of ``multi_worker`` train
    each CNN together, and the chief alone writes.

    Returns:
        How many CNNs of the study are still missing.
    """
    runtime = resolve_runtime(config.runtime, cpu_bfloat16=False)
    from kerasmed.classify.training import train_classifier

    check_classifiers(config)
    cells = cells_of(config)
    weights = {name: _version_of_weights(config, name) for name in config.classifiers.backbones}
    image_set, split = load_split(config, run)
    validation = image_set.subset(split["validation"])
    missing = 0
    images_per_epoch = None
    if config.classifiers.equal_steps:
        real = image_set.counts(split["train"])
        synthetic = images_per_class(config, real) * len(real)
        images_per_epoch = sum(real.values()) + synthetic
    for number, cell in enumerate(cells):
        settings = config.classifiers.of_backbone(cell.backbone)
        train = training_images(cell, config, run, image_set, split)
        made_from = {
            "settings": settings.model_dump(
                mode="json", exclude={"backbones", "train_on", "seeds", "by_backbone"}
            ),
            "symmetry": config.data.symmetry,
            "image_size": train.image_size,
            # As asked for: what other machines make of "auto" does not make another network.
            "runtime": config.runtime.model_dump(mode="json", exclude={"distribution"}),
            "weights": weights[cell.backbone],
            "training_hash": train.data_hash,
            "validation_hash": validation.data_hash,
            "images_per_epoch": images_per_epoch,
        }
        check_agreed(made_from)
        path = training_record(cell, run)
        record = read_json(path, "kerasmed train classifier CONFIG") if path.exists() else {}
        is_there = path.with_name("model.keras").exists()
        if of_chief(is_there and record.get("made_from") == made_from)[0]:
            continue
        if number % shards != index - 1:
            missing += 1
            continue
        say(f"classifier {number + 1} of {len(cells)}: {cell.name}, {len(train)} images")
        if joined().is_chief:
            path.unlink(missing_ok=True)
        _, result = train_classifier(
            cell.backbone,
            train,
            validation,
            settings,
            config.data.symmetry,
            cell.seed,
            runtime,
            path.parent,
            images_per_epoch,
        )
        if joined().is_chief:
            made = {"made_from": made_from, "result": {**runtime.as_record(), **result}}
            write_json(path, made)
    return missing


def _version_of_weights(config: Config, backbone: str) -> str:
    """SHA-256 of the file; "imagenet" or "none" as they are."""
    from kerasmed.classify.backbones import weights_for

    weights = weights_for(backbone, config.classifiers.of_backbone(backbone).weights)
    return weights if weights in ("imagenet", "none") else sha256_of(Path(weights))


def training_record(cell: Cell, run: RunFolder) -> Path:
    return run.classifiers / cell.name / "training.json"


def training_images(
    cell: Cell, config: Config, run: RunFolder, image_set: ImageSet, split: Split
) -> ImageSet:
    real = image_set.subset(split["train"])
    if cell.trained_on == "real":
        return real
    if cell.trained_on == "real_all":
        return concatenate(real, image_set.subset(split["reserve"]))
    synthetic = load_synthetic(config, run, cell.variant)
    return synthetic if cell.trained_on == "synthetic" else concatenate(real, synthetic)
