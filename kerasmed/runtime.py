"""How the arithmetic is done on this machine: backend, precision, XLA, and the record of it.

Keras is imported inside functions, since importing it loads the backend.
"""

import importlib
import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata

from kerasmed.config import Distribution, RuntimeConfig
from kerasmed.errors import KerasmedError, MachineError, brief
from kerasmed.hardware import cpu_cores, cpu_multiplies, thread_limit
from kerasmed.keras_settings import (
    check_loaded,
    hidden_settings,
    requested_backend,
    settings_of_file,
)
from kerasmed.progress import say
from kerasmed.workers import Worker, announce, join, joined, strategy

# Packages whose versions can change a figure.
_RECORDED = (
    *("kerasmed", "tensorflow", "jax", "torch", "keras", "keras-cv", "numpy", "pillow", "scipy"),
    *("scikit-learn", "scikit-image", "lime", "onnx", "tf2onnx", "onnxruntime-gpu", "onnxruntime"),
)


@dataclass(frozen=True)
class Runtime:
    """What a training really runs with, every `auto` resolved."""

    backend: str
    device: str
    precision: str
    jit_compile: bool
    distribution: Distribution = "none"
    replicas: int = 1
    workers: int = 1

    @property
    def on_gpu(self) -> bool:
        """Whether Keras computes on a GPU."""
        return self.device.endswith("GPU")

    def as_record(self) -> dict[str, object]:
        """Plain values for the run record."""
        return asdict(self)


def resolve_runtime(settings: RuntimeConfig, cpu_bfloat16: bool = True) -> Runtime:
    """The runtime that the settings mean on this machine; says what does not go together there.

    `auto` precision is mixed_bfloat16 on any GPU that Keras lists, and on a CPU that multiplies
    bfloat16 (avx512_bf16 or amx_bf16), else float32. `auto` XLA is on with a GPU and on JAX, and
    off for TensorFlow on a CPU, where it gave nothing.

    Args:
        settings: what was asked for.
        cpu_bfloat16: whether `auto` may choose bfloat16 on a CPU. Training images a second on two
            cores rose by a quarter for the denoiser, and fell by a tenth for MobileNet.
    """
    load_keras()
    import keras

    devices = list_gpus()
    precision = settings.precision
    if precision == "auto":
        on_cpu = cpu_bfloat16 and cpu_multiplies("avx512_bf16", "amx_bf16")
        precision = "mixed_bfloat16" if devices or on_cpu else "float32"
    # Without XLA Keras runs JAX operation by operation.
    xla = bool(devices) or keras.backend.backend() == "jax"
    jit_compile = xla if settings.jit_compile == "auto" else settings.jit_compile
    device = f"{len(devices)} x GPU" if devices else f"CPU, {cpu_cores()} cores"
    backend = keras.backend.backend()
    if settings.distribution == "none":
        return Runtime(backend, device, precision, jit_compile)
    name = settings.distribution
    if backend == "tensorflow" and precision == "mixed_float16":
        _say_once(
            f"{name} under TensorFlow: mixed_bfloat16 for mixed_float16, whose loss scaling fails."
        )
        precision = "mixed_bfloat16"
    if backend == "tensorflow" and jit_compile:
        _say_once(f"{name} under TensorFlow: XLA is off, which Keras does not combine with it.")
        jit_compile = False
    over_workers = strategy() if name == "multi_worker" else None
    replicas = over_workers.num_replicas_in_sync if over_workers else len(list_devices())
    workers = len(joined().addresses)
    _say_once(f"{name}: every batch is divided among {replicas} devices of {workers} process(es).")
    return Runtime(backend, device, precision, jit_compile, name, replicas, workers)


@cache
def _say_once(text: str) -> None:
    """Once a process: a part that waits for others resolves this anew at every look."""
    say(text)


def list_gpus() -> list[str]:
    """The GPUs that Keras computes on, by its names; JAX without one has no list of them alone."""
    import keras

    return [name for name in keras.distribution.list_devices() if name.startswith(("gpu", "cuda"))]


def list_devices() -> list[str]:
    """What a training may be spread over: the GPUs, or without any the CPUs, mostly one."""
    import keras

    return list_gpus() or keras.distribution.list_devices()


def load_keras(worker: Worker | None = None) -> None:
    """Import Keras and its backend, with kerasmed's settings and no start-up notices.

    Args:
        worker: this process, where several train one network: it meets the others first.

    Raises:
        ConfigError: kerasmed does not work on this backend, or another program has imported Keras
            with other settings.
        MachineError: the backend is not installed, or does not start.
    """
    if worker is not None:
        announce(worker)
    loaded = "keras" in sys.modules
    backend = check_loaded() if loaded else requested_backend()
    if loaded and worker is None:
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
            if worker is not None:
                join(worker)
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


def versions() -> dict[str, str]:
    """Installed versions of the packages that figures depend on, and of Python."""
    found = {"python": platform.python_version()}
    for name in _RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
