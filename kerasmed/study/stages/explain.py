"""The stage that explains the CNNs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import TypedDict

from kerasmed.data.entries import folder_name
from kerasmed.data.image_set import ImageSet
from kerasmed.data.readers import read_image
from kerasmed.files import write_json
from kerasmed.progress import progress_bar
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.settings import Count
from kerasmed.study.classifier_specs import (
    ClassifierSpec,
    classifier_specs,
    open_classifier,
    trained_path,
)
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_split
from kerasmed.study.run_folder import RunFolder

if TYPE_CHECKING:
    from kerasmed.explain.network import NetworkExplainer


class ExplainResult(TypedDict):
    """What ``run.json`` records of the explanations."""

    images: Count
    """Number of explained images."""
    models: list[str]
    """Names of the explained CNNs."""


def explain_classifiers(config: Config, run: RunFolder) -> ExplainResult:
    """Explain the same test images by every CNN of the first seed and main set, and summarise."""
    from kerasmed.explain.summary import summarise

    images, specs = _explained_images(config, run), _explained_classifiers(config)
    names = config.explain.explainers
    records: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in names}
    with progress_bar("Explaining", len(images) * len(specs), "images") as advance:
        for spec in specs:
            with _open_explainer(spec, config, run) as network:
                for image in images:
                    by_explainer = network.explain_into(run.explanations / spec.name, *image)
                    for name, record in by_explainer.items():
                        records[name].setdefault(spec.name, []).append(record)
                    advance(1, "")
    _remove_others(run.explanations, records)
    write_json(
        run.explanations / "summary.json",
        {name: summarise(by_network) for name, by_network in records.items()},
    )
    return {"images": len(images), "models": [spec.name for spec in specs]}


def explain_shard(config: Config, run: RunFolder, index: int = 1, shards: int = 1) -> int:
    """Explain every ``shards``-th image from the ``index``-th on, by every CNN.

    Returns:
        How many explanations of the study are still missing.
    """
    missing = 0
    images = _explained_images(config, run)
    for spec in _explained_classifiers(config):
        with _open_explainer(spec, config, run) as network:
            for number, image in enumerate(images):
                if number % shards == index - 1:
                    network.explain_into(run.explanations / spec.name, *image)
                else:
                    missing += not network.is_explained(run.explanations / spec.name, *image)
    return missing


def _explained_classifiers(config: Config) -> list[ClassifierSpec]:
    return [
        spec
        for spec in classifier_specs(config)
        if spec.seed == config.seed and spec.variant is None
    ]


def _open_explainer(spec: ClassifierSpec, config: Config, run: RunFolder) -> "NetworkExplainer":
    from kerasmed.explain.network import NetworkExplainer

    trained = trained_path(spec, run)
    return NetworkExplainer(open_classifier(spec, run), trained, config.explain, config.seed)


def _explained_images(config: Config, run: RunFolder) -> list[tuple[Any, ...]]:
    """Arguments of ``explain_into`` for each image: stem, pixels, superpixels, notes, region."""
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
    """Region that decides the class of a phantom: bool (size, size); None for a real image."""
    if config.data.phantoms is None:
        return None
    mask = run.images / "masks" / path.relative_to(run.images / "phantoms")
    return read_image(mask, config.data.image_size)[..., 0] > 127


def _remove_others(folder: Path, records: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """Remove pictures and records of an earlier run with other settings."""
    kept = {
        folder / name / record["picture"]
        for by_network in records.values()
        for name, of_network in by_network.items()
        for record in of_network
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
