"""How the arithmetic is done on this machine: backend, precision, XLA, and the record of it.

Keras is imported inside functions, since importing it loads the backend.
"""

import logging
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata

from kerasmed.config import Distribution, RuntimeConfig
from kerasmed.errors import ConfigError
from kerasmed.hardware import cpu_multiplies, thread_limit
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
    device = f"{len(devices)} x GPU" if devices else f"CPU, {os.cpu_count()} cores"
    backend = keras.backend.backend()
    if settings.distribution == "none":
        return Runtime(backend, device, precision, jit_compile)
    name = settings.distribution
    if backend not in ("tensorflow", "jax"):
        raise ConfigError(
            f"runtime.distribution: {name} works on TensorFlow and JAX, received {backend}; set "
            "KERAS_BACKEND, or runtime.distribution: none."
        )
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
    """Import Keras and its backend without TensorFlow's start-up notices on the terminal.

    TensorFlow 2.21 writes some of them before it reads TF_CPP_MIN_LOG_LEVEL, so stderr is turned
    aside while it starts, and shown after all if the import fails. What goes wrong later still
    comes as a Python exception.

    Args:
        worker: this process, where several train one network: it meets the others first.
    """
    if worker is not None:
        announce(worker)
    elif "keras" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if threads := thread_limit():  # which TensorFlow does not look at
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(threads))
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        failed = True
        try:
            import keras

            if worker is not None:
                join(worker)
            keras.distribution.list_devices()
            failed = False
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            if failed:
                aside.seek(0)
                sys.stderr.write(aside.read().decode(errors="replace"))
    # Several networks in one process are traced one after the other, which it warns of.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


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
