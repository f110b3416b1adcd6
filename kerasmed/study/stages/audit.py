"""The stage that measures whether the synthetic set is faithful and private."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.appearance import appearance_of_sets
from kerasmed.audit.copy_search import CopyFilterRecord
from kerasmed.audit.extractors import named_extractors, open_extractors
from kerasmed.audit.fidelity import Distances
from kerasmed.audit.privacy import (
    WITHOUT_GENERATOR,
    NotAsked,
    measure_privacy,
    membership_of_training_images,
)
from kerasmed.audit.spaces import FidelityInSpaces, features_of_sets, fidelity_in_spaces
from kerasmed.audit.tables import fidelity_csv, privacy_csv, spaces_of
from kerasmed.audit.verdicts import verdicts
from kerasmed.classify.config import Regime
from kerasmed.data.image_set import ImageSet
from kerasmed.diffusion.denoisers import open_denoiser
from kerasmed.files import read_json, write_json, write_text
from kerasmed.metrics.membership import Membership
from kerasmed.metrics.memorisation import comparison_pixels
from kerasmed.result_types import Whole
from kerasmed.study.best_classifiers import chosen_spec
from kerasmed.study.cascade import at_size
from kerasmed.study.classifier_specs import classifier_specs, open_classifier
from kerasmed.study.config import Config
from kerasmed.study.inputs import denoiser_path, load_grouped_split, read_synthetic
from kerasmed.study.kept_draws import A_COPY
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.synthetic_set import MANIFEST

# The audit uses the features of the first CNN in this order.
_EXTRACTORS: tuple[Regime, ...] = (
    "real", "real_twice", "real_best", "real_all", "pretrained", "both", "synthetic",
)  # fmt: skip


class FidelityFile(FidelityInSpaces):
    """Fidelity of the synthetic sets (``evaluation/fidelity.json``)."""

    features_of: str
    """The CNN whose features are compared in ``in_features`` and ``of_variants``."""


class AuditResult(TypedDict):
    """What ``run.json`` records of the audit."""

    fidelity: Distances | str
    """Of the synthetic set in the features that decide, or why it could not be computed."""
    copies: Whole | str
    """Number of copies in the set, or why they could not be looked for."""


def audit_synthetic(config: Config, run: RunFolder) -> AuditResult:
    """Fidelity and privacy of the synthetic set against the roles `train` and `reserve`.

    Features are those of the first backbone's CNN trained on real images, if there is one. The
    verdicts also use the results of the stage `evaluate`.
    """
    image_set, split, all_groups = load_grouped_split(config, run)
    sets = {
        "reserve": image_set.subset(split["reserve"]),
        "train": image_set.subset(split["train"]),
        "synthetic": read_synthetic(config, run),
    }
    groups = {"train": all_groups[split["train"]], "reserve": all_groups[split["reserve"]]}
    specs = classifier_specs(config)
    spec = min(specs, key=lambda spec: _EXTRACTORS.index(chosen_spec(spec, run).trained_on))
    classifier = open_classifier(spec, run)
    pixels = {name: comparison_pixels(of_set.images) for name, of_set in sets.items()}
    features = features_of_sets(classifier, sets)
    networks = open_extractors(
        named_extractors(config.audit, config.classifiers),
        np.asarray(sets["reserve"].images),
        run.cache / "extractors",
    )
    variants = _variants(config, run)
    fidelity: FidelityFile = {
        "features_of": spec.name,
        **fidelity_in_spaces(
            sets, classifier, features, pixels, groups, networks, variants, config.seed
        ),
    }
    write_json(run.evaluation / "fidelity.json", fidelity)
    write_text(run.evaluation / "fidelity.csv", fidelity_csv(spaces_of(fidelity)))
    appearances = appearance_of_sets(sets, groups, config.seed)
    write_json(run.evaluation / "appearance.json", appearances)
    train, reserve, synthetic = (sets[name] for name in ("train", "reserve", "synthetic"))
    privacy = measure_privacy(
        sets | {name: image_set.subset(split[name]) for name in ("validation", "test")},
        {role: all_groups[split[role]] for role in ("reserve", "test")},
        {
            "synthetic": [str(file.path.relative_to(run.synthetic)) for file in synthetic.files],
            "train": [str(file.path) for file in train.files],
        },
        (spec.name, features),
        _copy_filter(run),
        lambda: _membership(config, run, train, reserve, groups),
        config.data.symmetry,
        config.seed,
    )
    if config.is_cascade:
        privacy["base_size"] = config.base_size
    if config.sampling.start == "real":
        privacy["variations"] = "each image is a variation of a training image"
    write_json(run.evaluation / "privacy.json", privacy)
    write_text(run.evaluation / "privacy.csv", privacy_csv(privacy))
    usefulness = read_json(run.evaluation / "usefulness.json", "kerasmed evaluate CONFIG")
    sampling = config.sampling
    assumed = sampling.source is not None and sampling.source_learned_from == "unknown"
    answers = verdicts(usefulness, fidelity, privacy, assumed)
    write_json(run.evaluation / "verdicts.json", [asdict(verdict) for verdict in answers])
    decisive = next(iter(spaces_of(fidelity).values()))
    copies: Mapping[str, Any] = privacy["copies"]
    return {
        "fidelity": decisive.get("synthetic_to_reserve") or decisive["not_computed"],
        "copies": copies.get("not_computed", len(copies.get("found", []))),
    }


def _membership(
    config: Config,
    run: RunFolder,
    train: ImageSet,
    reserve: ImageSet,
    groups: dict[str, np.ndarray],
) -> Membership | NotAsked:
    if config.sampling.source is not None:
        return WITHOUT_GENERATOR
    denoiser, pixels = open_denoiser(denoiser_path(config, run))
    # In a study with an upscaler, the denoiser knows small images only.
    train, reserve = (at_size(images, config.base_size) for images in (train, reserve))
    return membership_of_training_images(denoiser, pixels, train, reserve, groups, config.seed)


def _variants(config: Config, run: RunFolder) -> Iterator[tuple[str, ImageSet]]:
    for variant in config.sampling.variants:
        yield variant, read_synthetic(config, run, variant)


def _copy_filter(run: RunFolder) -> CopyFilterRecord | None:
    """What the filter of the sampling did, if there was one."""
    manifest = read_json(run.synthetic / MANIFEST, "kerasmed sample CONFIG")
    if manifest["calibration"] is None:
        return None
    rejected = sum(note["reason"] == A_COPY for note in manifest["rejected"])
    return {
        "calibration": manifest["calibration"],
        "drawn": manifest["drawn"],
        "rejected": rejected,
    }
