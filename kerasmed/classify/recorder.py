"""The callback that validates a CNN after each epoch and keeps its best weights."""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kerasmed.classify.calibration import calibrated_loss
from kerasmed.classify.config import ClassifierConfig
from kerasmed.data.image_set import ImageSet
from kerasmed.errors import StageError
from kerasmed.parallel.workers import from_chief


class Recorder(keras.callbacks.EarlyStopping):
    """Validates a classifier after each epoch, keeps its best weights and stops early.

    The logs get ``val_loss``, calibrated anew each time, and ``val_accuracy``. The weights of a
    model that was trained before are kept if the best later ones make more mistakes, by more than
    two standard errors.

    Args:
        validation: images whose loss decides.
        settings: the recipe.
        epochs: epochs of the training; it stops early in the second half.
        advance: called with the number of finished steps, and a note.

    Attributes:
        rows: loss and accuracy of each epoch, over training and validation images.
        seconds: duration of each step.
        kept: "finetune", or "head" if the weights from before the training were kept.
    """

    def __init__(
        self,
        validation: ImageSet,
        settings: ClassifierConfig,
        epochs: int,
        advance: Callable[[float, str], None] = lambda count, note: None,
    ):
        super().__init__(
            "val_loss", patience=settings.patience, mode="min", restore_best_weights=True
        )
        self.validation = validation
        self.epochs = epochs
        self.advance = advance
        self.kept = "finetune"
        self.rows: list[dict[str, Any]] = []
        self.seconds: list[float] = []

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.rows, self.seconds = [], []
        self._before = self.model.get_weights()
        self._accuracy_before = self._validate()["val_accuracy"] if self.model.is_trained else 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self._started)
        self.advance(1, "")

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self._validate())
        losses = {key: logs[key] for key in ("loss", "val_loss")}
        if not np.isfinite(list(losses.values())).all():
            raise StageError(
                f"The loss of {self.model.backbone} became {losses['loss']}, and its validation "
                f"loss {losses['val_loss']}, in epoch {epoch + 1}: expected finite losses; set a "
                "lower classifiers.finetune_learning_rate, or runtime.precision: float32."
            )
        row = {"phase": "finetune", "epoch": epoch + 1}
        columns = {key: round(float(logs[key]), 5) for key in _COLUMNS if key in logs}
        self.rows.append({**row, **columns})
        self.advance(0, f"validation loss {losses['val_loss']:.4f}")
        is_stopped = self.model.stop_training  # by another callback
        super().on_epoch_end(epoch, logs)
        # While the rate is high, the loss may stay above the head's for many epochs.
        if epoch < self.epochs // 2 + self.patience:
            self.model.stop_training = is_stopped

    def _validate(self) -> dict[str, float]:
        """Calibrated loss and accuracy on the validation images."""
        logits = self.model.outputs(self.validation.images)["logits"]
        labels = self.validation.labels
        accuracy = float((logits.argmax(axis=1) == labels).mean())
        loss, accuracy = from_chief(calibrated_loss(logits, labels), accuracy)
        return {"val_loss": loss, "val_accuracy": accuracy}

    def on_train_end(self, logs=None):
        if not self.rows:
            return
        best_row = next(row for row in self.rows if row["epoch"] == self.best_epoch + 1)
        before, best = (
            round((1 - accuracy) * len(self.validation))
            for accuracy in (self._accuracy_before, best_row["val_accuracy"])
        )
        if best - before > 2 * np.sqrt(best + before):
            self.kept, self.best_weights = "head", self._before
        self.model.set_weights(self.best_weights)


_COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy")
