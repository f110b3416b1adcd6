"""A whole study: every stage in order, from the first that is not finished."""

from typing import Any

from kerasmed.config import Config
from kerasmed.errors import StageError
from kerasmed.progress import say
from kerasmed.runs import RunFolder
from kerasmed.stages import STAGES, Stage, perform


def run_study(config: Config, run: RunFolder) -> None:
    """Run what is not finished, or was finished before a stage that it builds on.

    Raises:
        StageError: a finished stage was made with other settings than those given now.
    """
    finished = run.finished_stages()
    for stage in STAGES.values():
        if stage.name in finished:
            _check_settings(stage, finished[stage.name]["settings"], config, run)
    for stage in STAGES.values():
        if is_current(stage, run.finished_stages()):
            say(f"{stage.name}: finished before")
        else:
            perform(stage, config, run)


def is_current(stage: Stage, finished: dict[str, dict[str, Any]]) -> bool:
    """Whether a stage is finished, and not before one that it needs."""
    if stage.name not in finished:
        return False
    at = finished[stage.name]["finished"]
    return all(name in finished and finished[name]["finished"] <= at for name in stage.needs)


def _check_settings(stage: Stage, before: dict[str, Any], config: Config, run: RunFolder) -> None:
    now = stage.settings(config)
    for key, old, new in _differences(before, now):
        raise StageError(
            f"The stage {stage.name!r} in {run.root} was made with {key}: {old}, received {new}; "
            f"take the setting back, use another --out, or redo it with `{stage.command}`."
        )


def _differences(before: Any, now: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Keys whose values differ, with both values."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [(key, before, now)]
    found = []
    for name in sorted(before.keys() | now.keys()):
        inner = f"{key}.{name}" if key else name
        found += _differences(before.get(name), now.get(name), inner)
    return found
