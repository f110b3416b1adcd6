"""The stages that make and test CNNs: classifiers, export, evaluate."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed import __version__
from kerasmed.config import Config
from kerasmed.data.image_set import ImageSet, concatenate
from kerasmed.data.splits import Split
from kerasmed.errors import ModelFileError
from kerasmed.files import read_json, sha256_of, write_json, write_text
from kerasmed.progress import say
from kerasmed.runs import RunFolder
from kerasmed.runtime import load_keras, resolve_runtime
from kerasmed.stages.inputs import (
    Cell,
    cells_of,
    exported_path,
    images_per_class,
    load_grouped_split,
    load_split,
    load_synthetic,
    open_classifiers,
)
from kerasmed.workers import check_agreed, joined, of_chief


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
        cell.name: read_json(_record_path(cell, run), "kerasmed train classifier CONFIG")
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
        real = image_set.counts(split["diffusion"])
        synthetic = images_per_class(config, real) * len(real)
        images_per_epoch = sum(real.values()) + synthetic
    for number, cell in enumerate(cells):
        settings = config.classifiers.of_backbone(cell.backbone)
        train = _training_images(cell, config, run, image_set, split)
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
        path = _record_path(cell, run)
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


def _record_path(cell: Cell, run: RunFolder) -> Path:
    return run.classifiers / cell.name / "training.json"


def _training_images(
    cell: Cell, config: Config, run: RunFolder, image_set: ImageSet, split: Split
) -> ImageSet:
    real = image_set.subset(split["diffusion"])
    if cell.trained_on == "real":
        return real
    if cell.trained_on == "real_all":
        return concatenate(real, image_set.subset(split["train"]))
    synthetic = load_synthetic(config, run, cell.variant)
    return synthetic if cell.trained_on == "synthetic" else concatenate(real, synthetic)


def export_classifiers(config: Config, run: RunFolder) -> dict[str, Any]:
    """Write every trained CNN as ONNX, in each of the precisions."""
    export_shard(config, run)
    found: dict[str, Any] = {}
    for cell in cells_of(config):
        found |= read_json(_export_record_path(cell, run), "kerasmed export CONFIG")["result"]
    return found


def export_shard(config: Config, run: RunFolder, index: int = 1, shards: int = 1) -> int:
    """Export every ``shards``-th CNN from the ``index``-th on, those that are not there yet.

    Returns:
        How many CNNs of the study are still to be exported.
    """
    image_set, split = load_split(config, run)
    missing = 0
    for number, cell in enumerate(cells_of(config)):
        trained = _record_path(cell, run)
        made_from = {
            "settings": config.export.model_dump(mode="json"),
            "seed": config.seed,
            "kerasmed": __version__,
            "data_hash": image_set.data_hash,
            "training": read_json(trained, "kerasmed train classifier CONFIG"),
            "model_sha256": sha256_of(trained.with_name("model.keras")),
        }
        path = _export_record_path(cell, run)
        record = read_json(path, "kerasmed export CONFIG") if path.exists() else {}
        made = [run.exported / f"{name}.onnx" for name in record.get("files", ())]
        if record.get("made_from") == made_from and all(_is_whole(each) for each in made):
            continue
        if number % shards != index - 1:
            missing += 1
            continue
        path.unlink(missing_ok=True)
        found = _export_cell(cell, config, run, image_set, split, made_from["training"]["result"])
        told = ("parity", "float_layers", "validation_accuracy", "transposes", "not_exported")
        result = {name: {k: each[k] for k in told if k in each} for name, each in found.items()}
        files = [name for name, each in result.items() if "not_exported" not in each]
        write_json(path, {"made_from": made_from, "files": files, "result": result})
    return missing


def _export_cell(
    cell: Cell,
    config: Config,
    run: RunFolder,
    image_set: ImageSet,
    split: Split,
    trained: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Write one CNN in each precision; the sidecars' content by the files' stems."""
    load_keras()
    import keras

    from kerasmed.export.classifiers import export_classifier, export_float16, export_int8, spread

    validation = image_set.subset(split["validation"])
    images = spread(validation.images)
    model = keras.saving.load_model(_record_path(cell, run).with_name("model.keras"), compile=False)
    metadata = {
        "class_names": list(image_set.class_names),
        "data_class_names": config.data.class_names,
        "backbone": cell.backbone,
        "trained_on": cell.trained_on,
        "variant": cell.variant,
        "seed": cell.seed,
        "n_train": trained["n_train"],
        "weights": trained["weights"],
        "data_hash": image_set.data_hash,
        "formats": image_set.formats,
    }
    path = exported_path(cell, run)
    found = {path.stem: export_classifier(model, trained["temperature"], metadata, images, path)}
    keras.backend.clear_session()
    # Those of an earlier training may not outlive it.
    for precision in ("fp16", "int8"):
        for suffix in (".onnx", ".json"):
            exported_path(cell, run, precision).with_suffix(suffix).unlink(missing_ok=True)
    if "fp16" in config.export.precisions:
        half = exported_path(cell, run, "fp16")
        found[half.stem] = _or_reason(export_float16, path, images, half)
    if "int8" in config.export.precisions:
        train = _training_images(cell, config, run, image_set, split)
        count = min(config.export.calibration_images, len(train))
        rng = np.random.default_rng(config.seed)
        calibration = train.images[np.sort(rng.choice(len(train), count, replace=False))]
        small = exported_path(cell, run, "int8")
        arguments = (calibration, np.asarray(validation.images), validation.labels)
        found[small.stem] = _or_reason(export_int8, path, *arguments, small)
    return found


def _is_whole(path: Path) -> bool:
    """Whether an exported file is there, with the sidecar that it was written with."""
    beside = path.with_suffix(".json")
    if not (path.exists() and beside.exists()):
        return False
    sidecar = read_json(beside, "kerasmed export CONFIG")
    return isinstance(sidecar, dict) and sidecar.get("sha256") == sha256_of(path)


def _export_record_path(cell: Cell, run: RunFolder) -> Path:
    return run.classifiers / cell.name / "export.json"


def _or_reason(export: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What was exported, or why one network has no file of that precision; the rest go on."""
    try:
        return export(*arguments)
    except ModelFileError as error:
        say(str(error))
        return {"not_exported": str(error)}


def evaluate_classifiers(config: Config, run: RunFolder) -> dict[str, Any]:
    """Test every exported CNN on the role `test`, and compare what they were trained on."""
    from kerasmed.evaluate.classification import (
        classification_curves,
        classification_metrics,
        over_seeds,
    )
    from kerasmed.evaluate.comparison import TrainedOn, compare_regimes
    from kerasmed.evaluate.tabulate import comparisons_csv, metrics_csv, metrics_latex

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
