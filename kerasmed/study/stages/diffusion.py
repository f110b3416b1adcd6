"""The stage that trains the diffusion model."""

from typing import Any

from kerasmed.parallel.resolve import RuntimeRecord, resolve_runtime
from kerasmed.parallel.workers import this_worker
from kerasmed.progress import say
from kerasmed.result_types import NotNegative, Whole
from kerasmed.settings import Count
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_split
from kerasmed.study.run_folder import RunFolder


class DiffusionResult(RuntimeRecord):
    """What ``run.json`` records of the diffusion training."""

    parameters: Count
    """Number of parameters."""
    gflop_per_image: NotNegative
    """Arithmetic of one forward pass, in 10^9 operations."""
    steps: Count
    """Number of training steps."""
    minutes: NotNegative
    """Duration of the training, without interruptions."""
    images_per_s: NotNegative
    """Images per second, the median over the checkpoints."""
    first_step_s: NotNegative | None
    """Seconds until the first step was done; null where the training had already finished."""
    loss: NotNegative
    """Training loss at the last checkpoint."""
    exported_step: Whole
    """Step of the exported average of the weights."""
    validation_loss: NotNegative
    """Its loss on the validation images, the lowest."""


def train_diffusion(config: Config, run: RunFolder) -> dict[str, Any]:
    """Train the denoiser on the role `train`, and export it if the backend is TensorFlow.

    All workers train together, and only the chief writes.
    """
    runtime = resolve_runtime(config.runtime)
    from kerasmed.diffusion.training import train_denoiser

    image_set, split = load_split(config, run)
    result = train_denoiser(
        image_set.subset(split["train"]),
        image_set.subset(split["validation"]),
        config.diffusion,
        config.data.symmetry,
        config.seed,
        runtime,
        run.diffusion,
    )
    if not this_worker().is_chief:
        return {}
    if runtime.backend == "tensorflow":
        from kerasmed.diffusion.model import load_diffusion_model

        model = load_diffusion_model(run.diffusion / "denoiser.keras")
        model.export(run.diffusion / "denoiser.onnx", data_hash=image_set.data_hash)
    else:
        (run.diffusion / "denoiser.onnx").unlink(missing_ok=True)  # from an earlier training
        say("denoiser.onnx was not written: the export needs the TensorFlow backend.")
    return result
