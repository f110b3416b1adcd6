"""The parts of a study as Ray tasks, on this machine or on a cluster that shares the run folder."""

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
from kerasmed.study.stage import Share

_ANSWERS_WITHIN_S = 20
_RETRIES = 3  # of a task whose worker died
_DEFAULT_PORT = 10001
_TOKEN = Path.home() / ".ray" / "auth_token"


class RayCluster:
    """Ray, started here or joined; a context manager that leaves no process behind.

    Args:
        address: "ray" for one of its own on this machine, or ``ray://HOST:PORT``.

    Raises:
        MachineError: Ray is not installed, or nothing answers at the address.
        ConfigError: another address.
    """

    def __init__(self, address: str):
        if address != "ray" and not address.startswith("ray://"):
            raise ConfigError(
                f"--executor takes local, ray or ray://HOST:PORT, received {address!r}; mend it."
            )
        # Ray 2.60 asks for the token where there is one, and its client sends it only when told to.
        if _TOKEN.exists():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        self._address = address
        try:
            import ray
        except ImportError:
            raise MachineError(
                "Ray is not installed: expected by --executor ray; run "
                "`pip install 'kerasmed[cluster]'`."
            ) from None
        self._ray = ray
        if address == "ray":
            # Without OMP_NUM_THREADS, which limits this process and not the number of tasks.
            ray.init(
                address="local",
                num_cpus=core_limits().granted,
                include_dashboard=False,
                log_to_driver=False,
            )
        else:
            _check_answers(address)
            with self._loss_told():
                ray.init(address=address, log_to_driver=False)

    def __enter__(self) -> "RayCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def share(self, stage: str, share: Share, config: Config, run: RunFolder) -> None:
        """Do all parts of a stage as tasks. One whose worker dies is done again, three times.

        Raises:
            KerasmedError: what a part raised.
            MachineError: a part's workers died again and again, or the cluster was lost.
        """
        with self._loss_told():
            self._share(stage, share, config, run)

    def _share(self, stage: str, share: Share, config: Config, run: RunFolder) -> None:
        resources = self._ray.cluster_resources()
        parts = share.parts(config, max(1, int(resources.get("CPU", 1))))
        gpus = 1 if share.wants_gpu and resources.get("GPU") else 0
        task = self._ray.remote(
            num_cpus=share.cpus,
            num_gpus=gpus,
            memory=int(share.memory_gib * 2**30),
            max_retries=_RETRIES,
        )(_do_part)
        root, values = str(run.root.absolute()), json.loads(config.model_dump_json())
        waiting = [
            task.remote(share.run, values, root, str(Path.cwd()), i, parts, __version__)
            for i in range(1, parts + 1)
        ]
        try:
            with progress_bar(f"{stage} on Ray", parts, "parts") as advance:
                while waiting:
                    done, waiting = self._ray.wait(waiting)
                    self._get(done[0], stage)
                    advance(1, "")
        except ConnectionError:
            waiting = []  # gone with the cluster; to cancel them Ray would start another one
            raise
        finally:
            for each in waiting:  # after an error or Ctrl-C
                self._ray.cancel(each, force=True)

    @contextlib.contextmanager
    def _loss_told(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionError, self._ray.exceptions.RaySystemError) as error:
            raise MachineError(
                f"The Ray cluster at {self._address} was not reached or was lost: expected it "
                f"until the end, received {' '.join(str(error).split())[:200]}; see that it runs, "
                f"and that {_TOKEN} is that of its first machine if it has one, and start the "
                "study again: what is done is kept."
            ) from None

    def _get(self, result: Any, stage: str) -> None:
        exceptions = self._ray.exceptions
        try:
            self._ray.get(result)
        except exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, KerasmedError) else error) from None
        except (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError) as error:
            raise MachineError(
                f"{stage}: the workers of one part died {_RETRIES + 1} times: expected one "
                f"to last; {' '.join(str(error).split())[:200]} Look at its memory, and start the "
                "study again: what is done is kept."
            ) from None


def _do_part(
    work: Callable[[Config, RunFolder, int, int], int],
    values: dict[str, Any],
    root: str,
    working_directory: str,
    index: int,
    parts: int,
    version: str,
) -> None:
    """One part, in a worker."""
    if version != __version__:
        raise MachineError(
            f"{socket.gethostname()} has kerasmed {__version__}: expected {version}, as where the "
            "study was started; install that there."
        )
    os.chdir(working_directory)  # relative paths of the settings start there
    config = parse_config(values, "the study's settings")
    # Where the study's own process has set OPENBLAS_NUM_THREADS, this one has inherited it.
    with threadpool_limits(cpu_cores(), user_api="blas"):
        work(config, RunFolder(Path(root)), index, parts)


def _check_answers(address: str) -> None:
    """Refuse an address at which nothing listens; Ray itself would try for minutes."""
    parsed = urlsplit(address)
    try:
        host, port = parsed.hostname or "", parsed.port or _DEFAULT_PORT
        socket.create_connection((host, port), timeout=_ANSWERS_WITHIN_S).close()
    except (OSError, ValueError) as error:
        raise MachineError(
            f"--executor {address}: expected a Ray cluster that answers, received {error}; start "
            "one with `ray start --head`, or mend the address."
        ) from None
