"""Training the networks of a study that draw images, which can be interrupted at any moment."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed.data.image_set import ImageSet
from kerasmed.diffusion.config import TrainingConfig
from kerasmed.diffusion.denoising_model import DenoisingModel
from kerasmed.diffusion.model import DiffusionModel
from kerasmed.diffusion.preview import Preview, UpscalingPreview
from kerasmed.diffusion.recorder import Recorder
from kerasmed.errors import ModelFileError
from kerasmed.files import written_aside
from kerasmed.parallel.devices import (
    check_batch,
    mirrored_variables,
    on_all_devices,
    on_one_device,
)
from kerasmed.parallel.resolve import Runtime
from kerasmed.parallel.workers import this_worker
from kerasmed.progress import progress_bar, say
from kerasmed.runtime.backend import load_saved_model

# `fit` counts its epochs; the recorder ends the training.
_ENDLESS = 10**9


def train_model(
    kind: type[DenoisingModel],
    train: ImageSet,
    validation: ImageSet,
    settings: TrainingConfig,
    symmetry: str,
    seed: int,
    runtime: Runtime,
    folder: Path,
) -> dict[str, Any]:
    """Train, and write the model with its best averaged weights to the folder.

    The best have the lowest loss on the validation images. The file is ``denoiser.keras`` or
    ``upscaler.keras``. The folder also receives ``history.csv``, ``previews/`` and
    ``checkpoints/``; an interrupted training resumes from the last checkpoint. With several workers
    on one folder, only the chief writes there.

    Args:
        kind: ``DiffusionModel`` or ``Upscaler``.
        train: images to learn from.
        validation: similar images, which choose the best averaged weights.
        settings: network and recipe.
        symmetry: flips and turns to draw from, see ``data.symmetry``.
        seed: seed of weights, order, noise and timesteps.
        runtime: precision, XLA and devices, resolved.
        folder: the run folder's ``diffusion/`` or ``upscaler/``.

    Returns:
        What ran when the training finished (backend, device, precision, XLA), parameters, steps,
        images per second, minutes and losses; empty on a worker that is not the chief.

    Raises:
        ConfigError: the batch size is not a multiple of the number of devices.
        StageError: a checkpoint of another network, recipe or image set; no readable checkpoint;
            an incomplete history; workers with different recipes; or a loss that is not finite.
    """
    created = time.monotonic()
    check_batch(settings.batch_size, runtime, f"{settings.SECTION}.batch_size")
    with on_all_devices(runtime.distribution):
        with mirrored_variables(runtime.distribution):
            model = kind(
                train.image_size, train.class_names, settings, symmetry, seed,
                dtype=runtime.precision,
            )  # fmt: skip
            model.compile(jit_compile=runtime.jit_compile)
        model.adapt(train)
        gflop = model.forward_flops() / 1e9
        ran = {
            **runtime.as_record(),
            "precision": model.dtype_policy.name,
            "jit_compile": bool(model.jit_compile),
        }
        say(
            f"{kind.FILE.capitalize()}: {model.count_params():,} parameters, {gflop:.2f} GFLOP per "
            f"{kind.LEARNS_FROM} and forward pass, {len(train)} images, batch "
            f"{settings.batch_size}, {ran['precision']}, XLA "
            f"{'on' if ran['jit_compile'] else 'off'}, {runtime.backend} on {runtime.device}."
        )
        preview = (
            Preview(folder / "previews", train=train, validation=validation)
            if kind is DiffusionModel
            else UpscalingPreview(folder / "previews", validation)
        )
        recorder = Recorder(folder, settings, len(train), preview, ran, created)
        with progress_bar(f"Training the {kind.FILE}", 100, "%") as recorder.advance:
            model.fit(
                train,
                epochs=_ENDLESS,
                verbose=0,
                callbacks=[recorder],
                validation_data=validation,
                steps_per_epoch=settings.checkpoint_steps,
            )
        if not this_worker().is_chief:
            return {}
        with on_one_device():  # the other workers have returned
            summary = recorder.take_best(model)
            _save(model, folder / f"{kind.FILE}.keras")
        say(
            f"Saved EMA weights from step {summary['exported_step']} (best validation loss "
            f"{summary['validation_loss']:.4f}); {summary['images_per_s']:.0f} images/s (median)."
        )
        if summary["first_step_s"] is None:  # it finished earlier, perhaps on another machine
            ran = recorder.ran_before or ran
        return {
            **ran,
            "parameters": model.count_params(),
            "gflop_per_image": round(gflop, 4),
            **summary,
        }


def _save(model: DenoisingModel, path: Path) -> None:
    """Save a model with its best average, in float32 and without its optimiser.

    A file that holds the same average already stays as it is. Otherwise its hash would change, and
    later stages would take it for another network.
    """
    averages = model.inference_network().get_weights()
    with suppress(ModelFileError):
        saved = load_saved_model(path, type(model)).inference_network().get_weights()
        if len(saved) == len(averages) and all(map(np.array_equal, saved, averages)):
            return
    with written_aside(path) as temporary:
        model.uncompiled().save(temporary)
