"""The stages of a study: each reads files that earlier ones wrote, and writes its own."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from kerasmed.config import Config
from kerasmed.data.image_set import ImageSet, concatenate, read_image_folder
from kerasmed.data.phantoms import write_phantoms
from kerasmed.data.splits import Split, make_split, read_split, write_split
from kerasmed.data.symmetry import all_versions
from kerasmed.errors import InputError, StageError
from kerasmed.files import read_json, write_json, written_aside
from kerasmed.progress import progress_bar, say
from kerasmed.runs import RunFolder
from kerasmed.runtime import load_keras, resolve_runtime


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Attributes:
        name: its key in ``run.json``.
        command: what runs it alone.
        run: does the work and returns what is worth recording.
        sections: the parts of the experiment file that it depends on.
        needs: stages that must have finished.
    """

    name: str
    command: str
    run: Callable[[Config, RunFolder], dict[str, Any]]
    sections: tuple[str, ...]
    needs: tuple[str, ...] = ()

    def settings(self, config: Config) -> dict[str, Any]:
        """The settings that decide this stage's outcome."""
        return config.model_dump(mode="json", include=set(self.sections))


def perform(stage: Stage, config: Config, run: RunFolder) -> dict[str, Any]:
    """Run a stage and note it in the run record.

    Raises:
        StageError: a stage that it needs has not finished.
    """
    for needed in stage.needs:
        run.require(needed, STAGES[needed].command)
    say(f"{stage.name}: started")
    started = time.monotonic()
    result = stage.run(config, run)
    duration_s = time.monotonic() - started
    run.write_stage(config, stage.name, stage.settings(config), result, duration_s)
    say(f"{stage.name}: done in {duration_s:.0f} s")
    return result


def load_images(config: Config, run: RunFolder) -> ImageSet:
    """The study's real images, decoded on the first call and read from the cache after it."""
    directory = config.data.directory
    if config.data.phantoms is not None:
        directory = run.images / "phantoms"
    if directory is None:
        raise AssertionError("config.DataConfig lets no such settings through")
    size, on_bad_image = config.data.image_size, config.data.on_bad_image
    return read_image_folder(directory, size, run.cache / f"real-{size}", on_bad_image)


def load_split(config: Config, run: RunFolder) -> tuple[ImageSet, Split]:
    """The study's real images and the roles that were written for them."""
    run.require("data", STAGES["data"].command)
    image_set = load_images(config, run)
    return image_set, read_split(run.split_path, image_set)


def load_synthetic(config: Config, run: RunFolder) -> ImageSet:
    """The synthetic set, as images like any others."""
    size = config.data.image_size
    return read_image_folder(run.synthetic, size, run.cache / f"synthetic-{size}")


def split_data(config: Config, run: RunFolder) -> dict[str, Any]:
    """Decode the images (or make the phantoms) and write the split."""
    phantoms = config.data.phantoms
    if phantoms is not None:
        size = config.data.image_size
        write_phantoms(run.images, phantoms.family, phantoms.per_class, size, config.seed)
    image_set = load_images(config, run)
    split = make_split(image_set, config.split, config.seed)
    write_split(run.split_path, image_set, split)
    return {
        "data_hash": image_set.data_hash,
        "classes": list(image_set.class_names),
        "images": image_set.counts(),
        "roles": {role: image_set.subset(at).counts() for role, at in split.items()},
        "duplicates": len(image_set) - len({file.sha256 for file in image_set.files}),
        "skipped": list(image_set.skipped),
    }


def train_diffusion(config: Config, run: RunFolder) -> dict[str, Any]:
    """Train the denoiser on the role `diffusion`, and export it where TensorFlow is the backend."""
    runtime = resolve_runtime(config.runtime)
    import keras

    from kerasmed.diffusion.training import train_denoiser

    image_set, split = load_split(config, run)
    result = train_denoiser(
        image_set.subset(split["diffusion"]),
        image_set.subset(split["validation"]),
        config.diffusion,
        config.data.symmetry,
        config.seed,
        runtime,
        run.diffusion,
    )
    if runtime.backend == "tensorflow":
        from kerasmed.export import export_denoiser

        model = keras.saving.load_model(run.diffusion / "denoiser.keras", compile=False)
        metadata = {"class_names": image_set.class_names, "data_hash": image_set.data_hash}
        export_denoiser(model, metadata, run.diffusion / "denoiser.onnx")
    else:
        say("denoiser.onnx was not written: the export needs the TensorFlow backend.")
    return {**runtime.as_record(), **result}


def draw_samples(config: Config, run: RunFolder) -> dict[str, Any]:
    """Draw the synthetic set, replacing the one before."""
    from kerasmed.diffusion.generate import generate_images

    settings = config.sampling
    image_set, split = load_split(config, run)
    names = image_set.class_names
    per_class = settings.per_class or max(image_set.subset(split["diffusion"]).counts().values())
    wanted = [(label, i) for label in range(len(names)) for i in range(per_class)]
    denoiser = _open_denoiser(config, run)
    shutil.rmtree(run.synthetic, ignore_errors=True)
    images = generate_images(
        denoiser,
        wanted,
        len(names),
        config.data.image_size,
        config.seed,
        settings.solver,
        settings.steps,
        settings.guidance_scale,
        settings.batch_size,
    )
    with progress_bar("Sampling", len(wanted), "images") as advance:
        for label, index, image in images:
            path = run.synthetic / names[label] / f"{index:06d}.png"
            with written_aside(path) as temporary:
                Image.fromarray(image).save(temporary)
            advance(1, "")
    manifest = {
        "seed": config.seed,
        "per_class": per_class,
        "classes": list(names),
        **settings.model_dump(exclude={"per_class", "batch_size"}),
        "rejected": [],
    }
    write_json(run.synthetic / "manifest.json", manifest)
    return {"images": load_synthetic(config, run).counts()}


def _open_denoiser(config: Config, run: RunFolder):
    """The denoiser, as the engine that was asked for."""
    path = run.diffusion / f"denoiser.{config.sampling.engine}"
    if config.sampling.engine == "onnx" and not path.exists():
        raise StageError(
            f"Missing {path}: the training ran without TensorFlow, which the export needs; run "
            "`kerasmed train diffusion` again with KERAS_BACKEND=tensorflow (it only exports), or "
            "set sampling.engine: keras."
        )
    if config.sampling.engine == "onnx":
        from kerasmed.inference import OnnxDenoiser

        return OnnxDenoiser(path)
    load_keras()
    import keras

    from kerasmed.diffusion.training import keras_denoiser

    return keras_denoiser(keras.saving.load_model(path, compile=False))


@dataclass(frozen=True)
class Cell:
    """One CNN of a study: a backbone, what it is trained on, and a seed."""

    backbone: str
    trained_on: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder under ``classifiers/`` and its file under ``exported/``."""
        return f"{self.backbone}-{self.trained_on}-s{self.seed}"


def cells_of(config: Config) -> list[Cell]:
    """Every CNN that the settings ask for."""
    settings = config.classifiers
    return [
        Cell(backbone, regime, config.seed + i)
        for backbone in settings.backbones
        for regime in settings.train_on
        for i in range(settings.seeds)
    ]


def train_classifiers(config: Config, run: RunFolder) -> dict[str, Any]:
    """Train every CNN that the settings ask for and that is not there yet."""
    runtime = resolve_runtime(config.runtime, cpu_bfloat16=False)
    from kerasmed.classify.backbones import resolve_input_size, weights_for
    from kerasmed.classify.classifier import train_classifier

    cells = cells_of(config)
    for cell in cells:  # a mistake in the last one shows before the first is trained
        resolve_input_size(cell.backbone, config.classifiers.input_size)
        weights_for(cell.backbone, config.classifiers.weights)
    image_set, split = load_split(config, run)
    validation = image_set.subset(split["validation"])
    results = {}
    for number, cell in enumerate(cells, start=1):
        train = _training_images(cell.trained_on, config, run, image_set, split)
        folder = run.classifiers / cell.name
        made_from = {
            "settings": config.classifiers.model_dump(
                mode="json", exclude={"backbones", "train_on", "seeds"}
            ),
            "symmetry": config.data.symmetry,
            "training_hash": train.data_hash,
        }
        record_path = folder / "training.json"
        record = read_json(record_path, "kerasmed train classifier") if record_path.exists() else {}
        if record.get("made_from") != made_from:
            say(f"classifier {number} of {len(cells)}: {cell.name}, {len(train)} images")
            _, result = train_classifier(
                cell.backbone,
                train,
                validation,
                config.classifiers,
                config.data.symmetry,
                cell.seed,
                runtime,
                folder,
            )
            record = {"made_from": made_from, "result": {**runtime.as_record(), **result}}
            write_json(record_path, record)
        results[cell.name] = record["result"]
    return {"cells": results}


def _training_images(
    regime: str, config: Config, run: RunFolder, image_set: ImageSet, split: Split
) -> ImageSet:
    real = image_set.subset(split["diffusion"])
    if regime == "real":
        return real
    if regime == "real_all":
        return concatenate(real, image_set.subset(split["train"]))
    synthetic = load_synthetic(config, run)
    return synthetic if regime == "synthetic" else concatenate(real, synthetic)


def export_classifiers(config: Config, run: RunFolder) -> dict[str, Any]:
    """Write every trained CNN as ONNX."""
    load_keras()
    import keras

    from kerasmed.export import export_classifier

    image_set, split = load_split(config, run)
    validation = image_set.subset(split["validation"])
    parity = {}
    for cell in cells_of(config):
        folder = run.classifiers / cell.name
        result = read_json(folder / "training.json", STAGES["classifiers"].command)["result"]
        model = keras.saving.load_model(folder / "model.keras", compile=False)
        metadata = {
            "class_names": list(image_set.class_names),
            "backbone": cell.backbone,
            "trained_on": cell.trained_on,
            "seed": cell.seed,
            "n_train": result["n_train"],
            "weights": result["weights"],
            "data_hash": image_set.data_hash,
            "precision": "fp32",
        }
        path = run.exported / f"{cell.name}.onnx"
        temperature, images = result["temperature"], validation.images[:33]
        parity[cell.name] = export_classifier(model, temperature, metadata, images, path)["parity"]
        keras.backend.clear_session()
    return {"parity": parity}


def open_classifiers(config: Config, run: RunFolder) -> Iterator[tuple[Cell, Any]]:
    """Every exported CNN with its engine, one at a time."""
    from kerasmed.inference import OnnxClassifier

    for cell in cells_of(config):
        yield cell, OnnxClassifier(run.exported / f"{cell.name}.onnx")


def evaluate_classifiers(config: Config, run: RunFolder) -> dict[str, Any]:
    """Test every exported CNN on the role `test`."""
    from kerasmed.evaluate.classification import classification_metrics

    image_set, split = load_split(config, run)
    test = image_set.subset(split["test"])
    rows = []
    for cell, engine in open_classifiers(config, run):
        metrics = classification_metrics(
            engine.predict(test.images),
            test.labels,
            engine.class_names,
            config.evaluation.bootstrap_samples,
            config.seed,
        )
        rows.append(
            {
                "backbone": cell.backbone,
                "trained_on": cell.trained_on,
                "seed": cell.seed,
                "variant": None,
                "precision": engine.metadata["precision"],
                "n_train": engine.metadata["n_train"],
                **metrics,
            }
        )
    write_json(run.evaluation / "metrics.json", rows)
    return {
        f"{row['backbone']}-{row['trained_on']}-s{row['seed']}": row["accuracy"] for row in rows
    }


def explain_classifiers(config: Config, run: RunFolder) -> dict[str, Any]:
    """Explain the same few test images by every CNN of the first seed."""
    from kerasmed.explain.overlay import write_explanation
    from kerasmed.explain.surrogate import explain_image

    settings = config.explain
    image_set, split = load_split(config, run)
    chosen = _choose_per_class(image_set, split["test"], settings.images_per_class, config.seed)
    engines = [(cell, e) for cell, e in open_classifiers(config, run) if cell.seed == config.seed]
    shutil.rmtree(run.explanations, ignore_errors=True)
    with progress_bar("Explaining", len(chosen) * len(engines), "images") as advance:
        for cell, engine in engines:
            for position in chosen:
                explanation = explain_image(
                    np.asarray(image_set.images[position]),
                    engine.predict,
                    settings.num_samples,
                    settings.segmentation,
                    settings.superpixels,
                    config.seed,
                )
                file = image_set.files[position]
                path = run.explanations / cell.name / f"{file.class_name}-{position}.png"
                details = {
                    "image": file.path.name,
                    "true_class": file.class_name,
                    "seed": config.seed,
                    "num_samples": settings.num_samples,
                }
                write_explanation(explanation, engine.class_names, details, settings.top, path)
                advance(1, "")
    return {"images": len(chosen), "models": [cell.name for cell, _ in engines]}


def _choose_per_class(
    image_set: ImageSet, positions: np.ndarray, per_class: int, seed: int
) -> list[int]:
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in range(len(image_set.class_names)):
        candidates = positions[image_set.labels[positions] == label]
        count = min(per_class, len(candidates))
        chosen += sorted(rng.choice(candidates, count, replace=False).tolist())
    return chosen


def audit_synthetic(config: Config, run: RunFolder) -> dict[str, Any]:
    """Fidelity and privacy of the synthetic set against the roles `diffusion` and `train`.

    Features are those of the first backbone's network trained on real images, where there is one.
    """
    from kerasmed.evaluate.fidelity import fidelity
    from kerasmed.evaluate.privacy import comparison_pixels, memorisation

    image_set, split = load_split(config, run)
    seen, held_out = image_set.subset(split["diffusion"]), image_set.subset(split["train"])
    generated = load_synthetic(config, run)
    # The first cell of each regime: later ones are put in first and overwritten.
    engines = {
        cell.trained_on: (cell, e) for cell, e in reversed(list(open_classifiers(config, run)))
    }
    extractor, engine = next(
        engines[r] for r in ("real", "real_all", "both", "synthetic") if r in engines
    )
    features = {
        name: engine.features(each.images)
        for name, each in (("seen", seen), ("held_out", held_out), ("generated", generated))
    }
    symmetry = config.data.symmetry

    def pixels(images: np.ndarray) -> np.ndarray:
        return comparison_pixels(all_versions(images, symmetry))

    def or_reason(compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return compute()
        except InputError as error:
            return {"not_computed": str(error)}

    found = {
        "features_of": extractor.name,
        **or_reason(
            lambda: fidelity(
                features["held_out"], features["seen"], features["generated"], seed=config.seed
            )
        ),
    }
    write_json(run.evaluation / "fidelity.json", found)
    privacy = {
        "features_of": extractor.name,
        "files": {
            "generated": [str(file.path.relative_to(run.synthetic)) for file in generated.files],
            "seen": [str(file.path) for file in seen.files],
        },
        "in_pixels": or_reason(
            lambda: memorisation(
                pixels(seen.images)[:, 0],
                pixels(held_out.images),
                pixels(generated.images),
                config.seed,
            )
        ),
        "in_features": or_reason(
            lambda: memorisation(
                features["seen"],
                features["held_out"][:, None],
                features["generated"][:, None],
                config.seed,
            )
        ),
    }
    write_json(run.evaluation / "privacy.json", privacy)
    return {
        "fidelity": found.get("generated_to_held_out", found.get("not_computed")),
        "copies_in_pixels": len(privacy["in_pixels"].get("copies", [])),
    }


def write_report(config: Config, run: RunFolder) -> dict[str, Any]:
    """Draw the figures and the page from what the other stages wrote."""
    from kerasmed.report import render_report

    image_set, split = load_split(config, run)
    render_report(run, image_set, split, load_synthetic(config, run))
    return {"page": run.report.name}


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("data", "kerasmed data split CONFIG", split_data, ("seed", "data", "split")),
        Stage(
            "diffusion",
            "kerasmed train diffusion CONFIG",
            train_diffusion,
            ("seed", "diffusion", "runtime"),
            ("data",),
        ),
        Stage(
            "sampling", "kerasmed sample CONFIG", draw_samples, ("seed", "sampling"), ("diffusion",)
        ),
        Stage(
            "classifiers",
            "kerasmed train classifier CONFIG",
            train_classifiers,
            ("seed", "classifiers", "runtime"),
            ("sampling",),
        ),
        Stage("export", "kerasmed export CONFIG", export_classifiers, (), ("classifiers",)),
        Stage(
            "evaluate",
            "kerasmed evaluate CONFIG",
            evaluate_classifiers,
            ("seed", "evaluation"),
            ("export",),
        ),
        Stage(
            "explain",
            "kerasmed explain CONFIG",
            explain_classifiers,
            ("seed", "explain"),
            ("export",),
        ),
        Stage("audit", "kerasmed audit CONFIG", audit_synthetic, ("seed",), ("export",)),
        Stage(
            "report",
            "kerasmed report CONFIG",
            write_report,
            (),
            ("evaluate", "explain", "audit"),
        ),
    )
}
