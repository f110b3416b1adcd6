"""Training a CNN: its head on frozen features, then the whole network at a lower rate."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasmed.classify.augment import make_augmenter
from kerasmed.classify.backbones import weights_for
from kerasmed.classify.batches import LabelledBatches, balancing_weights
from kerasmed.classify.classifier import (
    Classifier,
    build_classifier,
    calibrated_loss,
    fit_temperature,
    mean_cross_entropy,
    predict_outputs,
)
from kerasmed.config import ClassifierConfig
from kerasmed.data.image_set import ImageSet
from kerasmed.distribution import (
    ClippedOverReplicas,
    check_batch,
    fit,
    mirrored_variables,
    on_all_devices,
    on_one_device,
)
from kerasmed.errors import StageError
from kerasmed.evaluate.probe import fit_probe
from kerasmed.files import write_text, written_aside
from kerasmed.progress import progress_bar, say
from kerasmed.runtime import Runtime, precision_policy
from kerasmed.workers import joined, of_chief


def train_classifier(
    backbone: str,
    train: ImageSet,
    validation: ImageSet,
    settings: ClassifierConfig,
    symmetry: str,
    seed: int,
    runtime: Runtime,
    folder: Path,
    images_per_epoch: int | None = None,
) -> tuple[Classifier, dict[str, Any]]:
    """Train one CNN, and leave ``model.keras`` (float32) and ``history.csv`` in the folder.

    With pretrained weights the head is first fitted by logistic regression on frozen features,
    computed once; then everything, or the upper part, is trained at a low rate that warms up. From
    scratch there is only the second phase. It keeps the weights with the least loss over the
    validation images, calibrated anew each time (``val_loss``), and stops early where that does not
    fall (in the second half of the epochs); the head alone stays only where these make more
    mistakes than it, by more than chance. The temperature is fitted on the same images (Guo et
    al., arXiv:1706.04599).

    Args:
        backbone: a key of BACKBONES.
        train: images to learn from.
        validation: images that stop the training and set the temperature.
        settings: the recipe.
        symmetry: flips and turns to draw from, see ``data.symmetry``.
        seed: of weights, order and augmentation.
        runtime: precision, XLA and devices, resolved.
        folder: the CNN's; of several workers the chief alone writes there.
        images_per_epoch: that the second phase shows in an epoch; each once if None.

    Returns:
        The classifier, in float32, and what really ran.

    Raises:
        ConfigError: a batch does not divide among the devices.
        StageError: a loss that is not finite.
    """
    check_batch(settings.batch_size, runtime, "classifiers.batch_size")
    started = time.monotonic()
    weights = weights_for(backbone, settings.weights)
    class_weights = balancing_weights(train.labels, len(train.class_names), settings.class_weights)
    with on_all_devices(runtime.distribution):
        with on_one_device():
            plain = _build(backbone, train, settings, "none", "float32")
        keras.utils.set_random_seed(seed)
        with mirrored_variables(runtime.distribution):
            model = _build(backbone, train, settings, weights, runtime.precision)
            steps = max(1, -(-(images_per_epoch or len(train)) // settings.batch_size))
            trained = _compiled(model, settings, runtime, steps)
        plain.set_weights(model.get_weights())
        rows: list[dict[str, Any]] = []
        ran: dict[str, Any] = {"kept": "head", "jit_compile": False}
        if weights != "none":
            with on_one_device():
                rows.append(_fit_head(plain, train, validation, settings, class_weights))
            model.set_weights(plain.get_weights())
        if settings.finetune_epochs:
            worker = joined()
            batches = LabelledBatches(
                train,
                settings.batch_size,
                symmetry,
                make_augmenter(settings.augment),
                settings.mixing,
                class_weights,
                seed,
                (worker.index, len(worker.addresses)),
            )
            # The head's weights are a candidate too; random ones are not.
            accuracy = rows[0]["val_accuracy"] if rows else 0.0
            recorder = _Recorder(plain, validation, settings, accuracy)
            ran = _fine_tune(trained, batches, recorder, steps)
            rows += recorder.rows
        with on_one_device():
            logits = predict_outputs(plain, validation.images)["logits"]
    classifier = Classifier(plain, fit_temperature(logits, validation.labels))
    if joined().is_chief:
        _write(plain, rows, folder)
    return classifier, {
        "precision": model.dtype_policy.name,
        **ran,
        "parameters": plain.count_params(),
        "n_train": len(train),
        "n_validation": len(validation),
        "validation_accuracy": float((logits.argmax(axis=1) == validation.labels).mean()),
        "temperature": classifier.temperature,
        "weights": Path(weights).name,
        "minutes": round((time.monotonic() - started) / 60, 3),
    }


def _build(
    backbone: str, train: ImageSet, settings: ClassifierConfig, weights: str, precision: str
) -> keras.Model:
    return build_classifier(
        backbone,
        len(train.class_names),
        train.image_size,
        settings.input_size,
        weights,
        settings.dropout,
        precision,
    )


def _write(plain: keras.Model, rows: list[dict[str, Any]], folder: Path) -> None:
    with written_aside(folder / "model.keras") as temporary:
        plain.save(temporary)
    header = list(rows[0])
    lines = [",".join(header)] + [",".join(str(row[key]) for key in header) for row in rows]
    write_text(folder / "history.csv", "\n".join(lines) + "\n")


def _fit_head(
    model: keras.Model,
    train: ImageSet,
    validation: ImageSet,
    settings: ClassifierConfig,
    class_weights: np.ndarray,
) -> dict[str, Any]:
    """Fit the last layer by logistic regression on features computed once; a row of history."""
    features = predict_outputs(model, train.images)["features"]
    probe = fit_probe(
        features,
        train.labels,
        len(class_weights),
        class_weights[train.labels],
        settings.head_inverse_regularisation,
    )
    model.get_layer("logits").set_weights([probe.kernel, probe.bias])
    row: dict[str, Any] = {"phase": "head", "epoch": 1}
    held_out = predict_outputs(model, validation.images)["features"]
    for prefix, inputs, labels, loss in (
        ("", features, train.labels, mean_cross_entropy),
        ("val_", held_out, validation.labels, calibrated_loss),
    ):
        logits = probe.logits(inputs)
        row[f"{prefix}loss"] = round(loss(logits, labels), 5)
        row[f"{prefix}accuracy"] = round(float((logits.argmax(axis=1) == labels).mean()), 5)
    return row


def freeze_lower_layers(model: keras.Model, trained_share: float) -> None:
    """Leave only that share of the backbone's layers trainable, counted from its output down."""
    layers = _layers_of_backbone(model)
    for layer in layers[: round(len(layers) * (1 - trained_share))]:
        layer.trainable = False


def _layers_of_backbone(model: keras.Model) -> list[keras.layers.Layer]:
    return next(each for each in model.layers if isinstance(each, keras.Model)).layers


class ClippedAdam(ClippedOverReplicas, keras.optimizers.Adam):
    """Adam (Kingma and Ba, arXiv:1412.6980) with the gradient of the whole batch clipped."""


def cosine_schedule(peak: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """A rate that rises to its peak within a twentieth of the steps, and falls along a cosine to 0.

    Args:
        peak: the highest rate.
        steps: of the whole training.
    """
    warmup_steps = max(1, steps // 20)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=peak,
        warmup_steps=warmup_steps,
        decay_steps=max(1, steps - warmup_steps),  # which Keras counts from the peak on
    )


def _compiled(
    model: keras.Model, settings: ClassifierConfig, runtime: Runtime, steps_per_epoch: int
) -> keras.Model:
    """What `fit` trains: the layers down to ``finetune_share``, from images to logits."""
    freeze_lower_layers(model, settings.finetune_share)
    if runtime.replicas > 1 and runtime.backend == "tensorflow":
        for layer in _layers_of_backbone(model):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True  # over the whole batch, as JAX does by itself
    steps = max(1, steps_per_epoch * settings.finetune_epochs)
    # Keras scales the loss where this outer model's policy is mixed_float16.
    with precision_policy(runtime.precision):
        trained = keras.Model(model.input, model.output["logits"])
    trained.compile(
        optimizer=ClippedAdam(
            learning_rate=cosine_schedule(settings.finetune_learning_rate, steps),
            global_clipnorm=1.0,
        ),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=settings.label_smoothing
        ),
        weighted_metrics=["accuracy"],
        jit_compile=runtime.jit_compile,
    )
    trained.optimizer.build(trained.trainable_variables)
    return trained


def _fine_tune(
    trained: keras.Model, batches: LabelledBatches, recorder: "_Recorder", steps_per_epoch: int
) -> dict[str, Any]:
    """Train until the recorder ends it, which then holds the best weights; what ran."""
    epochs = recorder.settings.finetune_epochs
    title = f"Training {recorder.plain.name}"
    with progress_bar(title, steps_per_epoch * epochs, "steps") as recorder.advance:
        fit(trained, batches, [recorder], steps_per_epoch, 0, epochs)
    ran = {
        "kept": recorder.kept,
        "jit_compile": bool(trained.jit_compile),
        "steps": len(recorder.seconds),
        "images_per_s": round(batches.batch_size / float(np.median(recorder.seconds)), 1),
    }
    say(
        f"{ran['images_per_s']} images/s, {trained.dtype_policy.name}, XLA "
        f"{'on' if ran['jit_compile'] else 'off'}; kept what the phase {ran['kept']!r} left."
    )
    return ran


class _Recorder(keras.callbacks.Callback):
    """Times the steps, validates after each epoch, keeps the best weights, and ends in time.

    Args:
        plain: a float32 copy of the network, on one device; holds the best weights at the end.
        validation: images whose loss decides.
        settings: the recipe.
        accuracy: on them, of the weights that the copy holds now, which are kept if later ones
            make more mistakes by more than two standard errors.
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
        loss, accuracy = of_chief(
            calibrated_loss(logits, labels), float((logits.argmax(axis=1) == labels).mean())
        )
        row = {"loss": logs["loss"], "accuracy": logs["accuracy"]}
        row |= {"val_loss": loss, "val_accuracy": accuracy}
        if not np.isfinite(list(row.values())).all():
            raise StageError(
                f"The loss of {self.plain.name} became {row['loss']} and over the validation "
                f"images {loss} in epoch {epoch + 1}: expected finite ones; set a lower "
                "classifiers.finetune_learning_rate, or runtime.precision: float32."
            )
        rounded = {key: round(float(value), 5) for key, value in row.items()}
        self.rows.append({"phase": "finetune", "epoch": epoch + 1, **rounded})
        self.advance(0, f"validation loss {loss:.4f}")
        if loss < min(self._losses, default=np.inf):
            self._best, self._mistakes_of_best = self.plain.get_weights(), self._mistakes(accuracy)
            self.kept = "finetune"
        self._losses.append(loss)
        # While the rate is high the loss may lie above that of the head for long.
        half = self.settings.finetune_epochs // 2
        stale = epoch - max(half, int(np.argmin(self._losses)))
        self.model.stop_training = stale >= self.settings.patience

    def on_train_end(self, logs=None):
        head, best = self._mistakes_of_head, self._mistakes_of_best
        if best - head > 2 * np.sqrt(best + head):
            self._best, self.kept = self._head, "head"
        self.plain.set_weights(self._best)
