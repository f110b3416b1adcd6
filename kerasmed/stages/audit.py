"""The stage that asks whether the synthetic set is faithful and private."""

from typing import Any

import numpy as np

from kerasmed.config import Config, Regime
from kerasmed.data.image_set import ImageSet
from kerasmed.data.symmetry import all_versions
from kerasmed.diffusion.reconstruction import TIMESTEPS, reconstruction_errors
from kerasmed.evaluate.copies import CopyFilter
from kerasmed.evaluate.enough import or_reason
from kerasmed.evaluate.fidelity import fidelity_by_class
from kerasmed.evaluate.membership import membership_inference
from kerasmed.evaluate.planting import detection_power
from kerasmed.evaluate.privacy import comparison_pixels, memorisation
from kerasmed.files import read_json, write_json
from kerasmed.progress import progress_bar, say
from kerasmed.runs import RunFolder
from kerasmed.stages.inputs import cells_of, load_split, load_synthetic, open_classifier
from kerasmed.stages.sampling import open_denoiser

# Whose features the audit takes, in order of preference.
_EXTRACTORS: tuple[Regime, ...] = ("real", "real_all", "both", "synthetic")
# Training images whose membership is guessed, and as many others, at most.
_MEMBERS = 500
_PAIRS = 8


def audit_synthetic(config: Config, run: RunFolder) -> dict[str, Any]:
    """Fidelity and privacy of the synthetic set against the roles `diffusion` and `train`.

    Features are those of the first backbone's network trained on real images, where there is one.
    """
    image_set, split = load_split(config, run)
    seen, held_out = image_set.subset(split["diffusion"]), image_set.subset(split["train"])
    generated = load_synthetic(config, run)
    extractor = min(cells_of(config), key=lambda cell: _EXTRACTORS.index(cell.trained_on))
    engine = open_classifier(extractor, run)
    sets = {"held_out": held_out, "seen": seen, "generated": generated}
    features = {name: engine.features(each.images) for name, each in sets.items()}
    small = {name: comparison_pixels(each.images) for name, each in sets.items()}
    labels = {name: each.labels for name, each in sets.items()}
    # The kernel distance is not blind to a shift of all features, and pixels have a large mean.
    centred = {name: each - small["held_out"].mean(axis=0) for name, each in small.items()}
    faithful: dict[str, Any] = {
        "features_of": extractor.name,
        "in_features": fidelity_by_class(features, labels, seen.class_names, config.seed),
        "in_pixels": fidelity_by_class(centred, labels, seen.class_names, config.seed),
    }
    write_json(run.evaluation / "fidelity.json", faithful)

    def versions(images: np.ndarray) -> np.ndarray:
        return comparison_pixels(all_versions(images, config.data.symmetry))

    private: dict[str, Any] = {
        "features_of": extractor.name,
        "files": {
            "generated": [str(file.path.relative_to(run.synthetic)) for file in generated.files],
            "seen": [str(file.path) for file in seen.files],
        },
        "copies": or_reason(lambda: _copies(config, run, seen, held_out, generated)),
        "membership": or_reason(lambda: _membership(config, run, seen, held_out)),
        "in_pixels": or_reason(
            lambda: memorisation(
                small["seen"],
                versions(held_out.images),
                versions(generated.images),
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
    write_json(run.evaluation / "privacy.json", private)
    return {
        "fidelity": faithful["in_features"].get(
            "generated_to_held_out", faithful["in_features"].get("not_computed")
        ),
        "copies": private["copies"].get("not_computed", len(private["copies"].get("found", []))),
    }


def _copies(
    config: Config, run: RunFolder, seen: ImageSet, held_out: ImageSet, generated: ImageSet
) -> dict[str, Any]:
    """Generated images that are copies of training images, and what the search would find.

    Returns:
        ``threshold``; ``found``, one entry a copy with the positions of both images and their
        similarity; ``share_of_training``, copied; ``rejected`` and ``drawn`` when the set was
        drawn; ``held_out_above``, the share of held-out real images above the threshold; quantiles
        of the ``similarity`` of both; ``nearest_pairs``; ``power``, see ``detection_power``.
    """
    say("Looking for copies.")
    copies = CopyFilter(seen.images, held_out.images, config.seed)
    with progress_bar("Searching", len(generated), "images") as advance:
        similarities, positions = copies.search.nearest(
            np.asarray(generated.images), lambda count: advance(count, "")
        )
    order = np.argsort(-similarities, kind="stable")
    pairs = [
        {
            "generated": int(i),
            "seen": int(positions[i]),
            "similarity": float(similarities[i]),
        }
        for i in order
    ]
    found = [pair for pair in pairs if pair["similarity"] > copies.threshold]
    rejected = read_json(run.synthetic / "manifest.json", "kerasmed sample CONFIG")["rejected"]
    return {
        "threshold": copies.threshold,
        "found": found,
        "share_of_training": len({pair["seen"] for pair in found}) / len(seen),
        "rejected": len(rejected),
        "drawn": len(generated) + len(rejected),
        "held_out": len(copies.natural),
        "held_out_above": float((copies.natural > copies.threshold).mean()),
        "similarity": {
            name: np.percentile(values, [5, 50, 95, 100]).tolist()
            for name, values in (("generated", similarities), ("held_out", copies.natural))
        },
        "nearest_pairs": pairs[:_PAIRS],
        "power": detection_power(
            copies.search,
            np.asarray(seen.images),
            copies.threshold,
            len(generated),
            config.seed,
        ),
    }


def _membership(
    config: Config, run: RunFolder, seen: ImageSet, held_out: ImageSet
) -> dict[str, Any]:
    denoiser, pixels = open_denoiser(config, run)
    count = min(len(seen), len(held_out), _MEMBERS)
    rng = np.random.default_rng(config.seed)
    losses = []
    with progress_bar("Guessing members", 2 * count, "images") as advance:
        for images in (seen, held_out):
            chosen = np.sort(rng.choice(len(images), count, replace=False))
            losses.append(
                reconstruction_errors(
                    denoiser,
                    pixels,
                    images.images[chosen],
                    images.labels[chosen],
                    config.seed,
                    advance=lambda done: advance(done, ""),
                )
            )
    return membership_inference(losses[0], losses[1], TIMESTEPS, seed=config.seed)
