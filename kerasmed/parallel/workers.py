"""The processes of TF_CONFIG, which train one network together.

Keras is imported inside functions, since importing it loads the backend.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

from kerasmed import __version__
from kerasmed.errors import ConfigError, KerasmedError, MachineError, StageError, brief
from kerasmed.fingerprint import Fingerprint
from kerasmed.progress import say
from kerasmed.runtime.backend import load_keras

_EXAMPLE = (
    '{"cluster": {"worker": ["HOST1:PORT", "HOST2:PORT"]}, "task": {"type": "worker", "index": 0}}'
)
# JAX counts a worker that is silent for longer as lost.
_SILENT_S = 20
# JAX aborts a process that waits longer for the others.
_MEET_WITHIN_S = 24 * 3600
# Time in which the workers notice that the lock of a chief that has ended is free.
_NOTICED_WITHIN_S = 5
# Errors of backends and their transports about a lost peer, for which JAX has no type of its own.
_LOST_TYPES = ("AbortedError", "UnavailableError")
_LOST_WORDS = ("connection closed", "connection reset", "gloo", "nccl", "socket closed")


@dataclass(frozen=True)
class Worker:
    """This process among those that train together.

    Attributes:
        index: 0 for the chief, the only one that writes.
        addresses: HOST:PORT of each worker, by index.
    """

    index: int
    addresses: tuple[str, ...]

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes what all have trained."""
        return self.index == 0


def read_worker() -> Worker:
    """This process as a worker, from the environment's TF_CONFIG, on TensorFlow and JAX alike.

    Raises:
        ConfigError: it is missing or malformed, or names an unknown host, or a port of this machine
            that is in use.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        addresses, task = config["cluster"]["worker"], config["task"]
        if set(config["cluster"]) != {"worker"} or task["type"] != "worker":
            raise ValueError("it names other tasks than workers")
        endpoints = [_host_and_port(address) for address in addresses]
        index = int(task["index"])
        if not 0 <= index < len(endpoints):
            raise ValueError(f"worker {index} is not one of its {len(endpoints)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = "it is not set" if not text else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"TF_CONFIG: expected the workers of runtime.distribution: multi_worker, such as "
            f"{_EXAMPLE}, received {text[:200]!r} ({reason}); set it on every worker."
        ) from None
    for endpoint in endpoints:
        _check_known(*endpoint)
    _check_free(endpoints[index][1])
    return Worker(index, tuple(addresses))


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")  # of an IPv6 address
    if not host or not 0 < int(port) < 2**16:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host, int(port)


def _check_known(host: str, port: int) -> None:
    try:
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name with two dots in a row
        raise ConfigError(
            f"TF_CONFIG: expected hosts that this machine can find, received {host!r} ({error}); "
            "correct the name, or give its address."
        ) from None


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the backends do
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ConfigError(
                f"TF_CONFIG: expected a free port for this worker, received {port} ({error}); stop "
                "the process on this port, or set another port on every worker."
            ) from None


class _Joined:
    """The state that `meet` sets for the rest of the process."""

    worker: Worker | None = None
    strategy: Any = None  # TensorFlow only
    connected: bool = False


def meet(worker: Worker) -> None:
    """Load Keras, and connect to the other workers before anything else uses its devices.

    Raises:
        MachineError: the workers did not connect.
    """
    say(
        f"multi_worker: worker {worker.index} of {len(worker.addresses)} waits for all of "
        f"{', '.join(worker.addresses)}."
    )
    load_keras(partial(_join, worker))


def _join(worker: Worker) -> None:
    """Connect to the other workers; Keras must be imported and its devices unused.

    Raises:
        MachineError: the workers did not connect.
    """
    import keras

    try:
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            _Joined.strategy = tf.distribute.MultiWorkerMirroredStrategy()
        else:
            import jax

            jax.config.update("jax_enable_preemption_service", False)  # it ignores SIGTERM
            jax.distributed.initialize(
                worker.addresses[0],
                len(worker.addresses),
                worker.index,
                initialization_timeout=_MEET_WITHIN_S,
                heartbeat_timeout_seconds=_SILENT_S,
                shutdown_timeout_seconds=_SILENT_S,
            )
    except Exception as error:
        raise MachineError(
            f"Worker {worker.index} of {', '.join(worker.addresses)} could not connect to the "
            f"others: expected all of them to be started, received {brief(error)}; check that "
            "their ports are open to each other, and start all of them again."
        ) from None
    _Joined.worker, _Joined.connected = worker, True


def disconnect() -> None:
    """Disconnect after all have trained, since JAX aborts all workers when one ends."""
    if not _Joined.connected or _Joined.strategy is not None:
        return
    import jax

    with naming_lost_workers():
        jax.distributed.shutdown()
    _Joined.connected = False


def this_worker() -> Worker:
    """This process; the only worker, and so the chief, if `meet` was not called."""
    return _Joined.worker or Worker(0, ("localhost",))


def strategy() -> Any:
    """TensorFlow's strategy over the workers; None on other backends."""
    return _Joined.strategy


def from_chief(*values: float) -> tuple[float, ...]:
    """The values that the chief passes, on every worker; every worker must call it."""
    worker = this_worker()
    if len(worker.addresses) == 1:
        return values
    import keras
    import numpy as np

    own_values = np.array([values], np.float32)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        of_devices = strategy().experimental_distribute_values_from_function(
            lambda _: tf.constant(own_values)
        )
        gathered = strategy().gather(of_devices, axis=0).numpy()
    else:
        from jax.experimental import multihost_utils

        gathered = np.asarray(multihost_utils.broadcast_one_to_all(own_values))
    return tuple(float(value) for value in gathered[0])


def check_agreed(recipe: Fingerprint) -> None:
    """Refuse a worker whose kerasmed, settings, images or precision are not the chief's.

    Every worker must call it.

    Raises:
        StageError: the recipes differ.
    """
    recipe = replace(recipe, settings={"kerasmed": __version__, **recipe.settings})
    checksum = float(int(recipe.digest()[:6], 16))  # 24 bits are exact in float32
    if from_chief(checksum) != (checksum,):
        raise StageError(
            f"Worker {this_worker().index} has another recipe than the chief: expected the same "
            f"kerasmed, settings, images and precision on every worker, received "
            f"{recipe.as_record()}; give "
            "all of them one experiment file, and set runtime.precision if their processors differ."
        )


@contextmanager
def naming_lost_workers() -> Iterator[None]:
    """Turn a backend's error about a lost worker into one clear line.

    Raises:
        MachineError: a worker was lost.
    """
    try:
        yield
    except KerasmedError:
        raise
    except Exception as error:
        worker = this_worker()
        text = str(error).lower()
        is_lost = type(error).__name__ in _LOST_TYPES or any(word in text for word in _LOST_WORDS)
        if len(worker.addresses) == 1 or not is_lost:
            raise
        raise MachineError(
            f"Worker {worker.index} lost another one of {', '.join(worker.addresses)}: expected "
            f"all of them to run until the end, received {brief(error)}; start all of them again, "
            "and the training continues from its last checkpoint."
        ) from error


def leave(code: int) -> NoReturn:
    """End the process; after an error in a training with others, without disconnecting.

    JAX would wait for a lost worker and then abort. It also aborts the workers of a lost chief, so
    the chief first gives them time to notice that its lock is free.
    """
    if _Joined.connected and code:
        sys.stdout.flush()
        sys.stderr.flush()
        if this_worker().is_chief and _Joined.strategy is None:
            time.sleep(_NOTICED_WITHIN_S)
        os._exit(code)
    sys.exit(code)
