"""CNNs that are handed on with a set, each with its model card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasmed.files import read_json, sha256_of, write_json, write_text, written_aside
from kerasmed.study.classifier_specs import ClassifierSpec, exported_path
from kerasmed.study.release.templates import rendered
from kerasmed.study.run_folder import RunFolder


def write_models(
    specs: Sequence[ClassifierSpec], facts: dict[str, Any], run: RunFolder, folder: Path
) -> list[str]:
    """Copy exported CNNs into ``models/``, with a model card next to each and inside it.

    Args:
        specs: the CNNs.
        facts: see ``facts_of``.
        run: the study's run folder.
        folder: the release.

    Returns:
        Their names.
    """
    import onnx

    for spec in specs:
        path, target = exported_path(spec, run), folder / "models" / f"{spec.name}.onnx"
        sidecar = read_json(path.with_suffix(".json"), "kerasmed export")
        (metrics,) = [
            row
            for row in facts["metrics"]
            if row["precision"] == "fp32"
            and (row["backbone"], row["trained_on"], row["seed"], row["variant"])
            == (spec.backbone, spec.trained_on, spec.seed, spec.variant)
        ]
        card = rendered("modelcard.md.j2", facts | {"spec": spec, "of_model": metrics | sidecar})
        model = onnx.load(path)
        onnx.helper.set_model_props(
            model, {prop.key: prop.value for prop in model.metadata_props} | {"model_card": card}
        )
        with written_aside(target) as temporary:
            onnx.save(model, temporary)
        write_text(target.with_suffix(".md"), card)
        write_json(target.with_suffix(".json"), {**sidecar, "sha256": sha256_of(target)})
    return [spec.name for spec in specs]
