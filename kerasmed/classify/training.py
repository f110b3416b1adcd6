"""Training a CNN: its head on frozen features, then the whole network at a lower rate."""

import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasmed.classify.augment import make_augmenter
from kerasmed.classify.backbones import weights_for
from kerasmed.classify.batches import LabelledBatches, balancing_weights
from kerasmed.classify.calibration import fit_temperature
from kerasmed.classify.classifier import Classifier, build_classifier, predict_outputs
from kerasmed.classify.config import ClassifierConfig
from kerasmed.classify.head import fit_head
from kerasmed.classify.optimizer import compiled
from kerasmed.classify.recorder import Recorder
from kerasmed.data.image_set import ImageSet
from kerasmed.files import write_text, written_aside
from kerasmed.parallel.devices import (
    check_batch,
    fit,
    mirrored_variables,
    on_all_devices,
    on_one_device,
)
from kerasmed.parallel.resolve import Runtime
from kerasmed.parallel.workers import this_worker
from kerasmed.progress import progress_bar, say
from kerasmed.random_streams import Purpose, derived_seed


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
    """Train one CNN, and write ``model.keras`` (float32) and ``history.csv`` into the folder.

    With pretrained weights, logistic regression on frozen features, computed once, fits the head.
    Then all or only the upper layers are trained at a low rate that warms up. From scratch there is
    only this second phase. It keeps the weights with the lowest validation loss, calibrated anew
    each time (``val_loss``). In the second half of its epochs it stops early if that does not fall.
    The fitted head is kept if the other weights make more mistakes, by more than chance. The same
    images fit the temperature (Guo et al., arXiv:1706.04599).

    Args:
        backbone: a key of BACKBONES.
        train: images to learn from.
        validation: images that stop the training and set the temperature.
        settings: the recipe.
        symmetry: flips and turns to draw from, see ``data.symmetry``.
        seed: seed of weights, order and augmentation.
        runtime: precision, XLA and devices, resolved.
        folder: folder of this CNN; of several workers only the chief writes there.
        images_per_epoch: images per epoch of the second phase; the size of ``train`` if None.

    Returns:
        The classifier, in float32, and what really ran.

    Raises:
        ConfigError: the batch size is not a multiple of the number of devices.
        StageError: a loss that is not finite.
    """
    check_batch(settings.batch_size, runtime, "classifiers.batch_size")
    started = time.monotonic()
    weights = weights_for(backbone, settings.weights)
    steps = max(1, -(-(images_per_epoch or len(train)) // settings.batch_size))
    classifier, rows, record = _train_networks(
        backbone, train, validation, settings, symmetry, seed, runtime, weights, steps
    )
    if this_worker().is_chief:
        _write(classifier.model, rows, folder)
    minutes = round((time.monotonic() - started) / 60, 3)
    return classifier, {**record, "weights": Path(weights).name, "minutes": minutes}


def _train_networks(
    backbone: str,
    train: ImageSet,
    validation: ImageSet,
    settings: ClassifierConfig,
    symmetry: str,
    seed: int,
    runtime: Runtime,
    weights: str,
    steps: int,
) -> tuple[Classifier, list[dict[str, Any]], dict[str, Any]]:
    """The classifier, the rows of its history and its record; an epoch has ``steps`` steps."""
    class_weights = balancing_weights(train.labels, len(train.class_names), settings.class_weights)
    with on_all_devices(runtime.distribution):
        with on_one_device():
            plain = _build(backbone, train, settings, "none", "float32")
        keras.utils.set_random_seed(derived_seed(seed, Purpose.CLASSIFIER_WEIGHTS))
        with mirrored_variables(runtime.distribution):
            model = _build(backbone, train, settings, weights, runtime.precision)
            trained = compiled(model, settings, runtime, steps)
        plain.set_weights(model.get_weights())
        rows: list[dict[str, Any]] = []
        ran: dict[str, Any] = {"kept": "head", "jit_compile": False}
        if weights != "none":
            with on_one_device():
                rows.append(fit_head(plain, train, validation, settings, class_weights))
            model.set_weights(plain.get_weights())
        if settings.finetune_epochs:
            batches = _batches(train, settings, symmetry, class_weights, seed)
            # The weights of a fitted head are a candidate too; random ones are not.
            accuracy = rows[0]["val_accuracy"] if rows else 0.0
            recorder = Recorder(plain, validation, settings, accuracy)
            ran = _fine_tune(trained, batches, recorder, steps)
            rows += recorder.rows
        with on_one_device():
            logits = predict_outputs(plain, validation.images)["logits"]
    classifier = Classifier(plain, fit_temperature(logits, validation.labels))
    record = {
        "precision": model.dtype_policy.name,
        **ran,
        "parameters": plain.count_params(),
        "n_train": len(train),
        "n_validation": len(validation),
        "validation_accuracy": float((logits.argmax(axis=1) == validation.labels).mean()),
        "temperature": classifier.temperature,
    }
    return classifier, rows, record


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


def _batches(
    train: ImageSet,
    settings: ClassifierConfig,
    symmetry: str,
    class_weights: np.ndarray,
    seed: int,
) -> LabelledBatches:
    """The training batches, or this worker's shard of each."""
    worker = this_worker()
    return LabelledBatches(
        train,
        settings.batch_size,
        symmetry,
        make_augmenter(settings.augment),
        settings.mixing,
        class_weights,
        seed,
        (worker.index, len(worker.addresses)),
    )


def _write(plain: keras.Model, rows: list[dict[str, Any]], folder: Path) -> None:
    with written_aside(folder / "model.keras") as temporary:
        plain.save(temporary)
    header = list(rows[0])
    lines = [",".join(header)] + [",".join(str(row[key]) for key in header) for row in rows]
    write_text(folder / "history.csv", "\n".join(lines) + "\n")


def _fine_tune(
    trained: keras.Model, batches: LabelledBatches, recorder: Recorder, steps_per_epoch: int
) -> dict[str, Any]:
    """Train until the recorder, which holds the best weights, ends it; returns what ran."""
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
        f"{'on' if ran['jit_compile'] else 'off'}; kept the weights of the phase {ran['kept']!r}."
    )
    return ran
