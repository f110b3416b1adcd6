"""Settings of how and where a training runs."""

from typing import Literal

from kerasmed.settings import Section

Distribution = Literal["none", "mirrored", "multi_worker"]


class RuntimeConfig(Section):
    """How the arithmetic is done. `auto` is resolved on the machine and recorded."""

    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = "auto"
    jit_compile: Literal["auto"] | bool = "auto"
    # "mirrored" divides every training batch among the devices of this machine, "multi_worker"
    # among those of all workers that TF_CONFIG names.
    distribution: Distribution = "none"
