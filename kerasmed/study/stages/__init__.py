"""The stages of a study: each reads files that earlier stages wrote, and writes its own."""

from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from kerasmed.classify.config import ClassifierConfig
from kerasmed.study.classifier_specs import classifier_specs
from kerasmed.study.config import Config
from kerasmed.study.stage import Additions, Sharding, Stage
from kerasmed.study.stages.audit import audit_synthetic
from kerasmed.study.stages.classifiers import train_classifiers, train_shard
from kerasmed.study.stages.data import split_data
from kerasmed.study.stages.diffusion import train_diffusion
from kerasmed.study.stages.evaluate import evaluate_classifiers
from kerasmed.study.stages.explain import explain_classifiers, explain_shard
from kerasmed.study.stages.export import export_classifiers, export_shard
from kerasmed.study.stages.leakage import measure_leakage
from kerasmed.study.stages.report import write_report
from kerasmed.study.stages.sampling import draw_samples, draw_shard

# Several shards per processor, so that all end together. Each takes a second or two to start.
_SHARDS_PER_CPU = 4


def _by_synthetic_image(config: Config, cpus: int) -> int:
    return _SHARDS_PER_CPU * cpus


def _by_explained_image(config: Config, cpus: int) -> int:
    return min(_SHARDS_PER_CPU * cpus, config.explain.images_per_class)


def _by_classifier(config: Config, cpus: int) -> int:
    return len(classifier_specs(config))


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
        Stage("data", "kerasmed data split CONFIG", split_data, ("seed", "data", "split")),
        Stage(
            "leakage",
            "kerasmed data leakage CONFIG",
            measure_leakage,
            ("seed",),
            ("data",),
        ),
        Stage(
            "diffusion",
            "kerasmed train diffusion CONFIG",
            train_diffusion,
            ("seed", "diffusion", "runtime"),
            ("data",),
            together=True,
        ),
        Stage(
            "sampling",
            "kerasmed sample CONFIG",
            draw_samples,
            ("seed", "sampling"),
            ("diffusion",),
            Sharding(draw_shard, _by_synthetic_image, 1, 1.0, wants_gpu=False),
            Additions(
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
            ("seed", "classifiers", "runtime"),
            ("data", "sampling"),
            Sharding(train_shard, _by_classifier, 1, 3.0, wants_gpu=True),
            Additions(
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
            ("seed", "export"),
            ("classifiers",),
            Sharding(export_shard, _by_classifier, 1, 3.0, wants_gpu=False),
        ),
        Stage(
            "evaluate",
            "kerasmed evaluate CONFIG",
            evaluate_classifiers,
            ("seed", "evaluation"),
            ("sampling", "export"),
        ),
        Stage(
            "explain",
            "kerasmed explain CONFIG",
            explain_classifiers,
            ("seed", "explain"),
            ("export",),
            Sharding(explain_shard, _by_explained_image, 1, 2.0, wants_gpu=False),
        ),
        Stage(
            "audit",
            "kerasmed audit CONFIG",
            audit_synthetic,
            ("seed", "audit"),
            ("sampling", "evaluate"),
        ),
        Stage(
            "report",
            "kerasmed report CONFIG",
            write_report,
            (),
            ("leakage", "evaluate", "explain", "audit"),
        ),
    )
}
