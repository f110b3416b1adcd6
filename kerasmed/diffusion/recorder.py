"""The callback of a study that saves checkpoints, draws previews and ends the training."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasmed.diffusion.checkpoints import Checkpoints
from kerasmed.diffusion.config import TrainingConfig
from kerasmed.diffusion.preview import Preview, UpscalingPreview
from kerasmed.errors import StageError
from kerasmed.files import read_history, write_text
from kerasmed.parallel.workers import from_chief, this_worker
from kerasmed.progress import say

_TIMED = 10  # steps after the first, whose time predicts that of an interval
_LEAST_RATE = 0.01  # fraction of the learning rate left at the end of the cool-down


class Recorder(Checkpoints):
    """Keeps the history of a study's training, its checkpoints and previews, and ends it.

    With several workers the chief does this and decides when the others stop.

    Args:
        folder: the run folder's ``diffusion/`` or ``upscaler/``.
        settings: budget, rates and intervals.
        num_images: images that the network learns from.
        preview: draws the previews.
        ran: see ``Checkpoints``.
        created: ``time.monotonic()`` at the start, from which the time to the first step counts.
    """

    def __init__(
        self,
        folder: Path,
        settings: TrainingConfig,
        num_images: int,
        preview: Preview | UpscalingPreview,
        ran: dict[str, Any],
        created: float,
    ):
        super().__init__(folder / "checkpoints", ran)
        self.history_path = folder / "history.csv"
        self.settings = settings
        self.num_images = num_images
        self.preview = preview
        self.created = created
        self.first_step_s: float | None = None
        self._first_step_at: float | None = None
        self._percent_shown = 0.0  # of the budget, on the progress bar
        self.rows: list[dict[str, float]] = []
        self._seconds_before = 0.0
        self.advance: Callable[[float, str], None]

    def resume(self, model, recipe):
        step = super().resume(model, recipe) or 0
        self.rows = _history_until(step, self.history_path)
        self._seconds_before = 60 * self.rows[-1]["minutes"] if self.rows else 0.0
        model.stop_training = bool(*from_chief(self.finished(step)))
        say(f"From step {step} on, for at most {self.settings.budget()}.")
        return step

    def finished(self, step: int) -> bool:
        """Whether the budget is used up or the validation loss has not fallen for too long."""
        return self._spent(step, self._minutes()) >= 1.0 or self._stale() >= self.settings.patience

    def _spent(self, step: float, minutes: float) -> float:
        """Fraction of the budget that is used up, by the limit that is closest to its end."""
        images, settings = step * self.settings.batch_size, self.settings
        used = (
            (images, settings.max_images),
            (images / self.num_images, settings.max_epochs),
            (minutes, settings.max_minutes),
        )
        return max(amount / limit for amount, limit in used if limit is not None)

    def _stale(self) -> int:
        """Checkpoints since the one with the lowest validation loss."""
        losses = [row["validation_loss"] for row in self.rows]
        return len(losses) - 1 - int(np.argmin(losses)) if losses else 0

    def on_train_begin(self, logs=None):
        self._started = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_started = time.monotonic()
        # The rate is constant over an interval, so it is that of the interval's middle.
        step = (epoch + 0.5) * self.settings.checkpoint_steps
        (spent,) = from_chief(self._spent(step, self._minutes() + self._interval_minutes() / 2))
        remaining, cooldown = 1.0 - spent, self.settings.cooldown
        decay = max(remaining / cooldown, _LEAST_RATE) if cooldown else 1.0
        self.model.optimizer.learning_rate = self.settings.learning_rate * min(1.0, decay)

    def on_train_batch_end(self, batch, logs=None):
        if self.first_step_s is None:
            self.first_step_s = time.monotonic() - self.created
            self._first_step_at = time.monotonic()
            say(f"First step after {self.first_step_s:.0f} s.")
        elif batch == _TIMED and self._first_step_at is not None:
            self._warn_of_late_checkpoints((time.monotonic() - self._first_step_at) / batch)
            self._first_step_at = None  # warn only once

    def _warn_of_late_checkpoints(self, seconds_per_step: float) -> None:
        """Warn if the time budget ends before the first checkpoint, where it is checked."""
        minutes = seconds_per_step * self.settings.checkpoint_steps / 60
        limit = self.settings.max_minutes
        if limit is not None and minutes > limit:
            say(
                f"Training can end only at a checkpoint, and the first comes after {minutes:.0f} "
                f"minutes ({self.settings.SECTION}.max_minutes: {limit:g}). To end earlier, "
                f"lower {self.settings.SECTION}.checkpoint_steps."
            )

    def on_epoch_end(self, epoch, logs=None):
        step = (epoch + 1) * self.settings.checkpoint_steps
        self._refuse_nan(logs["loss"], step)
        finished = False
        if this_worker().is_chief:
            finished = self._record(step, float(logs["loss"]), logs["val_loss"])
        self.model.stop_training = bool(*from_chief(finished))

    def _record(self, step: int, loss: float, validation_loss: float) -> bool:
        """Write and save at this step; returns whether the training has finished."""
        images = self.settings.checkpoint_steps * self.settings.batch_size
        images_per_s = images / (time.monotonic() - self._epoch_started)
        row = {
            "step": step,
            "minutes": round(self._minutes(), 3),
            "loss": loss,
            # Rounded as in the file, so that a resumed training compares the same numbers.
            "validation_loss": float(f"{validation_loss:.9g}"),
            "learning_rate": self._rate(),
            "images_per_s": round(images_per_s, 2),
        }
        if self.preview.compares:
            row["closer_to_train"] = math.nan
        self._refuse_nan(row["validation_loss"], step)
        self.rows.append(row)
        finished, checkpoint = self.finished(step), step // self.settings.checkpoint_steps
        if finished or checkpoint == 1 or checkpoint % self.settings.preview_every == 0:
            closer = self.preview.draw(self.model, _describe(row))
            if closer is not None:
                row["closer_to_train"] = closer
            say(f"Step {step}, {row['minutes']:.1f} min: {_describe(row)}")
        self._write_history()
        self._save(self.model, row["validation_loss"])
        percent = 100 * min(1.0, self._spent(step, self._minutes()))
        self.advance(percent - self._percent_shown, _describe(row))
        self._percent_shown = percent
        if self._stale() >= self.settings.patience:
            say(f"The validation loss has not fallen for {self._stale()} checkpoints: stopped.")
        return finished

    def _refuse_nan(self, loss: float, step: int) -> None:
        if np.isfinite(loss):
            return
        first, rate = step - self.settings.checkpoint_steps, self._rate()
        raise StageError(
            f"The loss became {loss} between steps {first} and {step}, at the learning "
            f"rate {rate:g}: {self.describe_last()}. Start again in another --out "
            f"with a lower {self.settings.SECTION}.learning_rate, or with runtime.precision: "
            "float32."
        )

    def take_best(self, model: keras.Model) -> dict[str, Any]:
        """Give the model the best average, or the last one if the best cannot be read.

        Returns:
            Steps, minutes and loss at the end; step and validation loss of the average.
        """
        last = self.rows[-1]
        best = self.restore_best(model) or last
        rates = [row["images_per_s"] for row in self.rows]
        return {
            "steps": int(last["step"]),
            "minutes": last["minutes"],
            "images_per_s": round(float(np.median(rates)), 2),
            "first_step_s": round(self.first_step_s, 2) if self.first_step_s else None,
            "loss": last["loss"],
            "exported_step": int(best["step"]),
            "validation_loss": best["validation_loss"],
        }

    def _rate(self) -> float:
        optimizer = self.model.inner_optimizer()
        rate = optimizer.warmed_up(optimizer.learning_rate)
        return float(ops.convert_to_numpy(rate))

    def _interval_minutes(self) -> float:
        """Minutes between the last two checkpoints; 0 before the first."""
        ends = [0.0, *(row["minutes"] for row in self.rows)]
        return ends[-1] - ends[-2] if self.rows else 0.0

    def _minutes(self) -> float:
        started = getattr(self, "_started", None)
        elapsed = 0.0 if started is None else time.monotonic() - started
        return (self._seconds_before + elapsed) / 60

    def _write_history(self) -> None:
        lines = [",".join(self.rows[0])]
        lines += [",".join(f"{value:.9g}" for value in row.values()) for row in self.rows]
        write_text(self.history_path, "\n".join(lines) + "\n")


def _history_until(step: int, path: Path) -> list[dict[str, float]]:
    """The rows of an interrupted training's history, up to its last checkpoint."""
    try:
        rows = [{key: float(row[key]) for key in row} for row in read_history(path)]
        rows = [row for row in rows if row["step"] <= step]
    except (KeyError, TypeError, ValueError):
        rows = []
    if step and (not rows or rows[-1]["step"] != step):
        raise StageError(
            f"{path} is incomplete: expected its rows up to step {step}, the last checkpoint; "
            f"restore it, or delete {path.parent} to train from the start."
        )
    return rows


def _describe(row: dict[str, float]) -> str:
    return (
        f"loss {row['loss']:.4f}, validation {row['validation_loss']:.4f}, "
        f"{row['images_per_s']:.0f} images/s"
    )
