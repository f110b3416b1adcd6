"""Training the denoiser."""

import time
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np

from kerasmed.data.image_set import ImageSet
from kerasmed.diffusion.batches import NoisyBatches
from kerasmed.diffusion.checkpoints import Checkpoints
from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.diffusion.cost import forward_flops
from kerasmed.diffusion.optimizer import EmaAdamW
from kerasmed.diffusion.recorder import Recorder
from kerasmed.diffusion.unet import build_denoiser
from kerasmed.files import written_aside
from kerasmed.inference.pixels import PixelRange
from kerasmed.parallel.devices import (
    check_batch,
    fit,
    mirrored_variables,
    on_all_devices,
    on_one_device,
)
from kerasmed.parallel.resolve import Runtime
from kerasmed.parallel.workers import check_agreed, joined, of_chief
from kerasmed.progress import progress_bar, say
from kerasmed.random_streams import Purpose, derived_seed
from kerasmed.runtime.backend import precision_policy
from kerasmed.runtime.hardware import cpu_cores

# `fit` counts its epochs; the recorder ends the training.
_ENDLESS = 10**9


def train_denoiser(
    train: ImageSet,
    validation: ImageSet,
    settings: DiffusionConfig,
    symmetry: str,
    seed: int,
    runtime: Runtime,
    folder: Path,
) -> dict[str, Any]:
    """Train, and leave ``denoiser.keras`` in the folder: float32, the best average of the weights.

    The best is the one with the lowest loss on the validation images. Beside it: ``history.csv``,
    ``previews/`` and ``checkpoints/``, from the last of which an interrupted training goes on. Of
    several workers, which share the folder, the chief alone writes there.

    Args:
        train: images to learn from.
        validation: images of the same kind, by which the best average is chosen.
        settings: network and recipe.
        symmetry: flips and turns to draw from, see ``data.symmetry``.
        seed: of weights, order, noise and timesteps.
        runtime: precision and XLA, resolved.
        folder: the run folder's ``diffusion/``.

    Returns:
        What really ran, here or where the training was finished: backend, device, precision, XLA;
        parameters, steps, images a second, minutes, losses; nothing on a worker that is not the
        chief.

    Raises:
        ConfigError: a batch does not divide among the devices.
        StageError: a checkpoint of another network, recipe or set of images, checkpoints of which
            none can be read, a history that is not whole, workers with different recipes, or a
            loss that is not finite.
    """
    created = time.monotonic()
    check_batch(settings.batch_size, runtime, "diffusion.batch_size")
    with on_all_devices(runtime.distribution):
        keras.utils.set_random_seed(derived_seed(seed, Purpose.DENOISER_WEIGHTS))
        num_classes = len(train.class_names)
        pixels = PixelRange.of(train.images)
        with mirrored_variables(runtime.distribution):
            model, optimizer = _compiled(train, settings, pixels, runtime)
        with precision_policy("float32"), on_one_device():
            averaged = build_denoiser(train.image_size, num_classes, settings, pixels)
            averaged.jit_compile = runtime.jit_compile  # which `predict` would choose itself
        recipe = _recipe(train, validation, settings, symmetry, seed, runtime)
        check_agreed({**recipe, **settings.model_dump()})
        ran = {
            **runtime.as_record(),
            "precision": model.dtype_policy.name,
            "jit_compile": bool(model.jit_compile),
        }
        checkpoints = Checkpoints(folder / "checkpoints", recipe, ran)
        done, seconds, ran_before = checkpoints.restore(model)
        worker = joined()
        recorder = Recorder(
            folder, settings, train, validation, symmetry, seed,
            averaged, optimizer, checkpoints, done, seconds, created,
        )  # fmt: skip
        flops = forward_flops(model)
        say(
            f"Denoiser: {model.count_params():,} parameters, {flops / 1e9:.2f} GFLOP an image "
            f"forward, {len(train)} images, batch {settings.batch_size}, {runtime.precision}, XLA "
            f"{'on' if model.jit_compile else 'off'}, "
            f"{runtime.backend} on {runtime.device}; from step {done} on, to {settings.budget()}."
        )
        if not of_chief(recorder.finished(done))[0]:
            with progress_bar("Training the denoiser", 100, "%") as recorder.advance:
                place = (worker.index, len(worker.addresses))
                fit(
                    model,
                    NoisyBatches(
                        train, pixels, settings, symmetry, seed, done, _threads(runtime), place
                    ),
                    [recorder],
                    steps_per_epoch=settings.checkpoint_steps,
                    initial_epoch=done // settings.checkpoint_steps,
                    epochs=_ENDLESS,
                )
        if not worker.is_chief:
            return {}
        summary = recorder.take_best()
        if not _is_kept(averaged, folder / "denoiser.keras"):
            with written_aside(folder / "denoiser.keras") as temporary:
                averaged.save(temporary)
        if summary["first_step_s"] is None:  # perhaps on another machine
            ran = ran_before or ran
        say(
            f"{summary['images_per_s']:.0f} images/s in the median; exported the average at step "
            f"{summary['exported_step']}, validation loss {summary['validation_loss']:.4f}, the "
            "lowest that was kept."
        )
        return {
            **ran,
            "parameters": model.count_params(),
            "gflop_per_image": round(flops / 1e9, 4),
            **summary,
        }


def _compiled(
    train: ImageSet, settings: DiffusionConfig, pixels: PixelRange, runtime: Runtime
) -> tuple[keras.Model, EmaAdamW]:
    """The network to train, with its optimiser built."""
    with precision_policy(runtime.precision):
        model = build_denoiser(
            train.image_size,
            len(train.class_names),
            settings,
            pixels,
            augmented=settings.augment > 0,
        )
    optimizer = EmaAdamW(
        ema_decay=settings.ema_decay,
        warmup_steps=settings.warmup_steps,
        learning_rate=settings.learning_rate,
        decay=settings.weight_decay,
        global_clipnorm=settings.clip_norm,
    )
    # Under mixed_float16 Keras puts a loss-scaling optimiser around this one.
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.MeanSquaredError(),
        jit_compile=runtime.jit_compile,
    )
    model.optimizer.build(model.trainable_variables)
    return model, optimizer


def _is_kept(model: keras.Model, path: Path) -> bool:
    """Whether a file holds these weights already; saved again it would pass for another network."""
    if not path.exists():
        return False
    try:
        kept = keras.saving.load_model(path, compile=False).get_weights()
    except (OSError, ValueError, KeyError, TypeError, BadZipFile):
        return False
    weights = model.get_weights()
    return len(kept) == len(weights) and all(map(np.array_equal, kept, weights))


def _threads(runtime: Runtime) -> int:
    """Threads that make batches: one makes 4,000 images of 64 pixels a second."""
    return min(4, cpu_cores()) if runtime.on_gpu else 1


def _recipe(
    train: ImageSet,
    validation: ImageSet,
    settings: DiffusionConfig,
    symmetry: str,
    seed: int,
    runtime: Runtime,
) -> dict[str, Any]:
    """What must be the same for a training to go on.

    Budget and previews may change, and so may the backend: TensorFlow exports what JAX trained.
    """
    return {
        **settings.model_dump(exclude=settings.BUDGET | {"preview_every"}),
        "seed": seed,
        "symmetry": symmetry,
        "data_hash": train.data_hash,
        "validation_hash": validation.data_hash,
        "image_size": train.image_size,
        "precision": runtime.precision,
    }
