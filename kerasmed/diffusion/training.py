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
from kerasmed.fingerprint import Fingerprint
from kerasmed.inference.pixels import PixelRange
from kerasmed.parallel.devices import (
    check_batch,
    fit,
    mirrored_variables,
    on_all_devices,
    on_one_device,
)
from kerasmed.parallel.resolve import Runtime
from kerasmed.parallel.workers import check_agreed, from_chief, this_worker
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
    """Train, and write ``denoiser.keras`` into the folder: float32, the best averaged weights.

    The best have the lowest loss on the validation images. The folder also receives
    ``history.csv``, ``previews/`` and ``checkpoints/``; an interrupted training resumes from the
    last checkpoint. With several workers on one folder, only the chief writes there.

    Args:
        train: images to learn from.
        validation: similar images, which choose the best averaged weights.
        settings: network and recipe.
        symmetry: flips and turns to draw from, see ``data.symmetry``.
        seed: seed of weights, order, noise and timesteps.
        runtime: precision, XLA and devices, resolved.
        folder: the run folder's ``diffusion/``.

    Returns:
        What ran when the training finished (backend, device, precision, XLA), parameters, steps,
        images per second, minutes and losses; empty on a worker that is not the chief.

    Raises:
        ConfigError: the batch size is not a multiple of the number of devices.
        StageError: a checkpoint of another network, recipe or image set; no readable checkpoint;
            an incomplete history; workers with different recipes; or a loss that is not finite.
    """
    created = time.monotonic()
    check_batch(settings.batch_size, runtime, "diffusion.batch_size")
    pixels = PixelRange.of(train.images)
    with on_all_devices(runtime.distribution):
        model, optimizer, averaged = _build_networks(train, settings, pixels, seed, runtime)
        recipe = _recipe(train, validation, settings, symmetry, seed, runtime)
        everything = {**recipe.settings, "diffusion": settings.model_dump()}
        check_agreed(Fingerprint(everything, recipe.inputs))
        ran = _ran(model, runtime)
        checkpoints = Checkpoints(folder / "checkpoints", recipe, ran)
        step, seconds, ran_before = checkpoints.restore(model)
        recorder = Recorder(
            folder, settings, train, validation, symmetry, seed,
            averaged, optimizer, checkpoints, step, seconds, created,
        )  # fmt: skip
        _announce(model, train, settings, runtime, step)
        shard = (this_worker().index, len(this_worker().addresses))
        threads = _threads(runtime)
        batches = NoisyBatches(train, pixels, settings, symmetry, seed, step, threads, shard)
        _fit(model, batches, recorder, step)
        if not this_worker().is_chief:
            return {}
        summary = _save_best(recorder, folder / "denoiser.keras")
        if summary["first_step_s"] is None:  # it finished earlier, perhaps on another machine
            ran = ran_before or ran
        gflop = round(forward_flops(model) / 1e9, 4)
        return {**ran, "parameters": model.count_params(), "gflop_per_image": gflop, **summary}


def _build_networks(
    train: ImageSet, settings: DiffusionConfig, pixels: PixelRange, seed: int, runtime: Runtime
) -> tuple[keras.Model, EmaAdamW, keras.Model]:
    """The network to train with its optimiser, and a float32 network for the averaged weights."""
    keras.utils.set_random_seed(derived_seed(seed, Purpose.DENOISER_WEIGHTS))
    with mirrored_variables(runtime.distribution):
        model, optimizer = _compiled(train, settings, pixels, runtime)
    with precision_policy("float32"), on_one_device():
        averaged = build_denoiser(train.image_size, len(train.class_names), settings, pixels)
        averaged.jit_compile = runtime.jit_compile  # otherwise `predict` would choose
    return model, optimizer, averaged


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
        weight_decay=settings.weight_decay,
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


def _ran(model: keras.Model, runtime: Runtime) -> dict[str, Any]:
    """Backend, device, precision and XLA of this process."""
    return {
        **runtime.as_record(),
        "precision": model.dtype_policy.name,
        "jit_compile": bool(model.jit_compile),
    }


def _announce(
    model: keras.Model, train: ImageSet, settings: DiffusionConfig, runtime: Runtime, step: int
) -> None:
    say(
        f"Denoiser: {model.count_params():,} parameters, {forward_flops(model) / 1e9:.2f} GFLOP "
        f"per image and forward pass, {len(train)} images, batch {settings.batch_size}, "
        f"{runtime.precision}, XLA {'on' if model.jit_compile else 'off'}, "
        f"{runtime.backend} on {runtime.device}; from step {step} on, for at most "
        f"{settings.budget()}."
    )


def _fit(model: keras.Model, batches: NoisyBatches, recorder: Recorder, step: int) -> None:
    """Train until the recorder ends it; not at all if the training has already finished."""
    if from_chief(recorder.finished(step))[0]:
        return
    steps_per_epoch = recorder.settings.checkpoint_steps
    with progress_bar("Training the denoiser", 100, "%") as recorder.advance:
        fit(
            model,
            batches,
            [recorder],
            steps_per_epoch=steps_per_epoch,
            initial_epoch=step // steps_per_epoch,
            epochs=_ENDLESS,
        )


def _save_best(recorder: Recorder, path: Path) -> dict[str, Any]:
    """Save the best averaged weights; returns the recorder's summary."""
    summary = recorder.take_best()
    averaged = recorder.averaged
    if not _is_saved(averaged, path):
        with written_aside(path) as temporary:
            averaged.save(temporary)
    say(
        f"Exported EMA weights from step {summary['exported_step']} (best validation loss "
        f"{summary['validation_loss']:.4f}); {summary['images_per_s']:.0f} images/s (median)."
    )
    return summary


def _is_saved(model: keras.Model, path: Path) -> bool:
    """Whether the file already holds these weights.

    Saving them again would change the file's hash, and later stages would take it for another
    network.
    """
    if not path.exists():
        return False
    try:
        saved = keras.saving.load_model(path, compile=False).get_weights()
    except (OSError, ValueError, KeyError, TypeError, BadZipFile):
        return False
    weights = model.get_weights()
    return len(saved) == len(weights) and all(map(np.array_equal, saved, weights))


def _threads(runtime: Runtime) -> int:
    """Number of threads that make batches: one makes 4,000 images of 64 pixels per second."""
    return min(4, cpu_cores()) if runtime.on_gpu else 1


def _recipe(
    train: ImageSet,
    validation: ImageSet,
    settings: DiffusionConfig,
    symmetry: str,
    seed: int,
    runtime: Runtime,
) -> Fingerprint:
    """Settings and images that must not change when a training resumes.

    Budget and previews may change, and so may the backend: TensorFlow exports what JAX trained.
    """
    return Fingerprint(
        {
            "seed": seed,
            "data": {"symmetry": symmetry, "image_size": train.image_size},
            "diffusion": settings.model_dump(exclude=settings.BUDGET | {"preview_every"}),
            "runtime": {"precision": runtime.precision},
        },
        {"training images": train.data_hash, "validation images": validation.data_hash},
    )
