"""A whole study: every stage in order, from the first that is not finished."""

from typing import Any

from kerasmed.config import Config
from kerasmed.progress import say
from kerasmed.runs import RunFolder
from kerasmed.stages import STAGES, Stage, check_settings, perform
from kerasmed.stages.networks import check_classifiers


def run_study(config: Config, run: RunFolder) -> None:
    """Run what is not finished, or was finished before a stage that it builds on.

    Raises:
        StageError: a finished stage was made with other settings than those given now.
    """
    check_classifiers(config)  # a mistake there must not show only after the diffusion training
    finished = run.finished_stages()
    for stage in STAGES.values():
        if stage.name in finished:
            check_settings(stage, finished[stage.name]["settings"], config, run)
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
