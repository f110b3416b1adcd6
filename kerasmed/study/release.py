"""Releasing the synthetic set of a study: images, labels, data sheet and checksums."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from kerasmed import __version__
from kerasmed.audit.tables import spaces_of, trained_on
from kerasmed.data.datasets import DATASETS
from kerasmed.data.entries import folder_name
from kerasmed.data.image_set import ImageSet
from kerasmed.errors import StageError
from kerasmed.files import folder_written_aside, read_json, sha256_of, write_text, written_aside
from kerasmed.study.config import parse_config
from kerasmed.study.engine import check_finished, check_inputs
from kerasmed.study.inputs import read_synthetic
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import STAGES
from kerasmed.study.synthetic_set import MANIFEST
from kerasmed.text import text_for_markdown


def release(run: RunFolder, target: Path) -> dict[str, int]:
    """Write a folder with the synthetic set of a finished study, without any real image.

    It holds ``images/<class>/*.png``, written anew from their pixels, ``labels.csv``,
    ``DATASHEET.md`` and ``SHA256SUMS``. The data sheet says how the set was made and gives the
    results of the evaluation and the audit. Images that the audit calls copies are left out.

    Args:
        run: a run folder whose stages up to evaluate and audit have finished.
        target: the folder to write; it must not exist yet.

    Returns:
        ``released`` and ``withheld``, numbers of images.

    Raises:
        StageError: the folder exists, a stage has not finished or is out of date, a result has
            changed, or the audit could not search for copies.
    """
    record = run.record()
    for name in ("evaluate", "audit"):
        run.require(name, STAGES[name].command)
    config = parse_config(record["config"], str(run.record_path))
    if config.sampling.start == "real":
        raise StageError(
            f"The synthetic set of {run.root} holds variations of training images "
            "(sampling.start: real): expected images drawn from noise, since a variation shows its "
            "original; draw a set with sampling.start: noise, and release that."
        )
    check_inputs(STAGES["audit"], config, run)
    check_finished(STAGES["audit"], config, run)
    synthetic = read_synthetic(config, run)
    privacy = read_json(run.evaluation / "privacy.json", "kerasmed audit")
    withheld = _copies(privacy, run)
    kept = [i for i in range(len(synthetic)) if i not in withheld]
    with folder_written_aside(target, replace=False) as folder:
        _write_images(synthetic, kept, folder)
        values = _values(run, record, synthetic.subset(kept), len(withheld), privacy)
        environment = Environment(loader=FileSystemLoader(Path(__file__).parent))
        environment.globals["trained_on"] = trained_on
        environment.filters["text"] = text_for_markdown
        environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
        sheet = environment.get_template("datasheet.md.j2").render(values)
        write_text(folder / "DATASHEET.md", sheet)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
        write_text(folder / "SHA256SUMS", "".join(lines))
    return {"released": len(kept), "withheld": len(withheld)}


def _copies(privacy: dict[str, Any], run: RunFolder) -> set[int]:
    """Positions of the synthetic images that the audit calls copies."""
    copies = privacy["copies"]
    if "not_computed" in copies:
        raise StageError(
            f"The audit of {run.root} did not search for copies: {copies['not_computed']}"
        )
    return {pair["synthetic"] for pair in copies["found"]}


def _write_images(synthetic: ImageSet, kept: list[int], folder: Path) -> None:
    counts = dict.fromkeys(synthetic.class_names, 0)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    soft = synthetic.probabilities is not None
    probabilities = [f"probability of {name}" for name in synthetic.class_names] if soft else []
    writer.writerow(["file", "label", *probabilities])
    for position in kept:
        name = synthetic.class_names[synthetic.labels[position]]
        folder_of_class = folder_name(name)
        path = f"images/{folder_of_class}/{folder_of_class}-{counts[name]:05d}.png"
        counts[name] += 1
        with written_aside(folder / path) as temporary:
            Image.fromarray(np.asarray(synthetic.images[position])).save(temporary)
        of_image = synthetic.targets[position].tolist() if soft else []
        writer.writerow([path, name, *of_image])
    write_text(folder / "labels.csv", table.getvalue())


def _values(
    run: RunFolder,
    record: dict[str, Any],
    released: ImageSet,
    withheld: int,
    privacy: dict[str, Any],
) -> dict[str, Any]:
    """Values in the data sheet; of the real images only their number by class."""
    data = record["stages"]["data"]["result"]
    published = [
        known
        for known in DATASETS.values()
        if set(known.counts) == set(data["classes"]) and Path(known.config).stem == record["name"]
    ]
    return {
        "name": record["name"],
        "version": __version__,
        "record": record,
        "size": released.image_size,
        "counts": released.counts(),
        "withheld": withheld,
        "real": {role: data["roles"][role] for role in ("train", "test", "reserve")},
        "drawn": read_json(run.synthetic / MANIFEST, "kerasmed sample")["fingerprint"]["settings"],
        "training": record["stages"].get("diffusion", {}).get("result"),
        "learned_from": record["config"]["sampling"]["source_learned_from"],
        "metrics": read_json(run.evaluation / "metrics.json", "kerasmed evaluate"),
        "comparisons": read_json(run.evaluation / "comparisons.json", "kerasmed evaluate"),
        "spaces": spaces_of(read_json(run.evaluation / "fidelity.json", "kerasmed audit")),
        "privacy": privacy,
        "verdicts": read_json(run.evaluation / "verdicts.json", "kerasmed audit"),
        "published": published[0] if published else None,
    }
