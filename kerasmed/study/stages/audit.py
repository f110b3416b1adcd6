"""The stage that asks whether the synthetic set is faithful and private."""

from typing import Any

import numpy as np

from kerasmed.audit.appearance import appearance
from kerasmed.audit.extractors import open_extractors
from kerasmed.audit.fidelity import fidelity_by_class
from kerasmed.audit.tables import fidelity_csv, privacy_csv, spaces_of
from kerasmed.classify.config import Regime
from kerasmed.data.image_set import ImageSet
from kerasmed.data.symmetry import all_versions
from kerasmed.diffusion.denoisers import open_denoiser
from kerasmed.diffusion.reconstruction import TIMESTEPS, reconstruction_errors
from kerasmed.files import read_json, write_json, write_text
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.metrics.copies import CopySearch, calibrate
from kerasmed.metrics.detection_power import detection_power
from kerasmed.metrics.membership import membership_inference
from kerasmed.metrics.memorisation import comparison_pixels, memorisation
from kerasmed.metrics.sample_size import or_reason
from kerasmed.progress import progress_bar, say
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.study.config import Config
from kerasmed.study.inputs import (
    cells_of,
    denoiser_path,
    load_grouped_split,
    load_synthetic,
    open_classifier,
)
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.synthetic_set import MANIFEST

# Whose features the audit takes, in order of preference.
_EXTRACTORS: tuple[Regime, ...] = ("real", "real_all", "both", "synthetic")
# Training images whose membership is guessed, and as many others, at most.
_MEMBERS = 500
_PAIRS = 8
# Synthetic images that are compared, after alignment, with held-out ones too, at most.
_ALIGNED = 300
_AT_ONCE = 256


def audit_synthetic(config: Config, run: RunFolder) -> dict[str, Any]:
    """Fidelity and privacy of the synthetic set against the roles `train` and `reserve`.

    Features are those of the first backbone's network trained on real images, where there is one.
    """
    image_set, split, all_groups = load_grouped_split(config, run)
    seen, held_out = image_set.subset(split["train"]), image_set.subset(split["reserve"])
    groups = {"seen": all_groups[split["train"]], "held_out": all_groups[split["reserve"]]}
    generated = load_synthetic(config, run)
    extractor = min(cells_of(config), key=lambda cell: _EXTRACTORS.index(cell.trained_on))
    engine = open_classifier(extractor, run)
    sets = {"held_out": held_out, "seen": seen, "generated": generated}
    small = {name: comparison_pixels(each.images) for name, each in sets.items()}
    features = _features(engine, sets)
    faithful: dict[str, Any] = {
        "features_of": extractor.name,
        "in_features": _fidelity(features, sets, groups, config.seed),
        # The kernel distance is not blind to a shift of all, and pixels have a large mean.
        "in_pixels": _fidelity(
            {name: each - small["held_out"].mean(axis=0) for name, each in small.items()},
            sets,
            groups,
            config.seed,
        ),
        "in_networks": {
            name: _fidelity(_features(network, sets), sets, groups, config.seed)
            for name, network in open_extractors(
                config.audit, np.asarray(held_out.images), run.cache / "extractors"
            )
        },
        "of_variants": _fidelity_of_variants(config, run, engine, features, sets, groups),
    }
    write_json(run.evaluation / "fidelity.json", faithful)
    write_text(run.evaluation / "fidelity.csv", fidelity_csv(spaces_of(faithful)))
    write_json(
        run.evaluation / "appearance.json",
        {name: appearance(each.images, config.seed) for name, each in sets.items()},
    )

    def versions(images: np.ndarray) -> np.ndarray:
        """All flips and turns; full-sized, these would fill the memory for a large set."""
        parts = (images[at : at + _AT_ONCE] for at in range(0, len(images), _AT_ONCE))
        return np.concatenate(
            [comparison_pixels(all_versions(part, config.data.symmetry)) for part in parts]
        )

    private: dict[str, Any] = {
        "features_of": extractor.name,
        "files": {
            "generated": [str(file.path.relative_to(run.synthetic)) for file in generated.files],
            "seen": [str(file.path) for file in seen.files],
        },
        "copies": or_reason(lambda: _copies(config, run, seen, held_out, generated)),
        "membership": or_reason(lambda: _membership(config, run, seen, held_out, groups)),
        "in_pixels": or_reason(
            lambda: memorisation(
                small["seen"],
                versions(held_out.images),
                versions(generated.images),
                config.seed,
                groups["held_out"],
            )
        ),
        "in_features": or_reason(
            lambda: memorisation(
                features["seen"],
                features["held_out"][:, None],
                features["generated"][:, None],
                config.seed,
                groups["held_out"],
            )
        ),
    }
    write_json(run.evaluation / "privacy.json", private)
    write_text(run.evaluation / "privacy.csv", privacy_csv(private))
    return {
        "fidelity": faithful["in_features"].get(
            "generated_to_held_out", faithful["in_features"].get("not_computed")
        ),
        "copies": private["copies"].get("not_computed", len(private["copies"].get("found", []))),
    }


def _features(engine: OnnxClassifier, sets: dict[str, ImageSet]) -> dict[str, np.ndarray]:
    return {name: engine.features(each.images) for name, each in sets.items()}


def _fidelity(
    features: dict[str, np.ndarray],
    sets: dict[str, ImageSet],
    groups: dict[str, np.ndarray],
    seed: int,
) -> dict[str, Any]:
    labels = {name: each.labels for name, each in sets.items()}
    return fidelity_by_class(features, labels, sets["seen"].class_names, groups, seed)


def _fidelity_of_variants(
    config: Config,
    run: RunFolder,
    engine: OnnxClassifier,
    features: dict[str, np.ndarray],
    sets: dict[str, ImageSet],
    groups: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Fidelity of each further set of a sweep, in the features of the same CNN."""
    found = {}
    for variant in config.sampling.variants:
        generated = load_synthetic(config, run, variant)
        found[variant] = _fidelity(
            {**features, "generated": engine.features(generated.images)},
            {**sets, "generated": generated},
            groups,
            config.seed,
        )
    return found


def _copies(
    config: Config, run: RunFolder, seen: ImageSet, held_out: ImageSet, generated: ImageSet
) -> dict[str, Any]:
    """Generated images that are copies of training images, and what the search would find.

    Returns:
        ``calibration``, that of the sampling or, if it looked for no copies, by the images drawn,
        see ``calibrate``; ``threshold``, its own; ``found``, one entry a copy with the positions of
        both images and their similarity; ``share_of_training``, copied; ``rejected`` (None if it
        looked for none) and ``drawn`` when the set was drawn; ``similarity``, its 5th, 50th, 95th
        percentile and maximum; ``nearest_pairs``; ``closer_to_training``, the ``share`` of so many
        ``images`` that are more like a training image than any of as many held-out ones;
        ``power``, see ``detection_power``.
    """
    say("Looking for copies.")
    search = CopySearch(np.asarray(seen.images))
    images = np.asarray(generated.images)
    manifest = read_json(run.synthetic / MANIFEST, "kerasmed sample CONFIG")
    calibration = manifest["calibration"] or calibrate(search, held_out.images, images, config.seed)
    threshold = calibration["threshold"]
    with progress_bar("Searching", len(generated), "images") as advance:
        similarities, positions = search.nearest(images, lambda count: advance(count, ""))
    order = np.argsort(-similarities, kind="stable")
    pairs = [
        {
            "generated": int(i),
            "seen": int(positions[i]),
            "similarity": float(similarities[i]),
        }
        for i in order
    ]
    found = [pair for pair in pairs if pair["similarity"] > threshold]
    rejected = None if manifest["calibration"] is None else len(manifest["rejected"])
    return {
        "calibration": calibration,
        "threshold": threshold,
        "found": found,
        "share_of_training": len({pair["seen"] for pair in found}) / len(seen),
        "rejected": rejected,
        "drawn": len(generated) + (rejected or 0),
        "similarity": np.percentile(similarities, [5, 50, 95, 100]).tolist(),
        "nearest_pairs": pairs[:_PAIRS],
        "closer_to_training": _closer_after_alignment(seen, held_out, images, config.seed),
        "power": detection_power(
            search, np.asarray(seen.images), threshold, len(generated), config.seed
        ),
    }


def _closer_after_alignment(
    seen: ImageSet, held_out: ImageSet, generated: np.ndarray, seed: int
) -> dict[str, Any]:
    """Share of synthetic images more like a training image than like any of as many held-out ones.

    About one half without memorisation. 300 of them at most.
    """
    rng, count = random_stream(seed, Purpose.COPY_ALIGNMENT), min(len(seen), len(held_out))
    some = generated[np.sort(rng.choice(len(generated), min(len(generated), _ALIGNED), False))]
    to_seen, to_held_out = (
        CopySearch(each.images[np.sort(rng.choice(len(each), count, False))]).nearest(some)[0]
        for each in (seen, held_out)
    )
    return {"images": len(some), "share": float((to_seen > to_held_out).mean())}


def _membership(
    config: Config,
    run: RunFolder,
    seen: ImageSet,
    held_out: ImageSet,
    groups: dict[str, np.ndarray],
) -> dict[str, Any]:
    denoiser, pixels = open_denoiser(denoiser_path(config, run))
    count = min(len(seen), len(held_out), _MEMBERS)
    rng = random_stream(config.seed, Purpose.MEMBERSHIP_IMAGES)
    losses, of_image = [], []
    with progress_bar("Guessing members", 2 * count, "images") as advance:
        for name, images in (("seen", seen), ("held_out", held_out)):
            chosen = np.sort(rng.choice(len(images), count, replace=False))
            of_image.append(groups[name][chosen])
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
    members, others = losses
    member_groups, other_groups = of_image
    return membership_inference(
        members, others, TIMESTEPS, member_groups, other_groups, seed=config.seed
    )
