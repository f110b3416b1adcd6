"""Keras and its backend, imported with kerasmed's settings.

Keras is imported inside functions, since importing it loads the backend.
"""

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kerasmed.errors import KerasmedError, MachineError, brief
from kerasmed.progress import say
from kerasmed.runtime.hardware import thread_limit
from kerasmed.runtime.keras_settings import (
    check_loaded,
    hidden_settings,
    requested_backend,
    settings_of_file,
)


def list_gpus() -> list[str]:
    """The GPUs that Keras computes on, by its names; JAX without one has no list of them alone."""
    import keras

    return [name for name in keras.distribution.list_devices() if name.startswith(("gpu", "cuda"))]


def list_devices() -> list[str]:
    """What a training may be spread over: the GPUs, or without any the CPUs, mostly one."""
    import keras

    return list_gpus() or keras.distribution.list_devices()


def load_keras(meet_others: Callable[[], None] | None = None) -> None:
    """Import Keras and its backend, with kerasmed's settings and no start-up notices.

    Args:
        meet_others: where several processes train one network, what makes them meet; called before
            anything touches the devices.

    Raises:
        ConfigError: kerasmed does not work on this backend, or another program has imported Keras
            with other settings.
        MachineError: the backend is not installed, or does not start.
    """
    loaded = "keras" in sys.modules
    backend = check_loaded() if loaded else requested_backend()
    if loaded and meet_others is None:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if threads := thread_limit():  # TensorFlow knows neither OMP_NUM_THREADS nor quotas, nor XLA
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "PJRT_NPROC"):
            os.environ.setdefault(name, str(threads))
    # TensorFlow's own copy of Keras reads keras.json too; on JAX it is imported later, if at all.
    tensorflow_too = backend == "jax" and settings_of_file() is not None
    with _stderr_off(), hidden_settings() as caps:
        try:
            import keras

            if tensorflow_too:
                with suppress(ImportError):
                    importlib.import_module("tensorflow")
            if meet_others is not None:
                meet_others()
            keras.distribution.list_devices()
        except KerasmedError:
            raise
        except Exception as error:  # a broken installation raises anything
            raise MachineError(
                f"Keras does not start on {backend}: expected an installation that works, received "
                f"{brief(error)}; install keras and {backend} again, or set KERAS_BACKEND to "
                "another backend."
            ) from error
    if caps:
        say(f"{' and '.join(caps)}: ignored, the experiment file says how long a training is.")
    # Several networks in one process are traced one after the other, which it warns of.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextmanager
def _stderr_off() -> Iterator[None]:
    """TensorFlow 2.21 writes some notices to stderr before it reads TF_CPP_MIN_LOG_LEVEL."""
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


@contextmanager
def precision_policy(name: str) -> Iterator[None]:
    """Build layers under a Keras dtype policy, and restore the one before."""
    import keras

    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)
