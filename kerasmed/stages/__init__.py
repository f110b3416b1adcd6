"""The stages of a study: each reads files that earlier ones wrote, and writes its own."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from kerasmed.config import ClassifierConfig, Config, Section
from kerasmed.errors import StageError
from kerasmed.progress import say
from kerasmed.runs import RunFolder
from kerasmed.stages.audit import audit_synthetic
from kerasmed.stages.evidence import explain_classifiers, explain_shard, write_report
from kerasmed.stages.images import split_data, train_diffusion
from kerasmed.stages.inputs import cells_of
from kerasmed.stages.leakage import measure_leakage
from kerasmed.stages.networks import (
    evaluate_classifiers,
    export_classifiers,
    export_shard,
    train_classifiers,
    train_shard,
)
from kerasmed.stages.sampling import draw_samples, draw_shard


@dataclass(frozen=True)
class Share:
    """How a stage is divided among processes that share its run folder.

    Attributes:
        run: ``run(config, run, index, parts)`` does one part of the work, all of which may run at
            once, and returns how much is still missing of the whole.
        parts: ``parts(config, cpus)``, into how many it is divided for so many processors.
        cpus: of one part.
        memory_gib: of one part.
        wants_gpu: whether a GPU makes it faster.
    """

    run: Callable[[Config, RunFolder, int, int], int]
    parts: Callable[[Config, int], int]
    cpus: int
    memory_gib: float
    wants_gpu: bool


@dataclass(frozen=True)
class Pieces:
    """What a study may add to a finished stage, leaving what is there as it is.

    Attributes:
        result: where the stage's record names what there is.
        asked: what is asked for now.
        by: the settings that say so, and how each is made.
        kept: ``kept(settings, config)``, whether what is there, by the settings that were recorded,
            would now be made as it was.
        noun: one of them, in a message.
    """

    result: str
    asked: Callable[[Config], list[str]]
    by: tuple[str, ...]
    kept: Callable[[dict[str, Any], Config], bool]
    noun: str


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Attributes:
        name: its key in ``run.json``.
        command: what runs it alone.
        run: does the work and returns what is worth recording.
        sections: the parts of the experiment file that it depends on.
        needs: stages that must have finished.
        share: how it is divided among processes; None where one does it all.
        pieces: what may be added when it is finished; None where nothing may.
        together: whether all workers of ``runtime.distribution: multi_worker`` run it at once.
    """

    name: str
    command: str
    run: Callable[[Config, RunFolder], dict[str, Any]]
    sections: tuple[str, ...]
    needs: tuple[str, ...] = ()
    share: Share | None = None
    pieces: Pieces | None = None
    together: bool = False

    def settings(self, config: Config) -> dict[str, Any]:
        """The settings that decide this stage's outcome."""
        return _deciding(config.model_dump(mode="json", include=set(self.sections)))


def perform(stage: Stage, config: Config, run: RunFolder) -> dict[str, Any]:
    """Run a stage and note it in the run record.

    Raises:
        StageError: a stage that it builds on has not finished, or was made with other settings.
    """
    check_inputs(stage, config, run)
    say(f"{stage.name}: started")
    started = time.monotonic()
    result = stage.run(config, run)
    duration_s = time.monotonic() - started
    run.write_stage(config, stage.name, stage.settings(config), result, duration_s)
    say(f"{stage.name}: done in {duration_s:.0f} s")
    return result


def check_inputs(stage: Stage, config: Config, run: RunFolder) -> None:
    """Refuse to run a stage on what earlier ones made with other settings, or did not make.

    Raises:
        StageError: naming the stage, and the setting and both its values, or what it is older than.
    """
    for name in _needs(stage, config, run.finished_stages()):
        check_finished(STAGES[name], config, run)


def check_finished(stage: Stage, config: Config, run: RunFolder) -> None:
    """Refuse to build on a stage that has not finished with these settings and these inputs.

    Raises:
        StageError: as of ``check_inputs``.
    """
    run.require(stage.name, stage.command)
    check_unchanged(stage, config, run)
    check_inputs(stage, config, run)
    missing = _missing(stage, config, run.finished_stages()[stage.name])
    if stage.pieces is not None and missing:
        raise StageError(
            f"{', '.join(missing)} in {run.root}: expected {stage.pieces.noun}, received "
            f"none; run `{stage.command}`, which adds what is missing."
        )
    if not is_current(stage, config, run.finished_stages()):
        raise StageError(
            f"The stage {stage.name!r} in {run.root} is older than one that it builds on: expected "
            f"a later one; run `{stage.command}` again."
        )


def is_current(stage: Stage, config: Config, finished: dict[str, dict[str, Any]]) -> bool:
    """Whether a stage is finished, all that it builds on is too, and nothing of that is younger.

    Those of the synthetic sets and the CNNs are so with all that are asked for now.
    """
    if stage.name not in finished:
        return False
    if _missing(stage, config, finished[stage.name]):
        return False
    at = finished[stage.name]["finished"]
    return all(
        is_current(STAGES[name], config, finished) and finished[name]["finished"] <= at
        for name in _needs(stage, config, finished)
    )


def _needs(stage: Stage, config: Config, finished: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """What it needs; before a set is drawn, CNNs can learn from real images alone and be tested."""
    alone = {"synthetic", "both"}.isdisjoint(config.classifiers.train_on)
    if alone and "sampling" not in finished and stage.name in ("classifiers", "evaluate"):
        return tuple(name for name in stage.needs if name != "sampling")
    return stage.needs


def check_unchanged(stage: Stage, config: Config, run: RunFolder) -> None:
    """Refuse settings, or a split, that are not those which a finished stage was made with.

    Raises:
        StageError: naming the first that differs.
    """
    finished = run.finished_stages()
    record, data = finished[stage.name], finished.get("data")
    recorded = _deciding(_with_defaults(record["settings"]))
    for key, old, new in _differences(recorded, stage.settings(config)):
        if _only_adds(stage, config, record, recorded, key):
            continue
        raise StageError(
            f"The stage {stage.name!r} in {run.root} was made with {key}: {old}, received {new}; "
            f"take the setting back, use another --out, or redo it with `{stage.command}`."
        )
    # Older than the split it is to be done again in any case.
    is_older = data is None or record["finished"] < data["finished"]
    split = record.get("split_sha256")  # not in records of before it was noted
    # Before anything has learned from it, it may be edited.
    if stage.name != "data" and not is_older and split not in (None, run.split_hash()):
        raise StageError(
            f"{run.split_path} has changed since the stage {stage.name!r} was made: expected the "
            "split that it was made with; put it back, or start a new run folder with --out."
        )


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """Without what may differ in the same study: on how many devices, and how often looked at."""
    found = dict(settings)
    for section, key in (("runtime", "distribution"), ("diffusion", "preview_every")):
        if section in found:
            found[section] = {k: v for k, v in found[section].items() if k != key}
    return found


def _missing(stage: Stage, config: Config, record: dict[str, Any]) -> list[str]:
    """Synthetic sets or CNNs that are asked for now, and were not when this stage finished."""
    if stage.pieces is None:
        return []
    there = record["result"].get(stage.pieces.result, ())
    return [name for name in stage.pieces.asked(config) if name not in there]


def _only_adds(
    stage: Stage, config: Config, record: dict[str, Any], settings: dict[str, Any], key: str
) -> bool:
    """Whether a changed setting asks for more, and for all that is there as it is."""
    pieces = stage.pieces
    if pieces is None or not key.startswith(pieces.by):
        return False
    there = set(record["result"].get(pieces.result, ()))
    return there <= set(pieces.asked(config)) and pieces.kept(settings, config)


def _with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Recorded settings, with the defaults of keys that kerasmed has learned since."""
    found = dict(settings)
    for name, value in settings.items():
        field = Config.model_fields.get(name)
        section = None if field is None else field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            with suppress(ValidationError):  # a key that it has not any more
                found[name] = section.model_validate(value).model_dump(mode="json")
    return found


def _differences(before: Any, now: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Keys whose values differ, with both values."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [(key, before, now)]
    found = []
    for name in sorted(before.keys() | now.keys()):
        inner = f"{key}.{name}" if key else name
        found += _differences(before.get(name), now.get(name), inner)
    return found


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
