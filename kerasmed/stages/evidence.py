"""The stages that judge: explain, audit, report."""

from collections.abc import Callable
from typing import Any

import numpy as np

from kerasmed.config import Config, Regime
from kerasmed.data.image_set import ImageSet
from kerasmed.data.symmetry import all_versions
from kerasmed.errors import InputError
from kerasmed.files import folder_written_aside, write_json
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
    """Explain the same few test images by every CNN of the first seed."""
    from kerasmed.explain.overlay import write_explanation
    from kerasmed.explain.surrogate import explain_image

    settings = config.explain
    image_set, split = load_split(config, run)
    chosen = _choose_per_class(image_set, split["test"], settings.images_per_class, config.seed)
    engines = [(cell, e) for cell, e in open_classifiers(config, run) if cell.seed == config.seed]
    with (
        folder_written_aside(run.explanations) as folder,
        progress_bar("Explaining", len(chosen) * len(engines), "images") as advance,
    ):
        for cell, engine in engines:
            for position in chosen:
                explanation = explain_image(
                    np.asarray(image_set.images[position]),
                    engine.predict,
                    settings.num_samples,
                    settings.segmentation,
                    settings.superpixels,
                    config.seed,
                )
                file = image_set.files[position]
                path = folder / cell.name / f"{file.class_name}-{position}.png"
                details = {
                    "image": file.path.name,
                    "true_class": file.class_name,
                    "seed": config.seed,
                    "num_samples": settings.num_samples,
                }
                write_explanation(explanation, engine.class_names, details, settings.top, path)
                advance(1, "")
    return {"images": len(chosen), "models": [cell.name for cell, _ in engines]}


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
    from kerasmed.evaluate.fidelity import fidelity
    from kerasmed.evaluate.privacy import comparison_pixels, memorisation

    image_set, split = load_split(config, run)
    seen, held_out = image_set.subset(split["diffusion"]), image_set.subset(split["train"])
    generated = load_synthetic(config, run)
    cells = cells_of(config)
    extractor = min(cells, key=lambda cell: _EXTRACTORS.index(cell.trained_on))
    engine = open_classifier(extractor, run)
    features = {
        name: engine.features(each.images)
        for name, each in (("seen", seen), ("held_out", held_out), ("generated", generated))
    }
    symmetry = config.data.symmetry

    def pixels(images: np.ndarray) -> np.ndarray:
        return comparison_pixels(all_versions(images, symmetry))

    def or_reason(compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return compute()
        except InputError as error:
            return {"not_computed": str(error)}

    found: dict[str, Any] = {
        "features_of": extractor.name,
        **or_reason(
            lambda: fidelity(
                features["held_out"], features["seen"], features["generated"], seed=config.seed
            )
        ),
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
                comparison_pixels(seen.images),
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
        "fidelity": found.get("generated_to_held_out", found.get("not_computed")),
        "copies_in_pixels": len(privacy["in_pixels"].get("copies", [])),
    }


def write_report(config: Config, run: RunFolder) -> dict[str, Any]:
    """Draw the figures and the page from what the other stages wrote."""
    from kerasmed.report import render_report

    image_set, split = load_split(config, run)
    render_report(run, image_set, split, load_synthetic(config, run))
    return {"page": run.report.name}
