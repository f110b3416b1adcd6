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


class Recorder(keras.callbacks.Callback):
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
        super().__init__()
        self.plain = plain
        self.validation = validation
        self.settings = settings
        self.kept = "head"
        self.rows: list[dict[str, Any]] = []
        self.seconds: list[float] = []
        self.advance: Callable[[int, str], None]
        self._losses: list[float] = []
        self._head, self._mistakes_of_head = plain.get_weights(), self._mistakes(accuracy)
        self._best, self._mistakes_of_best = self._head, self._mistakes_of_head

    def _mistakes(self, accuracy: float) -> int:
        return round((1 - accuracy) * len(self.validation))

    def on_train_batch_begin(self, batch, logs=None):
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self._started)
        self.advance(1, "")

    def on_epoch_end(self, epoch, logs=None):
        self.plain.set_weights(self.model.get_weights())
        with on_one_device():
            logits = predict_outputs(self.plain, self.validation.images)["logits"]
        labels = self.validation.labels
        loss, accuracy = from_chief(
            calibrated_loss(logits, labels), float((logits.argmax(axis=1) == labels).mean())
        )
        row = {"loss": logs["loss"], "accuracy": logs["accuracy"]}
        row |= {"val_loss": loss, "val_accuracy": accuracy}
        if not np.isfinite(list(row.values())).all():
            raise StageError(
                f"The loss of {self.plain.name} became {row['loss']}, and its validation loss "
                f"{loss}, in epoch {epoch + 1}: expected finite losses; set a lower "
                "classifiers.finetune_learning_rate, or runtime.precision: float32."
            )
        rounded = {key: round(float(value), 5) for key, value in row.items()}
        self.rows.append({"phase": "finetune", "epoch": epoch + 1, **rounded})
        self.advance(0, f"validation loss {loss:.4f}")
        if loss < min(self._losses, default=np.inf):
            self._best, self._mistakes_of_best = self.plain.get_weights(), self._mistakes(accuracy)
            self.kept = "finetune"
        self._losses.append(loss)
        # While the rate is high, the loss may stay above the head's for many epochs.
        half = self.settings.finetune_epochs // 2
        stale = epoch - max(half, int(np.argmin(self._losses)))
        self.model.stop_training = stale >= self.settings.patience

    def on_train_end(self, logs=None):
        head, best = self._mistakes_of_head, self._mistakes_of_best
        if best - head > 2 * np.sqrt(best + head):
            self._best, self.kept = self._head, "head"
        self.plain.set_weights(self._best)
