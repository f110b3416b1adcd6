"""The report: one self-contained HTML page from the results of the other stages."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape

from kerasmed.audit.copy_search import independent_images
from kerasmed.audit.rules import headline
from kerasmed.audit.tables import (
    number_text,
    over_seeds_text,
    points_text,
    spaces_of,
    trained_on,
)
from kerasmed.audit.worth import worth_sentence
from kerasmed.data.image_set import ImageSet
from kerasmed.data.splits import ROLES, Split
from kerasmed.data.thumbnails import png_uri
from kerasmed.explain.summary import FIGURES, figure_texts
from kerasmed.files import read_json, write_text
from kerasmed.study.best_classifiers import sentence
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
    draw_strength,
    draw_training,
    draw_worth,
)
from kerasmed.study.report.fonts import fonts_for
from kerasmed.study.report.pictures import draw_grid, draw_means, draw_pairs, six_of
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
    record, results = run.record(), _read_results(run)
    with fonts_for(map(printable, image_set.class_names)):
        _draw_figures(run, results, image_set.subset(split["train"]), synthetic)
    page = (
        page_environment()
        .get_template("page.html.j2")
        .render(
            record=record,
            stages=record["stages"],
            config=record["config"],
            taken_from=record["config"]["sampling"]["source"],
            data=record["stages"]["data"]["result"],
            roles=ROLES,
            regimes=REGIMES,
            spaces=spaces_of(results["fidelity"]),
            choices=_choices(run),
            explanations=_read_explanations(run.explanations, image_set),
            figures=run.figures,
            six={"real": six_of(image_set.subset(split["train"])), "synthetic": six_of(synthetic)},
            **results,
        )
    )
    write_text(run.report, page)


def page_environment() -> Environment:
    """The templates of this folder, with the filters that they use."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(["j2"])
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    environment.filters["figure"] = number_text
    environment.filters["over_seeds"] = over_seeds_text
    environment.filters["points"] = points_text
    environment.filters["most_changed"] = lambda of_classes: max(
        of_classes.items(), key=lambda item: abs(item[1]["difference"])
    )
    environment.filters["picture"] = _data_uri
    environment.filters["figures_of_explanations"] = figure_texts
    environment.globals["explanation_figures"] = FIGURES
    environment.filters["first_sentence"] = lambda text: text.partition(". ")[0].rstrip(".") + "."
    environment.globals |= {
        "trained_on": trained_on, "worth_sentence": worth_sentence, "headline": headline,
        "independent_images": independent_images,
    }  # fmt: skip
    return environment


def _read_results(run: RunFolder) -> dict[str, Any]:
    """The stages' JSON files by their names."""
    written_by = {
        "kerasmed data leakage": ("leakage",),
        "kerasmed evaluate": ("metrics", "over_seeds", "comparisons", "curves"),
        "kerasmed audit": ("fidelity", "appearance", "privacy", "verdicts"),
    }
    results = {
        name: read_json(run.evaluation / f"{name}.json", command)
        for command, names in written_by.items()
        for name in names
    }
    for name in ("outside", "subgroups"):  # where the user gives what they need
        path = run.evaluation / f"{name}.json"
        results[name] = read_json(path, "kerasmed evaluate") if path.exists() else None
    path = run.evaluation / "worth.json"
    results["worth"] = read_json(path, "kerasmed worth CONFIG") if path.exists() else None
    results["summary"] = read_json(run.explanations / "summary.json", "kerasmed explain")
    return results


def _choices(run: RunFolder) -> list[str]:
    """What `best` chose for each backbone."""
    trained = run.finished_stages()["classifiers"]["result"]["classifiers"]
    chosen = {
        name.partition("-best-")[0]: result["chosen"]
        for name, result in trained.items()
        if "chosen" in result
    }
    return [sentence(backbone, choice) for backbone, choice in chosen.items()]


def _draw_figures(
    run: RunFolder, results: dict[str, Any], train: ImageSet, synthetic: ImageSet
) -> None:
    """Write ``figures/*.png``; ``train`` are the training images of the diffusion model."""
    if (run.diffusion / "history.csv").exists():  # not with a synthetic set of another program
        draw_training(run.diffusion / "history.csv", run.figures / "training.png")
    if "upscaler" in run.finished_stages():
        draw_training(run.upscaler / "history.csv", run.figures / "upscaler.png")
    draw_accuracy(results["metrics"], run.figures / "accuracy.png")
    draw_roc(results["curves"], run.figures / "roc.png")
    draw_reliability(results["curves"], run.figures / "reliability.png")
    draw_confusions(results["metrics"], list(train.class_names), run.figures / "confusion.png")
    # The folder may hold further CNNs.
    names = run.finished_stages()["classifiers"]["result"]["classifiers"]
    histories = [run.classifiers / name / "history.csv" for name in names]
    draw_classifier_training(histories, run.figures / "classifiers.png")
    if results["worth"] is not None:
        draw_worth(results["worth"], run.figures / "worth.png")
    draw_grid(train, run.figures / "real.png")
    draw_grid(synthetic, run.figures / "synthetic.png")
    draw_means(train, synthetic, run.figures / "means.png")
    draw_spectra(results["appearance"], run.figures / "spectra.png")
    draw_strength(results["appearance"], run.figures / "strength.png")
    draw_histograms(results["appearance"], run.figures / "histograms.png")
    draw_pairs(results["privacy"], synthetic, train, run.figures / "pairs.png")
    draw_attention(next(iter(results["summary"].values())), run.figures / "attention.png")


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _read_explanations(folder: Path, image_set: ImageSet) -> list[dict[str, Any]]:
    """One entry per image, with one panel per model and explainer, sorted by model.

    The page draws the overlays from the image, the superpixels and the weights of the predicted
    class, so that readers can choose how many superpixels to show.
    """
    by_image: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.glob("*/*.json")):
        record = read_json(path, "kerasmed explain")
        position, predicted = record["position"], record["predicted_class"]
        if position not in by_image:
            segments = np.array(record["segments"])
            # Two bytes per superpixel, since a channel of a picture holds one.
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
