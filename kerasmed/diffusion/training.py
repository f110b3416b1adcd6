"""Training the denoiser: optimiser with moving average, checkpoints, history, previews."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np
from keras import ops
from PIL import Image

from kerasmed.config import DiffusionConfig
from kerasmed.data.image_set import ImageSet
from kerasmed.diffusion.batches import NoisyBatches, validation_batch
from kerasmed.diffusion.cost import TRAINING_PASSES, forward_flops, matrix_product_rate
from kerasmed.diffusion.generate import Denoiser, generate_images
from kerasmed.diffusion.unet import build_denoiser
from kerasmed.errors import StageError
from kerasmed.files import read_history, write_text, written_aside
from kerasmed.progress import progress_bar, say
from kerasmed.runtime import Runtime, precision_policy

_PREVIEW_COLUMNS = 4
_KEPT_CHECKPOINTS = 2
_LEAST_RATE = 0.01  # of the learning rate, at the end of the cool-down


@keras.saving.register_keras_serializable("kerasmed")
class EmaAdamW(keras.optimizers.AdamW):
    """AdamW whose rate and moving average of the weights warm up; the average stays apart.

    The decay at step t is min(ema_decay, (1 + t) / (10 + t)), so an early stop still leaves an
    average over about the last tenth of the run. Keras 3.15's own average has one fixed momentum
    and overwrites the raw weights when `fit` ends; both hooks are replaced here.
    """

    def __init__(self, ema_decay: float = 0.999, warmup_steps: int = 1, **kwargs):
        super().__init__(use_ema=True, ema_momentum=ema_decay, **kwargs)
        self.warmup_steps = warmup_steps

    def update_step(self, gradient, variable, learning_rate):
        """One step; the rate rises over the first ``warmup_steps``, and is else set by epoch."""
        step = ops.cast(self.iterations + 1, learning_rate.dtype)
        warmup = ops.minimum(1.0, step / self.warmup_steps)
        super().update_step(gradient, variable, learning_rate * warmup)

    def get_config(self):
        return {**super().get_config(), "warmup_steps": self.warmup_steps}

    def _update_model_variables_moving_average(self, trainable_variables):
        step = ops.cast(self.iterations, "float32")
        decay = ops.minimum(self.ema_momentum, (1.0 + step) / (10.0 + step))
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            average.assign(average + (1.0 - decay) * (ops.cast(variable, "float32") - average))

    def finalize_variable_values(self, var_list):
        """Leave the raw weights as they are."""

    def averaged_weights(self) -> list[np.ndarray]:
        """The moving averages, in the order of the model's trainable variables."""
        return [ops.convert_to_numpy(average) for average in self._model_variables_moving_average]


def new_denoiser(
    image_size: int, num_classes: int, settings: DiffusionConfig, precision: str
) -> keras.Model:
    """An untrained denoiser as the settings describe it."""
    with precision_policy(precision):
        return build_denoiser(
            image_size=image_size,
            num_classes=num_classes,
            widths=settings.widths,
            blocks=settings.blocks,
            patch_size=settings.patch_size,
            predict=settings.predict,
            dropout=settings.dropout,
        )


def keras_denoiser(model: keras.Model) -> Denoiser:
    """The denoiser function of a Keras model."""

    def denoiser(x_t: np.ndarray, timesteps: np.ndarray, labels: np.ndarray) -> np.ndarray:
        inputs = {"noisy_images": x_t, "timesteps": timesteps, "labels": labels}
        return ops.convert_to_numpy(model.predict_on_batch(inputs))

    return denoiser


def train_denoiser(
    train: ImageSet,
    validation: ImageSet,
    settings: DiffusionConfig,
    symmetry: str,
    seed: int,
    runtime: Runtime,
    folder: Path,
) -> dict[str, Any]:
    """Train, and leave ``denoiser.keras`` (averaged weights, float32) in the folder.

    Beside it: ``history.csv``, ``previews/`` and ``checkpoints/``, from the last of which an
    interrupted training goes on.

    Args:
        train: images to learn from.
        validation: images for the validation loss; nothing is chosen by it here.
        settings: network and recipe.
        symmetry: flips and turns to draw from, see ``data.symmetry``.
        seed: of weights, order, noise and timesteps.
        runtime: precision and XLA, resolved.
        folder: the run folder's ``diffusion/``.

    Returns:
        What really ran: precision, XLA, parameters, steps, images a second, minutes, losses.
    """
    keras.utils.set_random_seed(seed)
    num_classes = len(train.class_names)
    model = new_denoiser(train.image_size, num_classes, settings, runtime.precision)
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
    averaged = new_denoiser(train.image_size, num_classes, settings, "float32")
    recipe = {
        # The budget and the previews may change without making it another training.
        **settings.model_dump(exclude={"steps", "max_minutes", "preview_every"}),
        "seed": seed,
        "symmetry": symmetry,
        "data_hash": train.data_hash,
        "image_size": train.image_size,
        "precision": runtime.precision,
        "jit_compile": runtime.jit_compile,
    }
    checkpoints = Checkpoints(folder / "checkpoints", recipe)
    done, seconds = checkpoints.restore(model)
    recorder = _Recorder(
        folder, settings, optimizer, averaged, checkpoints, train, validation, seed, done, seconds
    )
    batches = NoisyBatches(train, settings, symmetry, seed, first_step=done)
    flops = forward_flops(model)
    possible = matrix_product_rate(model.compute_dtype)
    say(
        f"Denoiser: {model.count_params():,} parameters, {flops / 1e9:.2f} GFLOP an image forward "
        f"(matrix products run at {possible / 1e9:.0f} GFLOP/s here), {len(train)} images, batch "
        f"{settings.batch_size}, {runtime.precision}, XLA {'on' if model.jit_compile else 'off'}, "
        f"{runtime.backend} on {runtime.device}; from step {done} to {settings.steps}"
        + (f" or {settings.max_minutes:g} minutes" if settings.max_minutes else "")
        + ". The first step is traced, which takes a while."
    )
    if not recorder.finished(done):
        left = settings.steps - done
        with progress_bar("Training the denoiser", left, "steps") as recorder.advance:
            model.fit(
                batches,
                steps_per_epoch=settings.steps_per_epoch,
                initial_epoch=done // settings.steps_per_epoch,
                epochs=settings.steps // settings.steps_per_epoch,
                callbacks=[recorder],
                shuffle=False,
                verbose=0,
            )
    recorder.use_average()
    with written_aside(folder / "denoiser.keras") as temporary:
        averaged.save(temporary)
    summary = recorder.summary()
    used = TRAINING_PASSES * flops * summary["images_per_s"]
    return {
        "precision": model.dtype_policy.name,
        "jit_compile": bool(model.jit_compile),
        "parameters": model.count_params(),
        "gflop_per_image": round(flops / 1e9, 4),
        "share_of_matrix_product_rate": round(used / possible, 4),
        **summary,
    }


class Checkpoints:
    """All that a training needs to go on, as NumPy archives; the last two are kept.

    Keras's own would lose the state of dropout's generators and the averages' place.
    """

    def __init__(self, folder: Path, recipe: dict[str, Any]):
        self.folder = folder
        self.recipe = recipe

    def save(self, model: keras.Model, step: int, seconds: float) -> None:
        """Write the raw weights, the optimiser with its averages, and the step."""
        arrays = {
            f"{kind}{i}": ops.convert_to_numpy(variable)
            for kind, variables in (("m", model.variables), ("o", model.optimizer.variables))
            for i, variable in enumerate(variables)
        }
        meta = json.dumps({"step": step, "seconds": seconds, "recipe": self.recipe})
        with written_aside(self.folder / f"step-{step:08d}.npz") as temporary:
            np.savez(temporary, meta=meta, **arrays)
        for old in sorted(self.folder.glob("step-*.npz"))[:-_KEPT_CHECKPOINTS]:
            old.unlink()

    def restore(self, model: keras.Model) -> tuple[int, float]:
        """Load the newest checkpoint that can be read into a compiled model.

        Returns:
            Step and seconds of training so far; 0 and 0.0 where there is no checkpoint.

        Raises:
            StageError: the checkpoint belongs to another network or recipe.
        """
        for path in sorted(self.folder.glob("step-*.npz"), reverse=True):
            try:
                with path.open("rb") as stream, np.load(stream) as archive:
                    meta = json.loads(str(archive["meta"]))
                    arrays = {name: archive[name] for name in archive.files if name != "meta"}
            except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
                say(f"Checkpoint {path} is not readable ({error}); trying the one before.")
                continue
            self._check_recipe(path, meta["recipe"])
            for kind, variables in (("m", model.variables), ("o", model.optimizer.variables)):
                for i, variable in enumerate(variables):
                    variable.assign(arrays[f"{kind}{i}"])
            return int(meta["step"]), float(meta["seconds"])
        return 0, 0.0

    def describe_last(self) -> str:
        """Which checkpoint is the newest, in words."""
        kept = sorted(self.folder.glob("step-*.npz"))
        return f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was reached"

    def _check_recipe(self, path: Path, recipe: dict) -> None:
        for key, value in self.recipe.items():
            if recipe.get(key) != value:
                raise StageError(
                    f"{path} was made with {key} {recipe.get(key)}, received {value}; "
                    f"take that back, use another --out, or delete {self.folder}."
                )


class _Recorder(keras.callbacks.Callback):
    """After every epoch: validation loss of the average, history row, checkpoint, preview, stop."""

    def __init__(
        self,
        folder: Path,
        settings: DiffusionConfig,
        optimizer: EmaAdamW,
        averaged: keras.Model,
        checkpoints: Checkpoints,
        train: ImageSet,
        validation: ImageSet,
        seed: int,
        steps_before: int,
        seconds_before: float,
    ):
        super().__init__()
        self.folder = folder
        self.settings = settings
        self.optimizer = optimizer
        self.averaged = averaged
        self.checkpoints = checkpoints
        self.num_classes = len(train.class_names)
        self.image_size = train.image_size
        self.seed = seed
        self.validation = validation_batch(validation, settings, seed)
        self.seconds_before = seconds_before
        history = read_history(folder / "history.csv")
        rows = ({key: float(value) for key, value in row.items()} for row in history)
        self.rows = [row for row in rows if row["step"] <= steps_before]
        self.advance: Callable[[int, str], None]

    def finished(self, step: int) -> bool:
        """Whether the budget of steps or minutes is used up."""
        return self._progress(step) >= 1.0

    def _progress(self, step: int) -> float:
        """Share of the budget that is used up: of steps or of minutes, whichever is more."""
        minutes = self.settings.max_minutes
        return max(step / self.settings.steps, self._minutes() / minutes if minutes else 0.0)

    def on_train_begin(self, logs=None):
        self._started = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_started = time.monotonic()
        left = 1.0 - self._progress(epoch * self.settings.steps_per_epoch)
        decay = max(left / self.settings.cooldown, _LEAST_RATE) if self.settings.cooldown else 1.0
        self.optimizer.learning_rate = self.settings.learning_rate * min(1.0, decay)

    def on_train_batch_end(self, batch, logs=None):
        self.advance(1, "")

    def on_epoch_end(self, epoch, logs=None):
        step = (epoch + 1) * self.settings.steps_per_epoch
        images = self.settings.steps_per_epoch * self.settings.batch_size
        rate = images / (time.monotonic() - self._epoch_started)
        if not np.isfinite(logs["loss"]):
            first, rate = step - self.settings.steps_per_epoch, float(self.optimizer.learning_rate)
            raise StageError(
                f"The loss became {logs['loss']} between steps {first} and {step}, at the learning "
                f"rate {rate:g}: {self.checkpoints.describe_last()}. Start again in another --out "
                "with a lower diffusion.learning_rate, or with runtime.precision: float32."
            )
        self.use_average()
        row = {
            "step": step,
            "minutes": round(self._minutes(), 3),
            "loss": float(logs["loss"]),
            "validation_loss": self._validation_loss(),
            "learning_rate": float(self.optimizer.learning_rate),
            "images_per_s": round(rate, 2),
        }
        self.rows.append(row)
        self._write_history()
        self.checkpoints.save(self.model, step, 60 * self._minutes())
        finished = self.finished(step)
        if finished or (epoch + 1) % self.settings.preview_every == 0 or epoch == 0:
            self._write_preview(step)
        note = (
            f"loss {row['loss']:.4f}, validation {row['validation_loss']:.4f}, {rate:.0f} images/s"
        )
        self.advance(0, note)
        if (epoch + 1) % self.settings.preview_every == 0:
            say(f"Step {step}, {row['minutes']:.1f} min: {note}")
        self.model.stop_training = finished

    def use_average(self) -> None:
        """Put the moving averages into the float32 twin of the model."""
        averages = self.optimizer.averaged_weights()
        for variable, value in zip(self.averaged.trainable_variables, averages, strict=True):
            variable.assign(value)

    def summary(self) -> dict[str, float | int]:
        """The last row, and the mean rate of the run."""
        rows, last = self.rows, self.rows[-1]
        return {
            "steps": int(last["step"]),
            "minutes": last["minutes"],
            "images_per_s": round(float(np.median([row["images_per_s"] for row in rows])), 2),
            "loss": last["loss"],
            "validation_loss": last["validation_loss"],
        }

    def _minutes(self) -> float:
        started = getattr(self, "_started", None)
        now = 0.0 if started is None else time.monotonic() - started
        return (self.seconds_before + now) / 60

    def _validation_loss(self) -> float:
        inputs, clean, weights = self.validation
        errors = []
        for start in range(0, len(clean), 32):
            part = slice(start, start + 32)
            predicted = self.averaged.predict_on_batch({k: v[part] for k, v in inputs.items()})
            squared = np.square(ops.convert_to_numpy(predicted) - clean[part]).mean(axis=(1, 2, 3))
            errors.append(squared * weights[part, 0, 0])
        return float(np.concatenate(errors).mean())

    def _write_preview(self, step: int) -> None:
        wanted = [(label, i) for label in range(self.num_classes) for i in range(_PREVIEW_COLUMNS)]
        images = generate_images(
            keras_denoiser(self.averaged),
            wanted,
            self.num_classes,
            self.image_size,
            self.seed,
            steps=15,
            batch_size=len(wanted),
        )
        rows = np.stack([image for _, _, image in images])
        grid = rows.reshape(self.num_classes, _PREVIEW_COLUMNS, *rows.shape[1:])
        grid = np.concatenate(np.concatenate(grid, axis=1), axis=1)
        with written_aside(self.folder / "previews" / f"step-{step:08d}.png") as temporary:
            Image.fromarray(grid).save(temporary)

    def _write_history(self) -> None:
        lines = [",".join(self.rows[0])]
        lines += [",".join(f"{value:g}" for value in row.values()) for row in self.rows]
        write_text(self.folder / "history.csv", "\n".join(lines) + "\n")
