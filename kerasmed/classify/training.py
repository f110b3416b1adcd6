"""Training a CNN: its head on frozen features, then the whole network at a lower rate."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed.classify.config import ClassifierConfig
from kerasmed.classify.model import ImageClassifier
from kerasmed.classify.recorder import Recorder
from kerasmed.data.image_set import ImageSet
from kerasmed.files import write_text, written_aside
from kerasmed.parallel.devices import check_batch, mirrored_variables, on_all_devices
from kerasmed.parallel.resolve import Runtime
from kerasmed.parallel.workers import this_worker
from kerasmed.progress import progress_bar, say


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
) -> tuple[ImageClassifier, dict[str, Any]]:
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
        The classifier, and what really ran.

    Raises:
        ConfigError: the batch size is not a multiple of the number of devices.
        StageError: a loss that is not finite.
    """
    check_batch(settings.batch_size, runtime, "classifiers.batch_size")
    started = time.monotonic()
    steps = max(1, -(-(images_per_epoch or len(train)) // settings.batch_size))
    epochs = settings.finetune_epochs
    with on_all_devices(runtime.distribution):
        with mirrored_variables(runtime.distribution):
            model = ImageClassifier(
                backbone, train.image_size, train.class_names, settings, symmetry, seed,
                dtype=runtime.precision,
            )  # fmt: skip
            model.compile(jit_compile=runtime.jit_compile)
        rows: list[dict[str, Any]] = []
        ran: dict[str, Any] = {"kept": "head", "jit_compile": False}
        if model.weights_name != "none":
            rows.append(model.fit_head(train, validation_data=validation))
        with progress_bar(f"Training {backbone}", steps * epochs, "steps") as advance:
            recorder = Recorder(validation, settings, epochs, advance)
            model.fit(
                train,
                verbose=0,
                callbacks=[recorder],
                validation_data=validation,
                steps_per_epoch=steps,
                head=False,
            )
        if epochs:
            ran = _ran(model, recorder)
        rows += recorder.rows
        accuracy = model.evaluate(validation)["accuracy"]
    if this_worker().is_chief:
        _write(model, rows, folder)
    record = {
        "precision": model.dtype_policy.name,
        **ran,
        "parameters": model.count_params(),
        "n_train": len(train),
        "n_validation": len(validation),
        "validation_accuracy": accuracy,
        "temperature": model.temperature,
        "weights": Path(model.weights_name).name,
        "minutes": round((time.monotonic() - started) / 60, 3),
    }
    return model, record


def _ran(model: ImageClassifier, recorder: Recorder) -> dict[str, Any]:
    images_per_s = model.settings.batch_size / float(np.median(recorder.seconds))
    ran = {
        "kept": recorder.kept,
        "jit_compile": bool(model.jit_compile),
        "steps": len(recorder.seconds),
        "images_per_s": round(images_per_s, 1),
    }
    say(
        f"{ran['images_per_s']} images/s, {model.dtype_policy.name}, XLA "
        f"{'on' if ran['jit_compile'] else 'off'}; kept the weights of the phase {ran['kept']!r}."
    )
    return ran


def _write(model: ImageClassifier, rows: list[dict[str, Any]], folder: Path) -> None:
    """Write the model, in float32 and without its optimiser, and its history."""
    with written_aside(folder / "model.keras") as temporary:
        model.uncompiled().save(temporary)
    header = list(rows[0])
    lines = [",".join(header)] + [",".join(str(row[key]) for key in header) for row in rows]
    write_text(folder / "history.csv", "\n".join(lines) + "\n")
