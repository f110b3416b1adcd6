"""The stage that trains the diffusion model."""

from typing import Any

from kerasmed.parallel.resolve import resolve_runtime
from kerasmed.parallel.workers import this_worker
from kerasmed.progress import say
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_split
from kerasmed.study.run_folder import RunFolder


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
