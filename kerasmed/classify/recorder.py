"""The callback that validates a CNN after each epoch and keeps its best weights."""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kerasmed.classify.calibration import calibrated_loss
from kerasmed.classify.classifier import predict_outputs
from kerasmed.classify.config import ClassifierConfig
from kerasmed.data.image_set import ImageSet
from kerasmed.errors import StageError
from kerasmed.parallel.devices import on_one_device
from kerasmed.parallel.workers import from_chief


class Recorder(keras.callbacks.EarlyStopping):
    """Times the steps, validates after each epoch, keeps the best weights and stops early.

    Args:
        plain: a float32 copy of the network, on one device; holds the best weights at the end.
        validation: images whose loss decides.
        settings: the recipe.
        accuracy: validation accuracy of the copy's present weights. They are kept if the best
            later ones make more mistakes, by more than two standard errors.
    """

    def __init__(
        self, plain: keras.Model, validation: ImageSet, settings: ClassifierConfig, accuracy: float
    ):
        super().__init__(
            "val_loss", patience=settings.patience, mode="min", restore_best_weights=True
        )
        self.plain = plain
        self.validation = validation
        self.settings = settings
        self.kept = "finetune"
        self.rows: list[dict[str, Any]] = []
        self.seconds: list[float] = []
        self.advance: Callable[[int, str], None]
        self._head, self._accuracy_of_head = plain.get_weights(), accuracy

    def on_train_batch_begin(self, batch, logs=None):
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self._started)
        self.advance(1, "")

    def on_epoch_end(self, epoch, logs=None):
        row = {"loss": logs["loss"], "accuracy": logs["accuracy"], **self._validate()}
        loss = row["val_loss"]
        if not np.isfinite(list(row.values())).all():
            raise StageError(
                f"The loss of {self.plain.name} became {row['loss']}, and its validation loss "
                f"{loss}, in epoch {epoch + 1}: expected finite losses; set a lower "
                "classifiers.finetune_learning_rate, or runtime.precision: float32."
            )
        rounded = {key: round(float(value), 5) for key, value in row.items()}
        self.rows.append({"phase": "finetune", "epoch": epoch + 1, **rounded})
        self.advance(0, f"validation loss {loss:.4f}")
        super().on_epoch_end(epoch, row)
        # While the rate is high, the loss may stay above the head's for many epochs.
        if epoch < self.settings.finetune_epochs // 2 + self.patience:
            self.model.stop_training = False

    def _validate(self) -> dict[str, float]:
        """Calibrated loss and accuracy on the validation images."""
        self.plain.set_weights(self.model.get_weights())
        with on_one_device():
            logits = predict_outputs(self.plain, self.validation.images)["logits"]
        labels = self.validation.labels
        accuracy = float((logits.argmax(axis=1) == labels).mean())
        loss, accuracy = from_chief(calibrated_loss(logits, labels), accuracy)
        return {"val_loss": loss, "val_accuracy": accuracy}

    def on_train_end(self, logs=None):
        head, best = (
            round((1 - accuracy) * len(self.validation))
            for accuracy in (self._accuracy_of_head, self.rows[self.best_epoch]["val_accuracy"])
        )
        if best - head > 2 * np.sqrt(best + head):
            self.kept, self.best_weights = "head", self._head
        self.plain.set_weights(self.best_weights)
