"""Settings of a training's precision, compilation and devices."""

from typing import Literal

from kerasmed.settings import Section

Distribution = Literal["none", "mirrored", "multi_worker"]


class RuntimeConfig(Section):
    """Precision, compilation and devices. `auto` is resolved on the machine and recorded."""

    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = "auto"
    """Precision of the training. "auto" takes the fastest that the machine runs well."""
    jit_compile: Literal["auto"] | bool = "auto"
    """Whether XLA compiles the training."""
    distribution: Distribution = "none"
    """"mirrored" divides every training batch among the devices of this machine, "multi_worker"
    among those of all workers in TF_CONFIG."""
