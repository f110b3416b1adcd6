"""The stage that writes the CNNs as ONNX."""

from collections.abc import Callable
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from typing_extensions import TypedDict

from kerasmed import __version__
from kerasmed.classify.config import Regime
from kerasmed.data.image_set import ImageSet
from kerasmed.data.splits import Split
from kerasmed.errors import ModelFileError
from kerasmed.export.sidecar import FileMetadata, Int8Check, Parity
from kerasmed.files import read_json, sha256_of, write_json
from kerasmed.fingerprint import Fingerprint, FingerprintRecord
from kerasmed.progress import say
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import Sha256, Whole
from kerasmed.runtime.backend import load_keras
from kerasmed.settings import Count
from kerasmed.study.best_classifiers import chosen_spec
from kerasmed.study.classifier_specs import (
    ClassifierSpec,
    classifier_specs,
    exported_path,
    trained_path,
    training_record,
)
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_grouped_split
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages.classifiers import phases_of_spec

# Keys of a sidecar that the stage records.
_RECORDED = ("parity", "float_layers", "int8_check", "transposes", "not_exported")


class Chosen(TypedDict):
    """The CNN that one of the regime ``best`` is a copy of."""

    regime: Regime
    """What it was trained on."""
    variant: str | None
    """Name of the synthetic set; null for the main one, and for real images."""


class Sidecar(FileMetadata):
    """What an exported CNN is (``exported/*.json``)."""

    data_class_names: list[str] | None
    """The setting ``data.class_names``."""
    trained_on: Regime
    """What it was trained on."""
    variant: str | None
    """Name of the synthetic set it was trained on; null for the main one, and for real images."""
    chosen: NotRequired[Chosen]
    """Of `best`: what it is a copy of."""
    seed: Whole
    """Seed of its training."""
    n_train: Count
    """Number of training images."""
    data_hash: Sha256
    """Hash of all real images and classes of the study."""


class ExportedFile(TypedDict, total=False):
    """What the export of a CNN in one precision came to."""

    parity: Parity
    """Greatest differences from the network it was made from."""
    float_layers: list[str]
    """int8: convolutions that stay in float32."""
    int8_check: Int8Check
    """int8: accuracy before and after."""
    transposes: Whole
    """Transposes that onnxruntime cannot remove."""
    not_exported: str
    """Instead of all others: why there is no file of this precision."""


class ExportRecord(TypedDict):
    """How a CNN was exported (``export.json`` next to its ``model.keras``)."""

    fingerprint: FingerprintRecord
    """What it was exported from."""
    files: list[str]
    """Names of the files in ``exported/``, without their ending."""
    result: dict[str, ExportedFile]
    """What each came to, by the same names."""


def export_classifiers(config: Config, run: RunFolder) -> dict[str, ExportedFile]:
    """Write every trained CNN as ONNX, in each precision; returns what was exported."""
    export_shard(config, run)
    results: dict[str, ExportedFile] = {}
    for spec in classifier_specs(config):
        results |= read_json(_export_record_path(spec, run), "kerasmed export CONFIG")["result"]
    return results


def export_shard(config: Config, run: RunFolder, index: int = 1, shards: int = 1) -> int:
    """Export every ``shards``-th CNN from the ``index``-th on that is not exported yet.

    Returns:
        How many CNNs of the study are still to be exported.
    """
    image_set, split, groups = load_grouped_split(config, run)
    missing = 0
    for number, spec in enumerate(classifier_specs(config)):
        trained = training_record(spec, run)
        made_from = Fingerprint(
            {
                "export": config.export.model_dump(mode="json"),
                "seed": config.seed,
                "kerasmed": __version__,
            },
            {
                "real images": image_set.data_hash,
                "split.json": sha256_of(run.split_path),  # int8 is checked on a role
                "training.json": sha256_of(trained),
                "model.keras": sha256_of(trained_path(spec, run)),
            },
        )
        path = _export_record_path(spec, run)
        record = read_json(path, "kerasmed export CONFIG") if path.exists() else {}
        files = [run.exported / f"{name}.onnx" for name in record.get("files", ())]
        if made_from.matches(record.get("fingerprint")) and all(map(_is_complete, files)):
            continue
        if number % shards != index - 1:
            missing += 1
            continue
        path.unlink(missing_ok=True)
        result = read_json(trained, "kerasmed train classifier CONFIG")["result"]
        sidecars = _export_classifier(spec, config, run, image_set, split, groups, result)
        result = {
            name: {key: sidecar[key] for key in _RECORDED if key in sidecar}
            for name, sidecar in sidecars.items()
        }
        exported = [name for name, entry in result.items() if "not_exported" not in entry]
        record = {"fingerprint": made_from.as_record(), "files": exported, "result": result}
        write_json(path, record)
    return missing


def _export_classifier(
    spec: ClassifierSpec,
    config: Config,
    run: RunFolder,
    image_set: ImageSet,
    split: Split,
    groups: np.ndarray,
    trained: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Write one CNN in each precision; returns the content of each sidecar by its file's stem."""
    load_keras()
    import keras

    from kerasmed.export.classifiers import export_float16, export_int8, spread
    from kerasmed.export.precision import GateImages
    from kerasmed.saved_models import load_model

    validation = image_set.subset(split["validation"])
    images = spread(validation.images)
    metadata = {
        "data_class_names": config.data.class_names,
        "trained_on": spec.trained_on,
        "variant": spec.variant,
        "seed": spec.seed,
        "n_train": trained["n_train"],
        "data_hash": image_set.data_hash,
    }
    if spec.trained_on == "best":
        original = chosen_spec(spec, run)
        metadata["chosen"] = {"regime": original.trained_on, "variant": original.variant}
    path = exported_path(spec, run)
    model = load_model(trained_path(spec, run), compile=False)
    sidecars = {path.stem: model.export(path, images, **metadata)}
    keras.backend.clear_session()
    # Files of an earlier training must not survive.
    for precision in ("fp16", "int8"):
        for suffix in (".onnx", ".json"):
            exported_path(spec, run, precision).with_suffix(suffix).unlink(missing_ok=True)
    if "fp16" in config.export.precisions:
        half = exported_path(spec, run, "fp16")
        sidecars[half.stem] = _exported_or_reason(export_float16, path, images, half)
    if "int8" in config.export.precisions:
        phases = phases_of_spec(spec, config, run, image_set, split)
        train = reduce(add, (images for phase in phases for images in phase.sets()))
        count = min(config.export.calibration_images, len(train))
        rng = random_stream(config.seed, Purpose.QUANTIZATION_IMAGES)
        calibration = train.images[np.sort(rng.choice(len(train), count, replace=False))]
        small = exported_path(spec, run, "int8")
        # real_all learned from reserve.
        role = "validation" if spec.trained_on == "real_all" else "reserve"
        chosen = image_set.subset(split[role])
        gate = GateImages(np.asarray(chosen.images), chosen.labels, groups[split[role]], role)
        sidecars[small.stem] = _exported_or_reason(export_int8, path, calibration, gate, small)
    return sidecars


def _is_complete(path: Path) -> bool:
    """Whether an exported file exists with the sidecar that was written with it."""
    sidecar_path = path.with_suffix(".json")
    if not (path.exists() and sidecar_path.exists()):
        return False
    sidecar = read_json(sidecar_path, "kerasmed export CONFIG")
    return isinstance(sidecar, dict) and sidecar.get("sha256") == sha256_of(path)


def _export_record_path(spec: ClassifierSpec, run: RunFolder) -> Path:
    return run.classifiers / spec.name / "export.json"


def _exported_or_reason(export: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The sidecar of an export, or why the network has no file of that precision."""
    try:
        return export(*arguments)
    except ModelFileError as error:
        say(str(error))
        return {"not_exported": str(error)}
