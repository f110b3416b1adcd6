"""A whole study: every stage in order, from the first that is not finished."""

import secrets
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kerasmed.errors import ConfigError, MachineError, StageError
from kerasmed.files import write_text
from kerasmed.parallel.workers import lost_workers_named, meet, of_chief, part, read_worker
from kerasmed.progress import say
from kerasmed.study.config import Config
from kerasmed.study.engine import check_inputs, check_unchanged, is_current, perform
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stage import Stage
from kerasmed.study.stages import STAGES
from kerasmed.study.stages.classifiers import check_classifiers

if TYPE_CHECKING:
    from kerasmed.study.ray_executor import RayCluster

_POLL_S, _POLL_AT_MOST_S = 2.0, 30.0
_LAST_TOGETHER = [name for name, stage in STAGES.items() if stage.together][-1]
_SEEN_WITHIN_S = 60.0  # network file systems show a file late


def run_study(
    config: Config, run: RunFolder, index: int = 1, shards: int = 1, executor: str = "local"
) -> None:
    """Run what is not finished, or was finished before a stage that it builds on.

    Of several processes that share the run folder, each draws and trains its part; the first does
    the rest, and each waits for the others where it needs what they make. With
    ``runtime.distribution: multi_worker`` TF_CONFIG says which process this one is of how many.

    Args:
        config: the study's settings.
        run: its folder.
        index: which of the processes this one is, from 1 on.
        shards: how many there are.
        executor: "local", or where parts of stages run as Ray tasks, see ``RayCluster``.

    Raises:
        ConfigError: TF_CONFIG cannot be used, or the work is divided in two ways.
        StageError: a finished stage was made with other settings than those given now, or another
            process writes to the folder.
    """
    if config.runtime.distribution == "multi_worker":
        if shards > 1 or executor != "local":
            raise ConfigError(
                "runtime.distribution: multi_worker divides a study among the workers of "
                "TF_CONFIG: expected no --shard and no --executor beside it; drop them."
            )
        index, shards = _join_workers(run)
    with run.locked(index, shards), ExitStack() as stack:
        cluster = None
        if executor != "local":
            from kerasmed.study.ray_executor import RayCluster

            cluster = stack.enter_context(RayCluster(executor))
        _run_stages(config, run, index, shards, cluster)


def run_stage(stage: Stage, config: Config, run: RunFolder) -> None:
    """Run one stage, after the data stage if that has not been done.

    Raises:
        KerasmedError: as ``run_study`` does.
    """
    index, shards = 1, 1
    if stage.together and config.runtime.distribution == "multi_worker":
        index, shards = _join_workers(run)
    with run.locked(index, shards):
        if stage.name != "data" and "data" not in run.finished_stages():
            _take_part(STAGES["data"], config, run, index, shards)
        _take_part(stage, config, run, index, shards)
        part()


def _join_workers(run: RunFolder) -> tuple[int, int]:
    """Meet the other workers; which process this one is, from 1 on, and of how many.

    Raises:
        StageError: the workers do not share the run folder.
    """
    worker = read_worker()
    run.check_shared(f"worker {worker.index} of TF_CONFIG")
    meet(worker)
    mark, path = float(secrets.randbelow(2**24)), run.root / ".workers"  # exact in float32
    if worker.is_chief:
        write_text(path, f"{mark}")
    with lost_workers_named():
        (mark,) = of_chief(mark)
    until = time.monotonic() + _SEEN_WITHIN_S
    while not path.exists() or path.read_text(encoding="utf-8") != f"{mark}":
        if time.monotonic() > until:
            raise StageError(
                f"Worker {worker.index} does not see in {run.root} what the chief wrote there: "
                "expected a run folder that all workers share; give all of them the same --out."
            )
        time.sleep(_POLL_S)
    return worker.index + 1, len(worker.addresses)


def _run_stages(
    config: Config, run: RunFolder, index: int, shards: int, cluster: "RayCluster | None"
) -> None:
    check_classifiers(config)  # a mistake there must not show only after the diffusion training
    finished = run.finished_stages()
    for stage in STAGES.values():
        if stage.name in finished:
            check_unchanged(stage, config, run)
    for stage in STAGES.values():
        if is_current(stage, config, run.finished_stages()):
            say(f"{stage.name}: finished before")
        else:
            if cluster is not None and stage.share is not None:
                check_inputs(stage, config, run)
                cluster.share(stage.name, stage.share, config, run)
            _take_part(stage, config, run, index, shards)
        if stage.name == _LAST_TOGETHER:
            part()


def _take_part(stage: Stage, config: Config, run: RunFolder, index: int, shards: int) -> None:
    """Do this process's part of a stage, and wait until it is finished."""
    workers = config.runtime.distribution == "multi_worker"
    together = workers and stage.together
    if shards > 1 and stage.share is not None and not together:
        check_inputs(stage, config, run)
        say(f"{stage.name}: part {index} of {shards}")
        missing = stage.share.run(config, run, index, shards)
        if index == 1 and missing:
            say(f"{stage.name}: waiting for {missing} pieces of the other processes")
            pause = _POLL_S
            while missing:
                time.sleep(pause)
                if workers:
                    _check_there(run, range(2, shards + 1), shards)
                looked = time.monotonic()
                missing = stage.share.run(config, run, index, shards)
                # A look reads the sets again, which may take long.
                pause = min(max(_POLL_S, 3 * (time.monotonic() - looked)), _POLL_AT_MOST_S)
    with lost_workers_named():
        if index == 1:
            perform(stage, config, run)
            return
        if together:
            check_inputs(stage, config, run)
            say(f"{stage.name}: with the other workers")
            stage.run(config, run)
    say(f"{stage.name}: waiting for process 1 of {shards}")
    while not is_current(stage, config, run.finished_stages()):
        time.sleep(_POLL_S)
        if workers and not is_current(stage, config, run.finished_stages()):
            _check_there(run, [1], shards)


def _check_there(run: RunFolder, others: Iterable[int], shards: int) -> None:
    """Refuse to wait for workers that have ended.

    Raises:
        MachineError: naming the first.
    """
    for other in others:
        if not run.is_held(other, shards):
            raise MachineError(
                f"Worker {other - 1} has ended before what it was to do: expected all of the "
                f"{shards} workers until the end; see what it said, and start all of them again."
            )
