"""The stage that explains the CNNs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasmed.data.entries import folder_name
from kerasmed.data.image_set import ImageSet
from kerasmed.data.readers import read_image
from kerasmed.files import write_json
from kerasmed.progress import progress_bar
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.study.config import Config
from kerasmed.study.inputs import Cell, cells_of, load_split, open_classifier
from kerasmed.study.run_folder import RunFolder

if TYPE_CHECKING:
    from kerasmed.explain.network import NetworkExplainer


def explain_classifiers(config: Config, run: RunFolder) -> dict[str, Any]:
    """Explain the same few test images by every CNN of the first seed and main sets, and sum up."""
    from kerasmed.explain.summary import summarise

    images, cells = _explained_images(config, run), _explained_cells(config)
    names = config.explain.explainers
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in names}
    with progress_bar("Explaining", len(images) * len(cells), "images") as advance:
        for cell in cells:
            with _open_explainer(cell, config, run) as network:
                for image in images:
                    records = network.explain_into(run.explanations / cell.name, *image)
                    for name, record in records.items():
                        found[name].setdefault(cell.name, []).append(record)
                    advance(1, "")
    _remove_others(run.explanations, found)
    write_json(
        run.explanations / "summary.json",
        {name: summarise(records) for name, records in found.items()},
    )
    return {"images": len(images), "models": [cell.name for cell in cells]}


def explain_shard(config: Config, run: RunFolder, index: int = 1, shards: int = 1) -> int:
    """Explain every ``shards``-th image from the ``index``-th on, by every CNN.

    Returns:
        How many explanations of the study are still missing.
    """
    missing = 0
    images = _explained_images(config, run)
    for cell in _explained_cells(config):
        with _open_explainer(cell, config, run) as network:
            for number, image in enumerate(images):
                if number % shards == index - 1:
                    network.explain_into(run.explanations / cell.name, *image)
                else:
                    missing += not network.is_explained(run.explanations / cell.name, *image)
    return missing


def _explained_cells(config: Config) -> list[Cell]:
    return [each for each in cells_of(config) if each.seed == config.seed and each.variant is None]


def _open_explainer(cell: Cell, config: Config, run: RunFolder) -> "NetworkExplainer":
    from kerasmed.explain.network import NetworkExplainer

    trained = run.classifiers / cell.name / "model.keras"
    return NetworkExplainer(open_classifier(cell, run), trained, config.explain, config.seed)


def _explained_images(config: Config, run: RunFolder) -> list[tuple[Any, ...]]:
    """Of each image what ``explain_into`` wants: stem, pixels, superpixels, notes and region."""
    from kerasmed.explain.segments import segment_image

    settings = config.explain
    image_set, split = load_split(config, run)
    chosen = _choose_per_class(image_set, split["test"], settings.images_per_class, config.seed)
    images = []
    for position in chosen:
        file, image = image_set.files[position], np.asarray(image_set.images[position])
        notes = {
            "image": file.path.name,
            "position": position,
            "true_class": file.class_name,
        }
        segments = segment_image(image, settings.segmentation, settings.superpixels)
        stem = f"{folder_name(file.class_name)}-{position}"
        images.append((stem, image, segments, notes, _region(config, run, file.path)))
    return images


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
    rng = random_stream(seed, Purpose.EXPLAINED_IMAGES)
    chosen: list[int] = []
    for label in range(len(image_set.class_names)):
        candidates = positions[image_set.labels[positions] == label]
        count = min(per_class, len(candidates))
        chosen += sorted(rng.choice(candidates, count, replace=False).tolist())
    return chosen
