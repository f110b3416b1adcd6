"""The devices, precision and XLA of a training, with every `auto` resolved."""

from dataclasses import dataclass
from functools import cache

from typing_extensions import TypedDict

from kerasmed.parallel.config import Distribution, RuntimeConfig
from kerasmed.parallel.workers import strategy, this_worker
from kerasmed.progress import say
from kerasmed.runtime.backend import list_devices, list_gpus, load_keras
from kerasmed.runtime.hardware import cpu_cores, cpu_multiplies
from kerasmed.settings import Count


class RuntimeRecord(TypedDict):
    """What a training ran with."""

    backend: str
    """Backend of Keras."""
    device: str
    """Number of GPUs, or of cores of the CPU."""
    precision: str
    """Precision policy of Keras."""
    jit_compile: bool
    """Whether XLA compiled the training step."""
    distribution: Distribution
    """How the training was divided."""
    replicas: Count
    """Number of devices that trained together."""
    workers: Count
    """Number of processes that trained together."""


@dataclass(frozen=True)
class Runtime:
    """What a training runs with, every `auto` resolved."""

    backend: str
    device: str
    precision: str
    jit_compile: bool
    distribution: Distribution = "none"
    replicas: int = 1
    workers: int = 1

    def as_record(self) -> RuntimeRecord:
        """Plain values for the run record."""
        return {
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "jit_compile": self.jit_compile,
            "distribution": self.distribution,
            "replicas": self.replicas,
            "workers": self.workers,
        }


def resolve_runtime(settings: RuntimeConfig, cpu_bfloat16: bool = True) -> Runtime:
    """The runtime that the settings mean on this machine; prints what it had to change.

    `auto` precision is mixed_bfloat16 on any GPU that Keras lists, and on a CPU that multiplies
    bfloat16 (avx512_bf16 or amx_bf16), else float32. `auto` XLA is on with a GPU and on JAX, and
    off for TensorFlow on a CPU, where it gained nothing.

    Args:
        settings: the requested runtime.
        cpu_bfloat16: whether `auto` may choose bfloat16 on a CPU. On two cores it trained the
            denoiser a quarter faster, and MobileNet a tenth slower.
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
        _say_once(f"{name} under TensorFlow: XLA is off, since Keras does not combine the two.")
        jit_compile = False
    over_workers = strategy() if name == "multi_worker" else None
    replicas = over_workers.num_replicas_in_sync if over_workers else len(list_devices())
    workers = len(this_worker().addresses)
    _say_once(f"{name}: every batch is divided among {replicas} devices of {workers} process(es).")
    return Runtime(backend, device, precision, jit_compile, name, replicas, workers)


@cache
def _say_once(text: str) -> None:
    """Print once a process: a shard that waits resolves its runtime at every check."""
    say(text)
