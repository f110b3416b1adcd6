"""Which results of a study are current, and running one stage."""

import time
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from kerasmed.errors import StageError
from kerasmed.progress import say
from kerasmed.settings import Section
from kerasmed.study.config import Config
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stage import Stage, deciding_settings
from kerasmed.study.stages import STAGES


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
    recorded = deciding_settings(_with_defaults(record["settings"]))
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
