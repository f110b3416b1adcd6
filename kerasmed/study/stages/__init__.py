"""The stages of a study: each reads files that earlier stages wrote, and writes its own."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kerasmed.classify.config import ClassifierConfig
from kerasmed.study.classifier_specs import classifier_specs, exported_path, trained_path
from kerasmed.study.config import Config
from kerasmed.study.inputs import variants_of
from kerasmed.study.kept_draws import compares_draws
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stage import Additions, Sharding, Stage
from kerasmed.study.stages.audit import audit_synthetic
from kerasmed.study.stages.classifiers import train_classifiers, train_shard
from kerasmed.study.stages.data import split_data
from kerasmed.study.stages.diffusion import train_diffusion, train_upscaler
from kerasmed.study.stages.evaluate import evaluate_classifiers
from kerasmed.study.stages.explain import explain_classifiers, explain_shard
from kerasmed.study.stages.export import export_classifiers, export_shard
from kerasmed.study.stages.leakage import measure_leakage
from kerasmed.study.stages.report import write_report
from kerasmed.study.stages.sampling import draw_samples, draw_shard
from kerasmed.study.stages.worth import measure_worth, worth_shard

# Several shards per processor, so that all end together. Each takes a second or two to start.
_SHARDS_PER_CPU = 4


def _by_synthetic_image(config: Config, cpus: int) -> int:
    return _SHARDS_PER_CPU * cpus


def _by_explained_image(config: Config, cpus: int) -> int:
    return min(_SHARDS_PER_CPU * cpus, config.explain.images_per_class)


def _by_classifier(config: Config, cpus: int) -> int:
    return len(classifier_specs(config))


def _by_curve(config: Config, cpus: int) -> int:
    return config.worth.draws * (len(config.worth.times_train) + 2)  # and both ends


def _files_of(weights: str | dict[str, str]) -> list[Path]:
    named = weights.values() if isinstance(weights, dict) else [weights]
    return [Path(name) for name in named if name not in ("imagenet", "none")]


def _leakage_network(config: Config) -> dict[str, Any]:
    """The network whose features the leakage is measured in, if any has weights."""
    settings = map(config.classifiers.of_backbone, config.classifiers.pretrained()[:1])
    keys = {"backbones", "weights", "input_size"}
    return {"features": [of_one.model_dump(mode="json", include=keys) for of_one in settings]}


def _upscaler_network(config: Config) -> dict[str, Any]:
    """The upscaler and its training, if the study has one."""
    return {"upscaler": config.upscaler.of_network().model_dump()} if config.is_cascade else {}


def _drawn_with(config: Config) -> dict[str, Any]:
    """The upscaler's part of drawing, and the network whose features draws are compared in."""
    further: dict[str, Any] = {}
    if config.is_cascade:
        further["upscaler"] = config.upscaler.of_drawing()
    if any(compares_draws(config.sampling.of_set(name)) for name in variants_of(config)):
        further["compared in"] = (
            [config.audit.extractors[0], config.audit.extractor_weights]
            if config.audit.extractors
            else _leakage_network(config)["features"]
        )
    return further


def _classifier_weights(config: Config) -> list[Path]:
    return _files_of(config.classifiers.weights)


def _extractor_files(config: Config) -> list[Path]:
    files = [Path(name) for name in config.audit.extractors or () if name.lower().endswith(".onnx")]
    return [*_files_of(config.audit.extractor_weights), *files]


def _source_of_synthetic(config: Config) -> list[Path]:
    return [] if config.sampling.source is None else [config.sampling.source]


def _denoisers(config: Config, run: RunFolder) -> list[Path]:
    return [run.diffusion / "denoiser.keras", run.diffusion / "denoiser.onnx"]


def _upscalers(config: Config, run: RunFolder) -> list[Path]:
    return [run.upscaler / "upscaler.keras", run.upscaler / "upscaler.onnx"]


def _synthetic_sets(config: Config, run: RunFolder) -> list[Path]:
    return [run.synthetic_set(variant) for variant in variants_of(config)]


def _trained_classifiers(config: Config, run: RunFolder) -> list[Path]:
    # Those of `best` are copies of others, which may change when candidates are added.
    specs = [spec for spec in classifier_specs(config) if spec.trained_on != "best"]
    return [trained_path(spec, run) for spec in specs]


def _exported_classifiers(config: Config, run: RunFolder) -> list[Path]:
    return [
        exported_path(spec, run, precision)
        for spec in classifier_specs(config)
        for precision in dict.fromkeys(("fp32", *config.export.precisions))
    ]


def _in_evaluation(*names: str) -> Callable[[Config, RunFolder], list[Path]]:
    return lambda config, run: [run.evaluation / f"{name}.json" for name in names]


def _evaluated_with(config: Config) -> list[Path]:
    outside, source = config.evaluation.outside, config.data.source
    tables = [source] if source is not None and source.suffix.lower() == ".csv" else []
    return [*tables, *([] if outside is None else [outside])]  # a table may name subgroups


def _evaluated(config: Config, run: RunFolder) -> list[Path]:
    names = ("metrics", "over_seeds", "comparisons", "usefulness", "curves")
    optional = _in_evaluation("outside", "subgroups")(config, run)
    return [
        *_in_evaluation(*names)(config, run),
        run.evaluation / "predictions.csv",
        *(path for path in optional if path.exists()),
    ]


def _variant_names(config: Config) -> list[str]:
    return list(config.sampling.variants)


def _classifier_names(config: Config) -> list[str]:
    return [spec.name for spec in classifier_specs(config)]


def _variants_unchanged(settings: dict[str, Any], config: Config) -> bool:
    recorded = settings["sampling"]["variants"]
    current = config.sampling.model_dump(mode="json")["variants"]
    return all(current.get(name) == variant for name, variant in recorded.items())


def _classifiers_unchanged(settings: dict[str, Any], config: Config) -> bool:
    def of(section: ClassifierConfig, backbone: str) -> dict[str, Any]:
        return section.of_backbone(backbone).model_dump(exclude={"train_on", "seeds"})

    with suppress(ValidationError):  # a key that no longer exists
        recorded = ClassifierConfig.model_validate(settings["classifiers"])
        current = config.classifiers
        return all(of(recorded, name) == of(current, name) for name in recorded.backbones)
    return False


_CLASSIFIER_KEYS = tuple(
    f"classifiers.{key}" for key in ("backbones", "train_on", "seeds", "weights", "by_backbone")
)

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "data",
            "kerasmed data split CONFIG",
            split_data,
            sections=("seed", "data", "split"),
            outputs=lambda config, run: [run.split_path],
        ),
        Stage(
            "leakage",
            "kerasmed data leakage CONFIG",
            measure_leakage,
            sections=("seed",),
            further=_leakage_network,
            needs=("data",),
            inputs=_classifier_weights,
            outputs=_in_evaluation("leakage"),
        ),
        Stage(
            "diffusion",
            "kerasmed train diffusion CONFIG",
            train_diffusion,
            sections=("seed", "diffusion", "runtime"),
            needs=("data",),
            outputs=_denoisers,
            # also where "auto" means this
            further=lambda config: {"upscaler.use": "always"} if config.is_cascade else {},
            together=True,
        ),
        Stage(
            "upscaler",
            "kerasmed train upscaler CONFIG",
            train_upscaler,
            sections=("seed", "runtime"),
            needs=("data",),
            outputs=_upscalers,
            further=_upscaler_network,
            together=True,
        ),
        Stage(
            "sampling",
            "kerasmed sample CONFIG",
            draw_samples,
            sections=("seed", "sampling"),
            further=_drawn_with,
            needs=("data", "diffusion", "upscaler"),
            inputs=_source_of_synthetic,
            outputs=_synthetic_sets,
            sharding=Sharding(draw_shard, _by_synthetic_image, 1, 1.0, wants_gpu=False),
            additions=Additions(
                "variants",
                _variant_names,
                ("sampling.variants",),
                _variants_unchanged,
                "a drawn set",
            ),
        ),
        Stage(
            "classifiers",
            "kerasmed train classifier CONFIG",
            train_classifiers,
            sections=("seed", "classifiers", "runtime"),
            needs=("data", "sampling"),
            inputs=_classifier_weights,
            outputs=_trained_classifiers,
            sharding=Sharding(train_shard, _by_classifier, 1, 3.0, wants_gpu=True),
            additions=Additions(
                "classifiers",
                _classifier_names,
                _CLASSIFIER_KEYS,
                _classifiers_unchanged,
                "a trained CNN",
            ),
            together=True,
        ),
        Stage(
            "export",
            "kerasmed export CONFIG",
            export_classifiers,
            sections=("seed", "export"),
            needs=("classifiers",),
            outputs=_exported_classifiers,
            sharding=Sharding(export_shard, _by_classifier, 1, 3.0, wants_gpu=False),
        ),
        Stage(
            "evaluate",
            "kerasmed evaluate CONFIG",
            evaluate_classifiers,
            sections=("seed", "evaluation"),
            needs=("sampling", "export"),
            inputs=_evaluated_with,
            outputs=_evaluated,
        ),
        Stage(
            "worth",
            "kerasmed worth CONFIG",
            measure_worth,
            sections=("seed", "worth", "runtime"),
            further=lambda config: {"backbone": config.classifiers.backbones[0]},
            needs=("evaluate",),
            inputs=_classifier_weights,
            outputs=_in_evaluation("worth"),
            sharding=Sharding(worth_shard, _by_curve, 1, 3.0, wants_gpu=True),
        ),
        Stage(
            "explain",
            "kerasmed explain CONFIG",
            explain_classifiers,
            sections=("seed", "explain"),
            needs=("export",),
            outputs=lambda config, run: [run.explanations],
            sharding=Sharding(explain_shard, _by_explained_image, 1, 2.0, wants_gpu=False),
        ),
        Stage(
            "audit",
            "kerasmed audit CONFIG",
            audit_synthetic,
            sections=("seed", "audit"),
            further=lambda config: {"learned from": config.sampling.source_learned_from},
            needs=("sampling", "evaluate"),
            inputs=_extractor_files,
            outputs=_in_evaluation("fidelity", "appearance", "privacy", "verdicts"),
        ),
        Stage(
            "report",
            "kerasmed report CONFIG",
            write_report,
            sections=(),
            outputs=lambda config, run: [run.report],
            needs=("leakage", "evaluate", "explain", "audit"),
        ),
    )
}
