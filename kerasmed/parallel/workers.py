"""The processes that train one network together, as TF_CONFIG names them.

Keras is imported inside functions, since importing it loads the backend.
"""

import json
import os
import socket
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from kerasmed import __version__
from kerasmed.errors import ConfigError, KerasmedError, MachineError, StageError, brief
from kerasmed.progress import say
from kerasmed.runtime.backend import load_keras

_EXAMPLE = (
    '{"cluster": {"worker": ["HOST1:PORT", "HOST2:PORT"]}, "task": {"type": "worker", "index": 0}}'
)
_SILENT_S = 20  # after which JAX counts a worker as gone
_MEET_WITHIN_S = 24 * 3600  # JAX aborts the process where it has waited for longer
_NOTICED_WITHIN_S = 5
# What backends and their transports raise where a peer is gone; JAX has no type for it alone.
_LOST_TYPES = ("AbortedError", "UnavailableError")
_LOST_WORDS = ("connection closed", "connection reset", "gloo", "nccl", "socket closed")


@dataclass(frozen=True)
class Worker:
    """This process among those that train together.

    Attributes:
        index: 0 for the chief, which alone writes.
        addresses: HOST:PORT of each worker, in their order.
    """

    index: int
    addresses: tuple[str, ...]

    @property
    def is_chief(self) -> bool:
        """Whether this one writes what all have trained."""
        return self.index == 0


def read_worker() -> Worker:
    """This process, from the environment's TF_CONFIG, which TensorFlow and JAX here both go by.

    Raises:
        ConfigError: it is missing, malformed, names a host that nobody knows, or a port of this
            machine that is in use.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        addresses, task = config["cluster"]["worker"], config["task"]
        if set(config["cluster"]) != {"worker"} or task["type"] != "worker":
            raise ValueError("it names other tasks than workers")
        places = [_host_and_port(address) for address in addresses]
        index = int(task["index"])
        if not 0 <= index < len(places):
            raise ValueError(f"worker {index} is none of its {len(places)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = "it is not set" if not text else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"TF_CONFIG: expected what runtime.distribution: multi_worker goes by, such as "
            f"{_EXAMPLE}, received {text[:200]!r} ({reason}); set it on every worker."
        ) from None
    for place in places:
        _check_known(*place)
    _check_free(places[index][1])
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
    except (OSError, UnicodeError) as error:  # the latter of a name with two dots in a row
        raise ConfigError(
            f"TF_CONFIG: expected hosts that this machine can find, received {host!r} ({error}); "
            "mend the name, or give its address."
        ) from None


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the backends do
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ConfigError(
                f"TF_CONFIG: expected a free port for this worker, received {port} ({error}); end "
                "what listens there, or name another port on every worker."
            ) from None


class _Joined:
    """What `meet` leaves for the rest of the process."""

    worker: Worker | None = None
    strategy: Any = None  # of TensorFlow
    connected: bool = False


def meet(worker: Worker) -> None:
    """Load Keras, and meet the other workers before anything else touches its devices.

    Raises:
        MachineError: they did not come together.
    """
    say(
        f"multi_worker: worker {worker.index} of {len(worker.addresses)} waits for all of "
        f"{', '.join(worker.addresses)}."
    )
    load_keras(partial(_join, worker))


def _join(worker: Worker) -> None:
    """Meet the other workers; Keras is imported, and its devices are not yet used.

    Raises:
        MachineError: they did not come together.
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
            f"Worker {worker.index} of {', '.join(worker.addresses)} did not meet the others: "
            f"expected all of them to be started, received {brief(error)}; see that their ports "
            "are open to each other, and start all of them again."
        ) from None
    _Joined.worker, _Joined.connected = worker, True


def part() -> None:
    """Let go of the others once all have trained: JAX would abort all where one ends."""
    if not _Joined.connected or _Joined.strategy is not None:
        return
    import jax

    with lost_workers_named():
        jax.distributed.shutdown()
    _Joined.connected = False


def joined() -> Worker:
    """This process; alone, and so the chief, where `meet` was not called."""
    return _Joined.worker or Worker(0, ("localhost",))


def strategy() -> Any:
    """TensorFlow's strategy over the workers, None for other backends."""
    return _Joined.strategy


def of_chief(*values: float) -> tuple[float, ...]:
    """The values that the chief calls this with, on every worker; each must call it."""
    worker = joined()
    if len(worker.addresses) == 1:
        return values
    import keras
    import numpy as np

    mine = np.array([values], np.float32)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        of_devices = strategy().experimental_distribute_values_from_function(
            lambda _: tf.constant(mine)
        )
        found = strategy().gather(of_devices, axis=0).numpy()
    else:
        from jax.experimental import multihost_utils

        found = np.asarray(multihost_utils.broadcast_one_to_all(mine))
    return tuple(float(value) for value in found[0])


def check_agreed(recipe: dict[str, Any]) -> None:
    """Refuse a worker whose kerasmed, settings, images or precision are not the chief's.

    All call it.

    Raises:
        StageError: they differ.
    """
    recipe = {"kerasmed": __version__, **recipe}
    mine = float(zlib.crc32(json.dumps(recipe, default=str).encode()) >> 8)  # exact in float32
    if of_chief(mine) != (mine,):
        raise StageError(
            f"Worker {joined().index} has another recipe than the chief: expected the same "
            f"kerasmed, settings, images and precision on every worker, received {recipe}; give "
            "all of them one experiment file, and runtime.precision where their processors differ."
        )


@contextmanager
def lost_workers_named() -> Iterator[None]:
    """Turn what a backend raises when a worker is gone into one clear line.

    Raises:
        MachineError: a worker is gone.
    """
    try:
        yield
    except KerasmedError:
        raise
    except Exception as error:
        worker = joined()
        text = str(error).lower()
        gone = type(error).__name__ in _LOST_TYPES or any(word in text for word in _LOST_WORDS)
        if len(worker.addresses) == 1 or not gone:
            raise
        raise MachineError(
            f"Worker {worker.index} lost another one of {', '.join(worker.addresses)}: expected "
            f"all of them until the end, received {brief(error)}; start all of them again, and "
            "the training goes on from its last checkpoint."
        ) from error


def leave(code: int) -> NoReturn:
    """End the process; after an error while others still train with it, without a farewell.

    JAX would wait for a worker that is gone, and then abort. It also aborts the workers of a chief
    that is gone, so that they are given the time to notice that its lock is free.
    """
    if _Joined.connected and code:
        sys.stdout.flush()
        sys.stderr.flush()
        if joined().is_chief and _Joined.strategy is None:
            time.sleep(_NOTICED_WITHIN_S)
        os._exit(code)
    sys.exit(code)
