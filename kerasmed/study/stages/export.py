"""The stage that writes the CNNs as ONNX."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed import __version__
from kerasmed.data.image_set import ImageSet
from kerasmed.data.splits import Split
from kerasmed.errors import ModelFileError
from kerasmed.files import read_json, sha256_of, write_json
from kerasmed.progress import say
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.runtime.backend import load_keras
from kerasmed.study.config import Config
from kerasmed.study.inputs import (
    Cell,
    cells_of,
    exported_path,
    load_split,
)
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages.classifiers import training_images, training_record


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
        trained = training_record(cell, run)
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
    model = keras.saving.load_model(
        training_record(cell, run).with_name("model.keras"), compile=False
    )
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
        train = training_images(cell, config, run, image_set, split)
        count = min(config.export.calibration_images, len(train))
        rng = random_stream(config.seed, Purpose.QUANTIZATION_IMAGES)
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
