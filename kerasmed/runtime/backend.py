"""Keras and its backend, imported with kerasmed's settings.

Keras is imported inside functions, since importing it loads the backend.
"""

import importlib
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from kerasmed.errors import KerasmedError, MachineError, ModelFileError, brief
from kerasmed.progress import say
from kerasmed.runtime.hardware import thread_limit
from kerasmed.runtime.keras_settings import (
    check_loaded,
    hidden_settings,
    requested_backend,
    settings_of_file,
)

if TYPE_CHECKING:
    import keras


def list_gpus() -> list[str]:
    """The names of the GPUs that Keras computes on."""
    import keras

    # list_devices("gpu") fails on JAX without a GPU.
    return [name for name in keras.distribution.list_devices() if name.startswith(("gpu", "cuda"))]


def list_devices() -> list[str]:
    """The devices that a training can use: the GPUs, or without any the CPUs, usually one."""
    import keras

    return list_gpus() or keras.distribution.list_devices()


def load_keras(meet_others: Callable[[], None] | None = None) -> None:
    """Import Keras and its backend, with kerasmed's settings and no start-up notices.

    Args:
        meet_others: connects the processes that train one network; called before anything uses the
            devices.

    Raises:
        ConfigError: kerasmed does not work on this backend, or Keras was imported before with other
            settings.
        MachineError: the backend is not installed or does not start.
    """
    loaded = "keras" in sys.modules
    backend = check_loaded() if loaded else requested_backend()
    if loaded and meet_others is None:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if platform.machine() in ("x86_64", "AMD64"):
        # TensorFlow itself uses oneDNN only on processors that multiply int8 or bfloat16.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if threads := thread_limit():  # TensorFlow and XLA ignore OMP_NUM_THREADS and quotas
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "PJRT_NPROC"):
            os.environ.setdefault(name, str(threads))
    # TensorFlow's own copy of Keras reads keras.json too, and on JAX might be imported later.
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
        except Exception as error:  # a broken installation may raise any error
            raise MachineError(
                f"Keras does not start on {backend}: expected a working installation, received "
                f"{brief(error)}; install keras and {backend} again, or set KERAS_BACKEND to "
                "another backend."
            ) from error
    if caps:
        say(f"{' and '.join(caps)}: ignored; the experiment file sets the length of a training.")
    # TensorFlow warns when a process traces several networks one after the other.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


@contextmanager
def _stderr_off() -> Iterator[None]:
    """Discard stderr, where TensorFlow 2.21 writes before it reads TF_CPP_MIN_LOG_LEVEL."""
    sys.stderr.flush()
    terminal, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


@contextmanager
def precision_policy(name: str) -> Iterator[None]:
    """Build layers under a Keras dtype policy, and restore the previous one."""
    import keras

    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def load_saved_model(path: Path | str, *classes: type, compile: bool = False) -> "keras.Model":
    """The model of a `.keras` file.

    Args:
        path: the file.
        classes: of one of which it must be.
        compile: whether to restore the optimiser too, if the file has one.

    Raises:
        ModelFileError: no such file, or not such a model.
    """
    import keras

    expected = " or ".join(of.__name__ for of in classes)
    try:
        model = keras.saving.load_model(path, compile=compile)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise ModelFileError(
            f"{path}: expected a saved {expected}, received {brief(error)}; correct the path, or "
            "train again."
        ) from None
    if not isinstance(model, classes):
        raise ModelFileError(
            f"{path}: expected a saved {expected}, received a {type(model).__name__}; give another "
            "file, or train again."
        )
    return model
