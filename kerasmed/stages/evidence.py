"""The stages that judge: explain, audit, report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed.config import Config, Regime
from kerasmed.data.image_set import ImageSet
from kerasmed.data.readers import read_image
from kerasmed.data.symmetry import all_versions
from kerasmed.errors import InputError
from kerasmed.files import write_json
from kerasmed.progress import progress_bar
from kerasmed.runs import RunFolder
from kerasmed.stages.inputs import (
    cells_of,
    load_split,
    load_synthetic,
    open_classifier,
    open_classifiers,
)

# Whose features the audit takes, in order of preference.
_EXTRACTORS: tuple[Regime, ...] = ("real", "real_all", "both", "synthetic")


def explain_classifiers(config: Config, run: RunFolder) -> dict[str, Any]:
    """Explain the same few test images by every CNN of the first seed, and sum up."""
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
    engines = [(cell, e) for cell, e in open_classifiers(config, run) if cell.seed == config.seed]
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


def audit_synthetic(config: Config, run: RunFolder) -> dict[str, Any]:
    """Fidelity and privacy of the synthetic set against the roles `diffusion` and `train`.

    Features are those of the first backbone's network trained on real images, where there is one.
    """
    from kerasmed.evaluate.fidelity import fidelity_by_class
    from kerasmed.evaluate.privacy import comparison_pixels, memorisation

    image_set, split = load_split(config, run)
    seen, held_out = image_set.subset(split["diffusion"]), image_set.subset(split["train"])
    generated = load_synthetic(config, run)
    cells = cells_of(config)
    extractor = min(cells, key=lambda cell: _EXTRACTORS.index(cell.trained_on))
    engine = open_classifier(extractor, run)
    symmetry = config.data.symmetry

    def pixels(images: np.ndarray) -> np.ndarray:
        return comparison_pixels(all_versions(images, symmetry))

    def or_reason(compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return compute()
        except InputError as error:
            return {"not_computed": str(error)}

    sets = {"held_out": held_out, "seen": seen, "generated": generated}
    labels = {name: each.labels for name, each in sets.items()}
    features = {name: engine.features(each.images) for name, each in sets.items()}
    small = {name: comparison_pixels(each.images) for name, each in sets.items()}
    # The kernel distance is not blind to a shift of all features, and pixels have a large mean.
    centred = {name: each - small["held_out"].mean(axis=0) for name, each in small.items()}
    found: dict[str, Any] = {
        "features_of": extractor.name,
        "in_features": fidelity_by_class(features, labels, seen.class_names, config.seed),
        "in_pixels": fidelity_by_class(centred, labels, seen.class_names, config.seed),
    }
    write_json(run.evaluation / "fidelity.json", found)
    privacy: dict[str, Any] = {
        "features_of": extractor.name,
        "files": {
            "generated": [str(file.path.relative_to(run.synthetic)) for file in generated.files],
            "seen": [str(file.path) for file in seen.files],
        },
        "in_pixels": or_reason(
            lambda: memorisation(
                small["seen"],
                pixels(held_out.images),
                pixels(generated.images),
                config.seed,
            )
        ),
        "in_features": or_reason(
            lambda: memorisation(
                features["seen"],
                features["held_out"][:, None],
                features["generated"][:, None],
                config.seed,
            )
        ),
    }
    write_json(run.evaluation / "privacy.json", privacy)
    return {
        "fidelity": found["in_features"].get(
            "generated_to_held_out", found["in_features"].get("not_computed")
        ),
        "copies_in_pixels": len(privacy["in_pixels"].get("copies", [])),
    }


def write_report(config: Config, run: RunFolder) -> dict[str, Any]:
    """Draw the figures and the page from what the other stages wrote."""
    from kerasmed.report import render_report

    image_set, split = load_split(config, run)
    render_report(run, image_set, split, load_synthetic(config, run))
    return {"page": run.report.name}
