"""The stages that show: explain, report."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasmed.config import Config
from kerasmed.data.image_set import ImageSet
from kerasmed.data.readers import read_image
from kerasmed.evaluate.verdicts import Verdict, verdicts
from kerasmed.files import read_json, write_json
from kerasmed.progress import progress_bar
from kerasmed.runs import RunFolder
from kerasmed.stages.inputs import (
    Cell,
    load_split,
    load_synthetic,
    open_classifiers,
)

if TYPE_CHECKING:
    from kerasmed.explain.network import NetworkExplainer


def explain_classifiers(config: Config, run: RunFolder) -> dict[str, Any]:
    """Explain the same few test images by every CNN of the first seed and main sets, and sum up."""
    from kerasmed.explain.summary import summarise

    tasks = _explanation_tasks(config, run)
    names = config.explain.explainers
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in names}
    with progress_bar("Explaining", sum(len(each) for _, _, each in tasks), "images") as advance:
        for cell, network, images in tasks:
            with network:
                for arguments in images:
                    for name, record in network.explain_into(*arguments).items():
                        found[name].setdefault(cell.name, []).append(record)
                    advance(1, "")
    _remove_others(run.explanations, found)
    write_json(
        run.explanations / "summary.json",
        {name: summarise(records) for name, records in found.items()},
    )
    return {"images": len(tasks[0][2]), "models": [cell.name for cell, _, _ in tasks]}


def explain_shard(config: Config, run: RunFolder, index: int = 1, shards: int = 1) -> int:
    """Explain every ``shards``-th image from the ``index``-th on, by every CNN.

    Returns:
        How many explanations of the study are still missing.
    """
    missing = 0
    for _, network, images in _explanation_tasks(config, run):
        with network:
            for number, arguments in enumerate(images):
                if number % shards == index - 1:
                    network.explain_into(*arguments)
                else:
                    missing += not network.is_explained(*arguments)
    return missing


def _explanation_tasks(
    config: Config, run: RunFolder
) -> list[tuple[Cell, "NetworkExplainer", list[tuple[Any, ...]]]]:
    """Each CNN that is explained, and for each image what ``explain_into`` wants to know."""
    from kerasmed.explain.network import NetworkExplainer
    from kerasmed.explain.segments import segment_image

    settings = config.explain
    image_set, split = load_split(config, run)
    chosen = _choose_per_class(image_set, split["test"], settings.images_per_class, config.seed)
    images = []
    for position in chosen:
        file, image = image_set.files[position], np.asarray(image_set.images[position])
        images.append(
            (
                f"{file.class_name}-{position}",
                image,
                segment_image(image, settings.segmentation, settings.superpixels),
                {
                    "image": file.path.name,
                    "position": position,
                    "true_class": file.class_name,
                },
                _region(config, run, file.path),
            )
        )
    return [
        (
            cell,
            NetworkExplainer(
                engine, run.classifiers / cell.name / "model.keras", settings, config.seed
            ),
            [(run.explanations / cell.name, *each) for each in images],
        )
        for cell, engine in open_classifiers(config, run)
        if cell.seed == config.seed and cell.variant is None
    ]


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
