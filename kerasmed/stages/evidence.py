"""The stages that show: explain, report."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed.config import Config
from kerasmed.data.image_set import ImageSet
from kerasmed.data.readers import read_image
from kerasmed.evaluate.verdicts import Verdict, verdicts
from kerasmed.files import read_json, write_json
from kerasmed.progress import progress_bar
from kerasmed.runs import RunFolder
from kerasmed.stages.inputs import (
    load_split,
    load_synthetic,
    open_classifiers,
)


def explain_classifiers(config: Config, run: RunFolder) -> dict[str, Any]:
    """Explain the same few test images by every CNN of the first seed and main sets, and sum up."""
    from kerasmed.explain.network import NetworkExplainer
    from kerasmed.explain.segments import segment_image
    from kerasmed.explain.summary import summarise

    settings = config.explain
    image_set, split = load_split(config, run)
    chosen = _choose_per_class(image_set, split["test"], settings.images_per_class, config.seed)
    images = {position: np.asarray(image_set.images[position]) for position in chosen}
    segments = {
        position: segment_image(image, settings.segmentation, settings.superpixels)
        for position, image in images.items()
    }
    engines = [
        (cell, engine)
        for cell, engine in open_classifiers(config, run)
        if cell.seed == config.seed and cell.variant is None
    ]
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in settings.explainers}
    with progress_bar("Explaining", len(chosen) * len(engines), "images") as advance:
        for cell, engine in engines:
            trained = run.classifiers / cell.name / "model.keras"
            with NetworkExplainer(engine, trained, settings, config.seed) as network:
                for position in chosen:
                    file = image_set.files[position]
                    records = network.explain_into(
                        run.explanations / cell.name,
                        f"{file.class_name}-{position}",
                        images[position],
                        segments[position],
                        {
                            "image": file.path.name,
                            "position": position,
                            "true_class": file.class_name,
                        },
                        _region(config, run, file.path),
                    )
                    for name, record in records.items():
                        found[name].setdefault(cell.name, []).append(record)
                    advance(1, "")
    _remove_others(run.explanations, found)
    write_json(
        run.explanations / "summary.json",
        {name: summarise(records) for name, records in found.items()},
    )
    return {"images": len(chosen), "models": [cell.name for cell, _ in engines]}


def _region(config: Config, run: RunFolder, path: Path) -> np.ndarray | None:
    """What decides the class of a phantom: bool (size, size)."""
    if config.data.phantoms is None:
        return None
    mask = run.images / "masks" / path.relative_to(run.images / "phantoms")
    return read_image(mask, config.data.image_size)[..., 0] > 127


def _remove_others(folder: Path, found: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """Pictures and records of an earlier run with other settings."""
    kept = {
        folder / cell / record["picture"]
        for by_cell in found.values()
        for cell, records in by_cell.items()
        for record in records
    }
    for path in folder.glob("*/*"):
        if path.with_suffix(".png") not in kept:
            path.unlink()


def _choose_per_class(
    image_set: ImageSet, positions: np.ndarray, per_class: int, seed: int
) -> list[int]:
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in range(len(image_set.class_names)):
        candidates = positions[image_set.labels[positions] == label]
        count = min(per_class, len(candidates))
        chosen += sorted(rng.choice(candidates, count, replace=False).tolist())
    return chosen


def read_verdicts(run: RunFolder) -> list[Verdict]:
    """The three answers, from what the stages evaluate and audit found."""
    return verdicts(
        read_json(run.evaluation / "over_seeds.json", "kerasmed evaluate CONFIG"),
        read_json(run.evaluation / "comparisons.json", "kerasmed evaluate CONFIG"),
        read_json(run.evaluation / "fidelity.json", "kerasmed audit CONFIG"),
        read_json(run.evaluation / "privacy.json", "kerasmed audit CONFIG"),
    )


def write_report(config: Config, run: RunFolder) -> dict[str, Any]:
    """Draw the figures and the page from what the other stages wrote."""
    from kerasmed.report import render_report

    image_set, split = load_split(config, run)
    write_json(run.evaluation / "verdicts.json", [asdict(each) for each in read_verdicts(run)])
    render_report(run, image_set, split, load_synthetic(config, run))
    return {"page": run.report.name}
