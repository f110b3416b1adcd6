"""A whole study: all stages in order, from the first unfinished one."""

import secrets
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kerasmed.errors import ConfigError, MachineError, StageError
from kerasmed.files import write_text
from kerasmed.parallel.workers import disconnect, from_chief, meet, naming_lost_workers, read_worker
from kerasmed.progress import say
from kerasmed.study.config import Config
from kerasmed.study.engine import check_inputs, check_unchanged, is_current, perform, stages_of
from kerasmed.study.inputs import load_split
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stage import Stage
from kerasmed.study.stages import STAGES
from kerasmed.study.stages.classifiers import check_classifiers
from kerasmed.study.stages.evaluate import check_outside
from kerasmed.study.stages.worth import check_worth

if TYPE_CHECKING:
    from kerasmed.study.ray_executor import RayCluster

_POLL_S, _LONGEST_POLL_S = 2.0, 30.0
_LAST_TOGETHER = [name for name, stage in STAGES.items() if stage.together][-1]
_VISIBLE_WITHIN_S = 60.0  # network file systems show a file late


def run_study(
    config: Config, run: RunFolder, index: int = 1, shards: int = 1, executor: str = "local"
) -> None:
    """Run every stage that is unfinished or older than a stage that it builds on.

    Several processes can work in one run folder. Each draws and trains its shard, the first does
    the rest, and each waits for the results of the others that it needs. With
    ``runtime.distribution: multi_worker``, TF_CONFIG gives the number of this process and of all.

    Args:
        config: the study's settings.
        run: the study's run folder.
        index: number of this process, from 1 on.
        shards: number of processes.
        executor: "local", or where the shards of stages run as Ray tasks (see ``RayCluster``).

    Raises:
        ConfigError: TF_CONFIG cannot be used, or the work is divided in two ways.
        StageError: a finished stage used other settings, or another process writes to the folder.
    """
    if config.runtime.distribution == "multi_worker":
        if shards > 1 or executor != "local":
            raise ConfigError(
                "runtime.distribution: multi_worker divides a study among the workers of "
                "TF_CONFIG: expected no --shard and no --executor in addition; drop them."
            )
        index, shards = _join_workers(run)
    with run.locked(index, shards), ExitStack() as stack:
        cluster = None
        if executor != "local":
            from kerasmed.study.ray_executor import RayCluster

            cluster = stack.enter_context(RayCluster(executor))
        _run_stages(config, run, index, shards, cluster)


def run_stage(stage: Stage, config: Config, run: RunFolder) -> None:
    """Run one stage, and before it the data stage if that has not finished.

    Raises:
        KerasmedError: as ``run_study`` does.
    """
    index, shards = 1, 1
    if stage.together and config.runtime.distribution == "multi_worker":
        index, shards = _join_workers(run)
    with run.locked(index, shards):
        if stage.name != "data" and "data" not in run.finished_stages():
            _run_or_wait(STAGES["data"], config, run, index, shards)
        _run_or_wait(stage, config, run, index, shards)
        disconnect()


def _join_workers(run: RunFolder) -> tuple[int, int]:
    """Wait for the other workers; returns the number of this process, from 1 on, and of all.

    Raises:
        StageError: the workers do not use the same run folder.
    """
    worker = read_worker()
    meet(worker)
    mark, path = float(secrets.randbelow(2**24)), run.root / ".workers"  # exact in float32
    if worker.is_chief:
        write_text(path, f"{mark}")
    with naming_lost_workers():
        (mark,) = from_chief(mark)
    until = time.monotonic() + _VISIBLE_WITHIN_S
    while not path.exists() or path.read_text(encoding="utf-8") != f"{mark}":
        if time.monotonic() > until:
            raise StageError(
                f"Worker {worker.index} cannot find in {run.root} the file that the chief wrote: "
                "expected one run folder for all workers; give all of them the same --out."
            )
        time.sleep(_POLL_S)
    return worker.index + 1, len(worker.addresses)


def _run_stages(
    config: Config, run: RunFolder, index: int, shards: int, cluster: "RayCluster | None"
) -> None:
    # Mistakes that would otherwise end the study after hours.
    check_classifiers(config)
    check_outside(config)
    if config.worth.in_study:
        check_worth(config)
    finished = run.finished_stages()
    stages = stages_of(config, run)
    for stage in stages:
        if stage.name in finished:
            check_unchanged(stage, config, run)
    if "data" in finished:
        load_split(config, run)  # refuses changed images
    for stage in stages:
        if is_current(stage, config, run):
            say(f"{stage.name}: already finished")
        else:
            if cluster is not None and stage.sharding is not None:
                check_inputs(stage, config, run)
                cluster.run_stage(stage.name, stage.sharding, config, run)
            _run_or_wait(stage, config, run, index, shards)
        if stage.name == _LAST_TOGETHER:
            disconnect()


def _run_or_wait(stage: Stage, config: Config, run: RunFolder, index: int, shards: int) -> None:
    """Do this process's shard of a stage, and wait until the stage is finished."""
    workers = config.runtime.distribution == "multi_worker"
    together = workers and stage.together
    if shards > 1 and stage.sharding is not None and not together:
        check_inputs(stage, config, run)
        say(f"{stage.name}: shard {index} of {shards}")
        missing = stage.sharding.run(config, run, index, shards)
        if index == 1 and missing:
            say(f"{stage.name}: waiting for {missing} items from the other processes")
            pause = _POLL_S
            while missing:
                time.sleep(pause)
                if workers:
                    _check_alive(run, range(2, shards + 1), shards)
                started = time.monotonic()
                missing = stage.sharding.run(config, run, index, shards)
                # Each check reads the sets again, which may take long.
                pause = min(max(_POLL_S, 3 * (time.monotonic() - started)), _LONGEST_POLL_S)
    with naming_lost_workers():
        if index == 1:
            perform(stage, config, run)
            return
        if together:
            check_inputs(stage, config, run)
            say(f"{stage.name}: with the other workers")
            stage.run(config, run)
    say(f"{stage.name}: waiting for process 1 of {shards}")
    while not is_current(stage, config, run):
        time.sleep(_POLL_S)
        if workers and not is_current(stage, config, run):
            _check_alive(run, [1], shards)


def _check_alive(run: RunFolder, others: Iterable[int], shards: int) -> None:
    """Refuse to wait for workers that have ended.

    Raises:
        MachineError: naming the first such worker.
    """
    for other in others:
        if not run.is_held(other, shards):
            raise MachineError(
                f"Worker {other - 1} ended too early: expected all {shards} workers to run "
                "until the end; read its output, and start all workers again."
            )
