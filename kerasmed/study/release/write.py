"""Writing the folder that is handed on."""

import csv
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kerasmed import __version__
from kerasmed.data.entries import folder_name
from kerasmed.data.image_set import ImageSet
from kerasmed.data.marks import Mark, write_marked_png
from kerasmed.errors import InputError, StageError
from kerasmed.files import folder_written_aside, read_json, sha256_of, write_json, write_text
from kerasmed.study.classifier_specs import ClassifierSpec, classifier_specs
from kerasmed.study.config import Config, parse_config
from kerasmed.study.engine import check_finished, check_inputs
from kerasmed.study.inputs import read_synthetic
from kerasmed.study.release.cards import write_cards
from kerasmed.study.release.facts import facts_of
from kerasmed.study.release.models import write_models
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import STAGES

Format = Literal["png", "dicom"]


def release(
    run: RunFolder,
    target: Path,
    image_format: Format = "png",
    models: tuple[str, ...] = (),
    despite: str | None = None,
    licence: str | None = None,
    by: str | None = None,
) -> dict[str, int]:
    """Write a folder with the synthetic set of a finished study, without any real image.

    It holds marked images, ``labels.csv``, cards for people and programs (``cards.py``),
    ``provenance.json`` and ``SHA256SUMS``. Images that the audit calls copies are left out, and so
    is every network, unless it is asked for: the answer on privacy covers the images only.

    Args:
        run: a run folder whose stages up to evaluate and audit have finished.
        target: the folder to write; it must not exist yet.
        image_format: "png", or "dicom" for Secondary Capture images.
        models: names of CNNs to hand on too, such as "MobileNet-both-s0", each with a model card.
        despite: why the set is released although its light on privacy is red.
        licence: terms under which it is released; a blank in the cards if None.
        by: who releases it, with an address; a blank if None.

    Returns:
        ``released`` and ``withheld``, numbers of images.

    Raises:
        StageError: the folder exists, a stage has not finished or is out of date, a result has
            changed, the audit could not search for copies, or the set is not private.
        InputError: there is no CNN of that name.
        MachineError: DICOM is asked for, and pydicom is missing.
    """
    record = run.record()
    for name in ("evaluate", "audit"):
        run.require(name, STAGES[name].command)
    config = parse_config(record["config"], str(run.record_path))
    specs = _named(models, config)
    if config.sampling.start == "real":
        raise StageError(
            f"The synthetic set of {run.root} holds variations of training images "
            "(sampling.start: real): expected images drawn from noise, since a variation shows its "
            "original; draw a set with sampling.start: noise, and release that."
        )
    check_inputs(STAGES["audit"], config, run)
    check_finished(STAGES["audit"], config, run)
    for name in {"worth", "explain"} & run.finished_stages().keys():  # the data sheet states them
        check_finished(STAGES[name], config, run)
    _refuse_red(run, despite)
    synthetic = read_synthetic(config, run)
    withheld = _copies(run)
    kept = synthetic.subset([i for i in range(len(synthetic)) if i not in withheld])
    facts = facts_of(run, kept, len(withheld))
    facts |= {"despite": despite, "licence": licence, "by": by}
    generator = f"kerasmed {__version__}" if facts["training"] else "unknown"
    with folder_written_aside(target, replace=False) as folder:
        _write_images(kept, folder, image_format, generator, facts["set_id"])
        write_json(folder / "provenance.json", facts["provenance"])
        facts["models"] = write_models(specs, facts, run, folder)
        write_cards(facts, image_format, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
        write_text(folder / "SHA256SUMS", "".join(lines))
    return {"released": len(kept), "withheld": len(withheld)}


def _named(models: tuple[str, ...], config: Config) -> list[ClassifierSpec]:
    by_name = {spec.name: spec for spec in classifier_specs(config)}
    if unknown := [name for name in models if name not in by_name]:
        raise InputError(
            f"Models: expected names of CNNs of the study, {', '.join(by_name)}, received "
            f"{', '.join(unknown)}; correct them."
        )
    return [by_name[name] for name in models]


def _refuse_red(run: RunFolder, despite: str | None) -> None:
    """Refuse a set that is not private, unless a reason is given; and a reason without need."""
    verdicts = read_json(run.evaluation / "verdicts.json", "kerasmed audit")
    (private,) = [verdict for verdict in verdicts if verdict["question"] == "private"]
    if private["light"] == "red" and not despite:
        raise StageError(
            f"The synthetic set of {run.root} is not private: {private['answer']} Draw another "
            'one; or give a reason with --despite "...", which the data sheet prints.'
        )
    if private["light"] != "red" and despite is not None:
        raise StageError(
            f"--despite is for a red light on privacy, and that of {run.root} is "
            f"{private['light']}; leave it out."
        )


def _copies(run: RunFolder) -> set[int]:
    """Positions of the synthetic images that are copies of real ones, by the audit."""
    copies = read_json(run.evaluation / "privacy.json", "kerasmed audit")["copies"]
    if "not_computed" in copies:
        raise StageError(
            f"The audit of {run.root} did not search for copies: {copies['not_computed']}"
        )
    found = {pair["synthetic"] for pair in copies["found"]}
    return found.union(*copies["identical"].values())


def _write_images(
    images: ImageSet, folder: Path, image_format: Format, generator: str, set_id: str
) -> None:
    """Write the images, and ``labels.csv`` with the class of each."""
    counts = dict.fromkeys(images.class_names, 0)
    soft = images.probabilities is not None
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    probabilities = [f"probability of {name}" for name in images.class_names] if soft else []
    writer.writerow(["file", "label", *probabilities])
    for position, label in enumerate(images.labels):
        name = images.class_names[label]
        of_class = folder_name(name)
        suffix = {"png": "png", "dicom": "dcm"}[image_format]
        path = f"images/{of_class}/{of_class}-{counts[name]:05d}.{suffix}"
        counts[name] += 1
        mark = Mark(generator, set_id, f"{position:06d}")
        _WRITERS[image_format](folder / path, np.asarray(images.images[position]), mark)
        of_image: list[Any] = images.targets[position].tolist() if soft else []
        writer.writerow([path, name, *of_image])
    write_text(folder / "labels.csv", table.getvalue())


def _write_dicom(path: Path, pixels: np.ndarray, mark: Mark) -> None:
    from kerasmed.study.release.dicom import write_dicom

    write_dicom(path, pixels, mark)


_WRITERS = {"png": write_marked_png, "dicom": _write_dicom}
