"""The stages of a study: each reads files that earlier ones wrote, and writes its own."""

from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from kerasmed.classify.config import ClassifierConfig
from kerasmed.study.config import Config
from kerasmed.study.inputs import cells_of
from kerasmed.study.stage import Pieces, Share, Stage
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

# A few parts a processor, so that all end together; each costs a second or two to begin.
_PARTS_A_CPU = 4


def _by_synthetic_image(config: Config, cpus: int) -> int:
    return _PARTS_A_CPU * cpus


def _by_explained_image(config: Config, cpus: int) -> int:
    return min(_PARTS_A_CPU * cpus, config.explain.images_per_class)


def _by_cell(config: Config, cpus: int) -> int:
    return len(cells_of(config))


def _variant_names(config: Config) -> list[str]:
    return list(config.sampling.variants)


def _cell_names(config: Config) -> list[str]:
    return [cell.name for cell in cells_of(config)]


def _variants_kept(settings: dict[str, Any], config: Config) -> bool:
    now = config.sampling.model_dump(mode="json")["variants"]
    return all(now.get(name) == of_set for name, of_set in settings["sampling"]["variants"].items())


def _cells_kept(settings: dict[str, Any], config: Config) -> bool:
    def of(section: ClassifierConfig, backbone: str) -> dict[str, Any]:
        return section.of_backbone(backbone).model_dump(exclude={"train_on", "seeds"})

    with suppress(ValidationError):  # a key that it has not any more
        before = ClassifierConfig.model_validate(settings["classifiers"])
        return all(of(before, each) == of(config.classifiers, each) for each in before.backbones)
    return False


_CELLS_BY = tuple(
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
            Share(draw_shard, _by_synthetic_image, 1, 1.0, wants_gpu=False),
            Pieces(
                "variants", _variant_names, ("sampling.variants",), _variants_kept, "a drawn set"
            ),
        ),
        Stage(
            "classifiers",
            "kerasmed train classifier CONFIG",
            train_classifiers,
            ("seed", "classifiers", "runtime"),
            ("data", "sampling"),
            Share(train_shard, _by_cell, 1, 3.0, wants_gpu=True),
            Pieces("cells", _cell_names, _CELLS_BY, _cells_kept, "a trained CNN"),
            together=True,
        ),
        Stage(
            "export",
            "kerasmed export CONFIG",
            export_classifiers,
            ("seed", "export"),
            ("classifiers",),
            Share(export_shard, _by_cell, 1, 3.0, wants_gpu=False),
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
            Share(explain_shard, _by_explained_image, 1, 2.0, wants_gpu=False),
        ),
        Stage(
            "audit",
            "kerasmed audit CONFIG",
            audit_synthetic,
            ("seed", "audit"),
            ("sampling", "export"),
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
