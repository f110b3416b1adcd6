"""One self-contained HTML page from what the other stages wrote. Computes no metric."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape

from kerasmed.audit.tables import number_text, over_seeds_text, spaces_of, trained_on
from kerasmed.data.image_set import ImageSet
from kerasmed.data.splits import ROLES, Split
from kerasmed.explain.records import png_uri
from kerasmed.explain.summary import FIGURES, figure_texts
from kerasmed.files import read_json, write_text
from kerasmed.study.report.figures import (
    REGIMES,
    draw_accuracy,
    draw_attention,
    draw_classifier_training,
    draw_confusions,
    draw_histograms,
    draw_reliability,
    draw_roc,
    draw_spectra,
    draw_training,
)
from kerasmed.study.report.fonts import fonts_for
from kerasmed.study.report.pictures import draw_grid, draw_means, draw_pairs
from kerasmed.study.run_folder import RunFolder
from kerasmed.text import printable


def render_report(run: RunFolder, image_set: ImageSet, split: Split, synthetic: ImageSet) -> None:
    """Write ``report.html`` and ``figures/*.png``.

    Args:
        run: a run folder whose stages up to evaluate, explain and audit have finished.
        image_set: the real images.
        split: their roles.
        synthetic: the synthetic images.
    """
    record = run.record()
    fidelity = read_json(run.evaluation / "fidelity.json", "kerasmed audit")
    with fonts_for(map(printable, image_set.class_names)):
        _draw_figures(run, image_set.subset(split["train"]), synthetic)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(["j2"])
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    environment.filters["figure"] = number_text
    environment.filters["over_seeds"] = over_seeds_text
    environment.filters["picture"] = _data_uri
    environment.filters["figures_of_explanations"] = figure_texts
    environment.globals["explanation_figures"] = FIGURES
    environment.globals["trained_on"] = trained_on
    page = environment.get_template("page.html.j2").render(
        record=record,
        stages=record["stages"],
        config=record["config"],
        data=record["stages"]["data"]["result"],
        leakage=read_json(run.evaluation / "leakage.json", "kerasmed data leakage"),
        roles=ROLES,
        metrics=read_json(run.evaluation / "metrics.json", "kerasmed evaluate"),
        over_seeds=read_json(run.evaluation / "over_seeds.json", "kerasmed evaluate"),
        comparisons=read_json(run.evaluation / "comparisons.json", "kerasmed evaluate"),
        regimes=REGIMES,
        verdicts=read_json(run.evaluation / "verdicts.json", "kerasmed report"),
        fidelity=fidelity,
        spaces=spaces_of(fidelity),
        privacy=read_json(run.evaluation / "privacy.json", "kerasmed audit"),
        explanations=_read_explanations(run.explanations, image_set),
        summary=read_json(run.explanations / "summary.json", "kerasmed explain"),
        figures=run.figures,
    )
    write_text(run.report, page)


def _draw_figures(run: RunFolder, seen: ImageSet, synthetic: ImageSet) -> None:
    """Write ``figures/*.png``; ``seen`` are the real images that the diffusion model saw."""
    metrics = read_json(run.evaluation / "metrics.json", "kerasmed evaluate")
    draw_training(run.diffusion / "history.csv", run.figures / "training.png")
    draw_accuracy(metrics, run.figures / "accuracy.png")
    curves = read_json(run.evaluation / "curves.json", "kerasmed evaluate")
    draw_roc(curves, run.figures / "roc.png")
    draw_reliability(curves, run.figures / "reliability.png")
    draw_confusions(metrics, list(seen.class_names), run.figures / "confusion.png")
    trained = run.finished_stages()["classifiers"]["result"]["cells"]  # others may lie there too
    histories = [run.classifiers / name / "history.csv" for name in trained]
    draw_classifier_training(histories, run.figures / "classifiers.png")
    draw_grid(seen, run.figures / "real.png")
    draw_grid(synthetic, run.figures / "synthetic.png")
    draw_means(seen, synthetic, run.figures / "means.png")
    looks = read_json(run.evaluation / "appearance.json", "kerasmed audit")
    draw_spectra(looks, run.figures / "spectra.png")
    draw_histograms(looks, run.figures / "histograms.png")
    privacy = read_json(run.evaluation / "privacy.json", "kerasmed audit")
    draw_pairs(privacy, synthetic, seen, run.figures / "pairs.png")
    summary = read_json(run.explanations / "summary.json", "kerasmed explain")
    draw_attention(next(iter(summary.values())), run.figures / "attention.png")


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _read_explanations(folder: Path, image_set: ImageSet) -> list[dict[str, Any]]:
    """One entry an image, with one panel a model and explainer, in the models' order.

    The page draws them itself, from the image, the superpixels and the weights of the predicted
    class, so that the reader chooses how many superpixels are shown.
    """
    by_image: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.glob("*/*.json")):
        record = read_json(path, "kerasmed explain")
        position, predicted = record["position"], record["predicted_class"]
        if position not in by_image:
            segments = np.array(record["segments"])
            # Two bytes a superpixel, since a picture holds no larger numbers.
            two_bytes = np.stack([segments % 256, segments // 256, 0 * segments], axis=2)
            by_image[position] = {
                "true_class": record["true_class"],
                "image": record["image"],
                "pixels": png_uri(np.asarray(image_set.images[position])),
                "segments": png_uri(two_bytes.astype(np.uint8)),
                "panels": [],
            }
        by_image[position]["panels"].append(
            {
                "model": path.parent.name,
                "explainer": record["explainer"],
                "predicted": predicted,
                "probability": record["probabilities"][predicted],
                "r2": record["r2"].get(predicted),
                "top_overlap": record["stability"].get("top_overlap"),
                "warnings": record["warnings"],
                "weights": [float(f"{weight:.4g}") for weight in record["weights"][predicted]],
            }
        )
    return [by_image[position] for position in sorted(by_image)]
