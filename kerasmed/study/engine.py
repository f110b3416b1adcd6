"""Running one stage, and checking which results of a study are current."""

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
    """Run a stage and write it to the run record; returns its result.

    Raises:
        StageError: a stage that it builds on has not finished, or used other settings.
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
    """Refuse to run a stage if an earlier one has not finished or used other settings.

    Raises:
        StageError: naming the stage, and the setting with both its values or what is missing.
    """
    for name in _needs(stage, config, run.finished_stages()):
        check_finished(STAGES[name], config, run)


def check_finished(stage: Stage, config: Config, run: RunFolder) -> None:
    """Refuse to build on a stage that has not finished with these settings and these inputs.

    Raises:
        StageError: as in ``check_inputs``.
    """
    run.require(stage.name, stage.command)
    check_unchanged(stage, config, run)
    check_inputs(stage, config, run)
    missing = _missing(stage, config, run.finished_stages()[stage.name])
    if stage.additions is not None and missing:
        raise StageError(
            f"{', '.join(missing)} in {run.root}: expected {stage.additions.noun}, received "
            f"none; run `{stage.command}`, which adds what is missing."
        )
    if not is_current(stage, config, run.finished_stages()):
        raise StageError(
            f"The stage {stage.name!r} in {run.root} is older than a stage that it builds on; run "
            f"`{stage.command}` again."
        )


def is_current(stage: Stage, config: Config, finished: dict[str, dict[str, Any]]) -> bool:
    """Whether a stage is finished, and so are all stages it builds on, none of them later.

    For synthetic sets and CNNs this includes every one that the settings ask for now.
    """
    if stage.name not in finished:
        return False
    if _missing(stage, config, finished[stage.name]):
        return False
    finished_at = finished[stage.name]["finished"]
    return all(
        is_current(STAGES[name], config, finished) and finished[name]["finished"] <= finished_at
        for name in _needs(stage, config, finished)
    )


def _needs(stage: Stage, config: Config, finished: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """Names of the stages it needs; CNNs trained on real images only need no synthetic set."""
    only_real = {"synthetic", "both"}.isdisjoint(config.classifiers.train_on)
    if only_real and "sampling" not in finished and stage.name in ("classifiers", "evaluate"):
        return tuple(name for name in stage.needs if name != "sampling")
    return stage.needs


def check_unchanged(stage: Stage, config: Config, run: RunFolder) -> None:
    """Refuse settings or a split other than those that a finished stage used.

    Raises:
        StageError: naming the first difference.
    """
    finished = run.finished_stages()
    record, data = finished[stage.name], finished.get("data")
    recorded = deciding_settings(_with_defaults(record["settings"]))
    for key, old, new in _differences(recorded, stage.settings(config)):
        if _only_adds(stage, config, record, recorded, key):
            continue
        raise StageError(
            f"The stage {stage.name!r} in {run.root} was made with {key}: {old}, received {new}; "
            f"restore the old value, choose another --out, or redo it with `{stage.command}`."
        )
    # A stage older than the split is redone in any case.
    is_older = data is None or record["finished"] < data["finished"]
    split = record.get("split_sha256")
    # The split may be edited until a stage has used it.
    if stage.name != "data" and not is_older and split not in (None, run.split_hash()):
        raise StageError(
            f"{run.split_path} has changed since the stage {stage.name!r} was made: expected the "
            "same split; restore it, or start a new run folder with --out."
        )


def _missing(stage: Stage, config: Config, record: dict[str, Any]) -> list[str]:
    """Synthetic sets or CNNs that the settings ask for now and the finished stage lacks."""
    if stage.additions is None:
        return []
    present = record["result"].get(stage.additions.result, ())
    return [name for name in stage.additions.requested(config) if name not in present]


def _only_adds(
    stage: Stage, config: Config, record: dict[str, Any], settings: dict[str, Any], key: str
) -> bool:
    """Whether a changed setting only adds items, leaving the finished ones as they are."""
    additions = stage.additions
    if additions is None or not key.startswith(additions.keys):
        return False
    present = set(record["result"].get(additions.result, ()))
    return present <= set(additions.requested(config)) and additions.unchanged(settings, config)


def _with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Recorded settings, with the defaults of keys that are newer than the record."""
    completed = dict(settings)
    for name, value in settings.items():
        field = Config.model_fields.get(name)
        section = None if field is None else field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            with suppress(ValidationError):  # a key that no longer exists
                completed[name] = section.model_validate(value).model_dump(mode="json")
    return completed


def _differences(before: Any, now: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Keys whose values differ, with both values."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [(key, before, now)]
    differences = []
    for name in sorted(before.keys() | now.keys()):
        inner = f"{key}.{name}" if key else name
        differences += _differences(before.get(name), now.get(name), inner)
    return differences
