"""Training a CNN: its head on frozen features, then the whole network at a lower rate."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed.classify.model import ImageClassifier
from kerasmed.classify.recipes import Phase
from kerasmed.classify.recorder import Recorder
from kerasmed.data.image_set import ImageSet
from kerasmed.files import write_text, written_aside
from kerasmed.parallel.devices import check_batch, mirrored_variables, on_all_devices
from kerasmed.parallel.resolve import Runtime
from kerasmed.parallel.workers import this_worker
from kerasmed.progress import progress_bar, say


def train_classifier(
    backbone: str,
    phases: Sequence[Phase],
    validation: ImageSet,
    symmetry: str,
    seed: int,
    runtime: Runtime,
    folder: Path,
    images_per_epoch: int | None = None,
) -> tuple[ImageClassifier, dict[str, Any]]:
    """Train one CNN, and write ``model.keras`` (float32) and ``history.csv`` into the folder.

    With pretrained weights, logistic regression on frozen features, computed once, fits the head.
    Then all or only the upper layers are trained at a low rate that warms up. From scratch there is
    only this. It keeps the weights with the lowest validation loss, calibrated anew each time
    (``val_loss``). In the second half of its epochs it stops early if that does not fall. The
    weights from before are kept if the later ones make more mistakes, by more than chance. The same
    images fit the temperature (Guo et al., arXiv:1706.04599). A second phase goes on from there
    with other images.

    Args:
        backbone: a key of BACKBONES.
        phases: images to learn from, one after the other, see ``phases_of``.
        validation: images that stop the training and set the temperature.
        symmetry: flips and turns to draw from, see ``data.symmetry``.
        seed: seed of weights, order and augmentation.
        runtime: precision, XLA and devices, resolved.
        folder: folder of this CNN; of several workers only the chief writes there.
        images_per_epoch: images that an epoch shows; those of the phase if None.

    Returns:
        The classifier, and what really ran.

    Raises:
        ConfigError: the batch size is not a multiple of the number of devices.
        StageError: a loss that is not finite.
    """
    first = phases[0]
    check_batch(first.settings.batch_size, runtime, "classifiers.batch_size")
    started = time.monotonic()
    with on_all_devices(runtime.distribution):
        with mirrored_variables(runtime.distribution):
            model = ImageClassifier(
                backbone, first.images.image_size, first.images.class_names, first.settings,
                symmetry, seed, dtype=runtime.precision,
            )  # fmt: skip
        rows: list[dict[str, Any]] = []
        ran: dict[str, Any] = {"kept": "head", "jit_compile": False}
        for number, phase in enumerate(phases):
            model.settings = phase.settings
            with mirrored_variables(runtime.distribution):
                model.compile(jit_compile=runtime.jit_compile)
            if number == 0 and model.weights_name != "none":
                row = model.fit_head(
                    phase.images, validation_data=validation, synthetic=phase.synthetic
                )
                rows.append(row)
            recorder = _finetune(model, phase, validation, images_per_epoch)
            rows += [{**row, "phase": ("finetune", "second")[number]} for row in recorder.rows]
            if recorder.rows:
                ran = _ran(model, recorder, ("head", "first_phase")[number])
        model.formats = dict(validation.formats)  # of real images, whatever it learned from
        validated = model.evaluate(validation)
    if this_worker().is_chief:
        _write(model, rows, folder)
    shown = {id(images): len(images) for phase in phases for images in phase.sets()}
    record = {
        "precision": model.dtype_policy.name,
        **ran,
        "parameters": model.count_params(),
        "n_train": sum(shown.values()),
        "n_validation": len(validation),
        "validation_loss": validated["loss"],
        "validation_accuracy": validated["accuracy"],
        "temperature": model.temperature,
        "weights": Path(model.weights_name).name,
        "minutes": round((time.monotonic() - started) / 60, 3),
    }
    return model, record


def train_best_classifier(
    backbone: str,
    recipes: Mapping[str, Sequence[Phase]],
    validation: ImageSet,
    symmetry: str,
    seed: int,
    runtime: Runtime,
    folder: Path,
    images_per_epoch: int | None = None,
) -> dict[str, Any]:
    """Train a CNN by each recipe, and keep the one with the lowest loss on the validation images.

    Args:
        recipes: the phases of each, by its name.
        backbone, validation, symmetry, seed, runtime, folder, images_per_epoch: see
            ``train_classifier``.

    Returns:
        What ran for the one that was kept, its ``recipe``, and the ``recipe_losses`` of all.
    """
    losses: dict[str, float] = {}
    results: dict[str, dict[str, Any]] = {}
    trial = folder / ".trial"
    tried: list[Sequence[Phase]] = []
    for name, phases in recipes.items():
        if phases in tried:  # such as MixUp, where the settings have it anyway
            continue
        tried.append(phases)
        say(f"recipe: {name}")
        _, results[name] = train_classifier(
            backbone, phases, validation, symmetry, seed, runtime, trial, images_per_epoch
        )
        losses[name] = results[name]["validation_loss"]
        if this_worker().is_chief:
            if name == min(losses, key=losses.__getitem__):
                for file in ("model.keras", "history.csv"):
                    (trial / file).replace(folder / file)
            shutil.rmtree(trial)
    best = min(losses, key=losses.__getitem__)
    return {**results[best], "recipe": best, "recipe_losses": losses}


def _finetune(
    model: ImageClassifier, phase: Phase, validation: ImageSet, images_per_epoch: int | None
) -> Recorder:
    """Train the whole network for one phase."""
    images = images_per_epoch or sum(map(len, phase.sets()))
    steps = max(1, -(-images // phase.settings.batch_size))
    epochs = phase.settings.finetune_epochs
    with progress_bar(f"Training {model.backbone}", steps * epochs, "steps") as advance:
        recorder = Recorder(validation, phase.settings, epochs, advance)
        model.fit(
            phase.images,
            verbose=0,
            callbacks=[recorder],
            validation_data=validation,
            steps_per_epoch=steps,
            head=False,
            synthetic=phase.synthetic,
        )
    return recorder


def _ran(model: ImageClassifier, recorder: Recorder, before: str) -> dict[str, Any]:
    """What a phase came to; ``before`` names the weights that it began with."""
    images_per_s = model.settings.batch_size / float(np.median(recorder.seconds))
    ran = {
        "kept": before if recorder.kept == "head" else recorder.kept,
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
