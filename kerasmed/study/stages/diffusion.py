"""The stages that train what draws images: the diffusion model and the upscaler."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasmed.diffusion.config import TrainingConfig
from kerasmed.errors import ConfigError
from kerasmed.parallel.resolve import RuntimeRecord, resolve_runtime
from kerasmed.parallel.workers import this_worker
from kerasmed.progress import say
from kerasmed.result_types import NotNegative, Whole
from kerasmed.settings import Count
from kerasmed.study.cascade import at_size
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_split
from kerasmed.study.run_folder import RunFolder

if TYPE_CHECKING:
    from kerasmed.diffusion.denoising_model import DenoisingModel
    from kerasmed.parallel.resolve import Runtime


class DiffusionResult(RuntimeRecord):
    """What ``run.json`` records of the training of the diffusion model, or of the upscaler."""

    parameters: Count
    """Number of parameters."""
    gflop_per_image: NotNegative
    """Arithmetic of one forward pass, in 10^9 operations; of the upscaler, over one crop."""
    steps: Count
    """Number of training steps."""
    minutes: NotNegative
    """Duration of the training, without interruptions."""
    images_per_s: NotNegative
    """Images or crops per second, the median over the checkpoints."""
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
    from kerasmed.diffusion.model import DiffusionModel

    return _train(
        DiffusionModel, config.diffusion, config.base_size, runtime, config, run, run.diffusion
    )


def train_upscaler(config: Config, run: RunFolder) -> dict[str, Any]:
    """Train the upscaler as ``train_diffusion`` trains the denoiser.

    Raises:
        ConfigError: the study has no upscaler.
    """
    if not config.is_cascade:
        raise ConfigError(f"This study has no upscaler: {_why_none(config)}.")
    runtime = resolve_runtime(config.runtime)
    from kerasmed.diffusion.upscaler import Upscaler

    size, settings = config.data.image_size, config.upscaler.of_network()
    return _train(Upscaler, settings, size, runtime, config, run, run.upscaler)


def _why_none(config: Config) -> str:
    if config.sampling.source is not None:
        return f"its synthetic images come from sampling.source {config.sampling.source}"
    return (
        f"the diffusion model draws images of {config.data.image_size} pixels itself; set "
        "upscaler.use: always, or a data.image_size above 128"
    )


def _train(
    kind: "type[DenoisingModel]",
    settings: TrainingConfig,
    image_size: int,
    runtime: "Runtime",
    config: Config,
    run: RunFolder,
    folder: Path,
) -> dict[str, Any]:
    """Train a model on images of this size, and export it to the folder."""
    from kerasmed.diffusion.training import train_model

    image_set, split = load_split(config, run)
    result = train_model(
        kind,
        at_size(image_set.subset(split["train"]), image_size),
        at_size(image_set.subset(split["validation"]), image_size),
        settings,
        config.data.symmetry,
        config.seed,
        runtime,
        folder,
    )
    if not this_worker().is_chief:
        return {}
    path = folder / f"{kind.FILE}.onnx"
    if runtime.backend == "tensorflow":
        from kerasmed.runtime.backend import load_saved_model

        load_saved_model(path.with_suffix(".keras"), kind).export(
            path, data_hash=image_set.data_hash
        )
    else:
        path.unlink(missing_ok=True)  # from an earlier training
        say(f"{path.name} was not written: the export needs the TensorFlow backend.")
    return result
