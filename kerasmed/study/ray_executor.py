"""The shards of a study as Ray tasks, on this machine or on a cluster."""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from threadpoolctl import threadpool_limits

from kerasmed import __version__
from kerasmed.errors import ConfigError, KerasmedError, MachineError
from kerasmed.progress import progress_bar
from kerasmed.runtime.hardware import core_limits, cpu_cores
from kerasmed.study.config import Config, parse_config
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stage import Sharding

_ANSWERS_WITHIN_S = 20
_RETRIES = 3  # after the worker of a task died
_DEFAULT_PORT = 10001
_TOKEN = Path.home() / ".ray" / "auth_token"


class RayCluster:
    """A Ray cluster, started on this machine or joined.

    A context manager that leaves no process behind.

    Args:
        address: "ray" to start a cluster on this machine, or ``ray://HOST:PORT`` to join one. All
            its machines must reach the run folder at the same path.

    Raises:
        MachineError: Ray is not installed, or nothing answers at the address.
        ConfigError: the address has another form.
    """

    def __init__(self, address: str):
        if address != "ray" and not address.startswith("ray://"):
            raise ConfigError(
                f"--executor takes local, ray or ray://HOST:PORT, received {address!r}; correct it."
            )
        # A Ray 2.60 cluster with a token asks for it, but the client sends it only with this set.
        if _TOKEN.exists():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        self._address = address
        try:
            import ray
        except ImportError:
            raise MachineError(
                "Ray is not installed: --executor ray needs it; run `pip install 'kerasmed[ray]'`."
            ) from None
        self._ray = ray
        if address == "ray":
            # OMP_NUM_THREADS does not count here: it limits this process, not the number of tasks.
            ray.init(
                address="local",
                num_cpus=core_limits().granted,
                include_dashboard=False,
                log_to_driver=False,
            )
        else:
            _check_answers(address)
            with self._naming_loss():
                ray.init(address=address, log_to_driver=False)

    def __enter__(self) -> "RayCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def run_stage(self, stage: str, sharding: Sharding, config: Config, run: RunFolder) -> None:
        """Run all shards of a stage as tasks; repeat a task whose worker dies up to three times.

        Raises:
            KerasmedError: raised by a shard.
            MachineError: the workers of a shard died repeatedly, or the cluster was lost.
        """
        with self._naming_loss():
            self._run_stage(stage, sharding, config, run)

    def _run_stage(self, stage: str, sharding: Sharding, config: Config, run: RunFolder) -> None:
        resources = self._ray.cluster_resources()
        shards = sharding.shards(config, max(1, int(resources.get("CPU", 1))))
        gpus = 1 if sharding.wants_gpu and resources.get("GPU") else 0
        task = self._ray.remote(
            num_cpus=sharding.cpus,
            num_gpus=gpus,
            memory=int(sharding.memory_gib * 2**30),
            max_retries=_RETRIES,
        )(_do_shard)
        root, values = str(run.root.absolute()), json.loads(config.model_dump_json())
        waiting = [
            task.remote(sharding.run, values, root, str(Path.cwd()), i, shards, __version__)
            for i in range(1, shards + 1)
        ]
        try:
            with progress_bar(f"{stage} on Ray", shards, "shards") as advance:
                while waiting:
                    done, waiting = self._ray.wait(waiting)
                    self._get(done[0], stage)
                    advance(1, "")
        except ConnectionError:
            waiting = []  # gone with the cluster; cancelling them would start another cluster
            raise
        finally:
            for unfinished in waiting:  # after an error or Ctrl-C
                self._ray.cancel(unfinished, force=True)

    @contextlib.contextmanager
    def _naming_loss(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, self._ray.exceptions.RaySystemError) as error:
            raise MachineError(
                f"The Ray cluster at {self._address} was not reached or was lost: expected it "
                f"until the end, received {' '.join(str(error).split())[:200]}; check that it "
                f"runs, and that {_TOKEN} is a copy of the token of its first machine if it has "
                "one. Then start the study again: finished work is kept."
            ) from None

    def _get(self, result: Any, stage: str) -> None:
        exceptions = self._ray.exceptions
        try:
            self._ray.get(result)
        except exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, KerasmedError) else error) from None
        except (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError) as error:
            raise MachineError(
                f"{stage}: the workers of one shard died {_RETRIES + 1} times: expected one to "
                f"finish; {' '.join(str(error).split())[:200]} Check its memory, and start the "
                "study again: finished work is kept."
            ) from None


def _do_shard(
    work: Callable[[Config, RunFolder, int, int], int],
    values: dict[str, Any],
    root: str,
    working_directory: str,
    index: int,
    shards: int,
    version: str,
) -> None:
    """Run one shard, in a worker process."""
    if version != __version__:
        raise MachineError(
            f"{socket.gethostname()} has kerasmed {__version__}: expected {version}, as on the "
            "machine that started the study; install that version there."
        )
    os.chdir(working_directory)  # relative paths of the settings start there
    config = parse_config(values, "the study's settings")
    # If the study's own process has set OPENBLAS_NUM_THREADS, this one has inherited it.
    with threadpool_limits(cpu_cores(), user_api="blas"):
        work(config, RunFolder(Path(root)), index, shards)


def _check_answers(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would keep trying for minutes."""
    parsed = urlsplit(address)
    try:
        host, port = parsed.hostname or "", parsed.port or _DEFAULT_PORT
        socket.create_connection((host, port), timeout=_ANSWERS_WITHIN_S).close()
    except (OSError, ValueError) as error:
        raise MachineError(
            f"--executor {address}: expected a Ray cluster that answers, received {error}; start "
            "one with `ray start --head`, or correct the address."
        ) from None
