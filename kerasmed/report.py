"""One self-contained HTML page from what the other stages wrote. Computes no metric."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from kerasmed.data.image_set import ImageSet
from kerasmed.data.splits import ROLES, Split
from kerasmed.evaluate.tabulate import number_text, over_seeds_text, spaces_of, trained_on
from kerasmed.explain.records import png_uri
from kerasmed.explain.summary import FIGURES, figure_texts
from kerasmed.files import read_history, read_json, write_text, written_aside
from kerasmed.fonts import fonts_for
from kerasmed.runs import RunFolder
from kerasmed.texts import printable, text_for_figure

_COLUMNS = 8
_LEAST_EDGE = 96
REGIMES = {
    "real": "the real images that the diffusion model learned from",
    "synthetic": "synthetic images alone",
    "both": "these real images and the synthetic ones",
    "real_all": "all real images but the test ones: the ceiling",
}


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
        _draw_figures(run, image_set.subset(split["diffusion"]), synthetic)
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
    page = environment.get_template("report.html.j2").render(
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
    _draw_training(run.diffusion / "history.csv", run.figures / "training.png")
    _draw_accuracy(metrics, run.figures / "accuracy.png")
    curves = read_json(run.evaluation / "curves.json", "kerasmed evaluate")
    _draw_roc(curves, run.figures / "roc.png")
    _draw_reliability(curves, run.figures / "reliability.png")
    _draw_confusions(metrics, list(seen.class_names), run.figures / "confusion.png")
    trained = run.finished_stages()["classifiers"]["result"]["cells"]  # others may lie there too
    histories = [run.classifiers / name / "history.csv" for name in trained]
    _draw_classifier_training(histories, run.figures / "classifiers.png")
    _draw_grid(seen, run.figures / "real.png")
    _draw_grid(synthetic, run.figures / "synthetic.png")
    _draw_means(seen, synthetic, run.figures / "means.png")
    looks = read_json(run.evaluation / "appearance.json", "kerasmed audit")
    _draw_spectra(looks, run.figures / "spectra.png")
    _draw_histograms(looks, run.figures / "histograms.png")
    privacy = read_json(run.evaluation / "privacy.json", "kerasmed audit")
    _draw_pairs(privacy, synthetic, seen, run.figures / "pairs.png")
    summary = read_json(run.explanations / "summary.json", "kerasmed explain")
    _draw_attention(next(iter(summary.values())), run.figures / "attention.png")


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


def _draw_attention(summary: dict[str, Any], path: Path) -> None:
    """Where each network looks in the mean: one row a class, one column a network."""
    networks = summary["networks"]
    classes = list(next(iter(networks.values()))["mean_maps"])
    figure = Figure(figsize=(1.9 * len(networks) + 1, 1.9 * len(classes)), layout="constrained")
    all_axes = figure.subplots(len(classes), len(networks), squeeze=False)
    for column, (name, found) in enumerate(networks.items()):
        for row, class_name in enumerate(classes):
            axes = all_axes[row, column]
            values = np.array(found["mean_maps"][class_name])
            drawn = axes.imshow(values, cmap="PRGn", vmin=-1, vmax=1)
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(text_for_figure(name), fontsize=7)
            if column == 0:
                axes.set_ylabel(text_for_figure(class_name), fontsize=8)
    figure.colorbar(drawn, ax=all_axes, shrink=0.6)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with written_aside(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")


def _draw_training(history: Path, path: Path) -> None:
    rows = read_history(history)
    steps = [float(row["step"]) for row in rows]
    figure = Figure(figsize=(7, 3))
    axes = figure.subplots()
    axes.plot(steps, [float(row["loss"]) for row in rows], label="training")
    axes.plot(
        steps,
        [float(row["validation_loss"]) for row in rows],
        label="validation (averaged weights)",
    )
    axes.set(xlabel="step", ylabel="weighted squared error", yscale="log")
    axes.legend()
    _save(figure, path)


def _draw_classifier_training(histories: list[Path], path: Path) -> None:
    """Validation loss of each CNN by epoch, the phases one after the other."""
    figure = Figure(figsize=(7, 3))
    axes = figure.subplots()
    for history in histories:
        losses = [float(row["val_loss"]) for row in read_history(history)]
        name = text_for_figure(history.parent.name)
        axes.plot(range(1, len(losses) + 1), losses, marker=".", label=name)
    axes.set(xlabel="epoch, head first and then everything", ylabel="validation loss", yscale="log")
    axes.legend(fontsize=7)
    _save(figure, path)


def _draw_accuracy(metrics: list[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(7, 0.45 * len(metrics) + 1.2))
    axes = figure.subplots()
    for height, row in enumerate(reversed(metrics)):
        low, high = row["accuracy_ci95"]
        axes.plot([low, high], [height, height], color="0.4", linewidth=3, alpha=0.5)
        axes.plot(row["accuracy"], height, "o", color=f"C{list(REGIMES).index(row['trained_on'])}")
    axes.set_yticks(range(len(metrics)), [_name(row) for row in reversed(metrics)])
    axes.set(xlabel="accuracy on real test images, with 95% interval", xlim=(0, 1))
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def _draw_roc(curves: dict[str, Any], path: Path) -> None:
    """One panel a class: that class against the rest, one line a network."""
    classes = list(next(iter(curves.values()))["roc"])
    figure, all_axes = _panels(classes)
    for axes, class_name in zip(all_axes, classes, strict=True):
        for name, each in curves.items():
            roc = each["roc"][class_name]
            if "not_computed" not in roc:
                points = roc["false_positives"], roc["true_positives"]
                axes.plot(*points, label=text_for_figure(name), linewidth=1)
        axes.plot([0, 1], [0, 1], color="0.8", linestyle=":")
        axes.set_title(text_for_figure(class_name), fontsize=9)
        axes.set(xlabel="false positives", aspect="equal")
    all_axes[0].set_ylabel("true positives")
    _legend_below(figure, all_axes[0])
    _save(figure, path)


def _draw_reliability(curves: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.8", linestyle=":")
    for name, each in curves.items():
        bins = each["reliability"]
        points = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        axes.plot(*points, linewidth=1, label=text_for_figure(name))
        axes.scatter(*points, [120 * b["share"] + 4 for b in bins])
    axes.set(xlabel="probability of the named class", ylabel="share that is right", aspect="equal")
    _legend_below(figure, axes)
    _save(figure, path)


_LOOKS = {"seen": "real, training", "held_out": "real, held out", "generated": "synthetic"}


def _draw_spectra(looks: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, label in _LOOKS.items():
        power = looks[name]["spectrum"]
        axes.plot(range(1, len(power) + 1), power, label=label)
    axes.set(xlabel="cycles an image", ylabel="mean power", xscale="log", yscale="log")
    axes.legend(fontsize=8)
    _save(figure, path)


def _draw_histograms(looks: dict[str, Any], path: Path) -> None:
    figure, all_axes = _panels(("red", "green", "blue"))
    for axes, colour, channel in zip(all_axes, ("red", "green", "blue"), range(3), strict=True):
        for name, label in _LOOKS.items():
            shares = looks[name]["histogram"][channel]
            levels = [256 * (i + 0.5) / len(shares) for i in range(len(shares))]
            axes.plot(levels, [100 * share for share in shares], label=label, linewidth=1)
        axes.set_title(colour, fontsize=9)
        axes.set(xlabel="grey level", yscale="log")
    all_axes[0].set_ylabel("% of the pixels")
    _legend_below(figure, all_axes[0])
    _save(figure, path)


def _draw_means(seen: ImageSet, synthetic: ImageSet, path: Path) -> None:
    """Mean image of each class: real above, synthetic below."""
    tiles = [
        [
            _enlarge(
                np.asarray(images.images[images.labels == label]).mean(axis=0).astype(np.uint8)
            )
            for label in range(len(images.class_names))
        ]
        for images in (seen, synthetic)
    ]
    _save_tiles(np.array(tiles), path)


def _panels(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(2.3 * len(titles), 3.2), layout="constrained")
    return figure, list(figure.subplots(1, len(titles), squeeze=False)[0])


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    # 0.16 inches a line, of which there are two networks each.
    figure.set_figheight(figure.get_figheight() + 0.16 * -(-len(labels) // 2))
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7)


def _name(row: dict[str, Any]) -> str:
    precision = "" if row["precision"] == "fp32" else f" · {row['precision']}"
    on = trained_on(row["trained_on"], row["variant"])
    return text_for_figure(f"{row['backbone']} · {on} · s{row['seed']}{precision}")


def _draw_confusions(metrics: list[dict[str, Any]], classes: list[str], path: Path) -> None:
    columns = min(4, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(3.1 * columns, 3.3 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, row in zip(all_axes, metrics, strict=False):
        counts = np.array(row["confusion"])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i, j in np.ndindex(counts.shape):
            dark = counts[i, j] > 0.5 * counts[i].sum()
            colour = "white" if dark else "black"
            axes.text(j, i, counts[i, j], ha="center", va="center", color=colour, fontsize=8)
        axes.set_title(_name(row), fontsize=8)
        ticks, names = range(len(classes)), [text_for_figure(name) for name in classes]
        axes.set_xticks(ticks, names, rotation=45, ha="right", fontsize=7)
        axes.set_yticks(ticks, names, fontsize=7)
        axes.set_xlabel("predicted", fontsize=7)
        axes.set_ylabel("true", fontsize=7)
    for axes in all_axes[len(metrics) :]:
        axes.set_visible(False)
    _save(figure, path)


def _enlarge(image: np.ndarray) -> np.ndarray:
    factor = max(1, -(-_LEAST_EDGE // image.shape[0]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _draw_grid(images: ImageSet, path: Path) -> None:
    """One row a class, of each so many from its first to its last image; white where it has fewer.

    The first ones of a class may all be of one patient.
    """
    size = _enlarge(np.asarray(images.images[0])).shape[0]
    grid = np.full((len(images.class_names), _COLUMNS, size, size, 3), 255, np.uint8)
    for label in range(len(images.class_names)):
        rows = np.flatnonzero(images.labels == label)
        chosen = np.linspace(0, len(rows) - 1, min(_COLUMNS, len(rows))).round().astype(np.int64)
        for column, at in enumerate(rows[chosen]):
            grid[label, column] = _enlarge(np.asarray(images.images[at]))
    _save_tiles(grid, path)


def _draw_pairs(privacy: dict[str, Any], synthetic: ImageSet, seen: ImageSet, path: Path) -> None:
    """The most similar pairs: generated above, the training image that it is most like below."""
    pairs = privacy["copies"].get("nearest_pairs", [])
    if not pairs:
        path.unlink(missing_ok=True)
        return
    above = [_enlarge(np.asarray(synthetic.images[pair["generated"]])) for pair in pairs]
    below = [_enlarge(np.asarray(seen.images[pair["seen"]])) for pair in pairs]
    _save_tiles(np.array([above, below]), path)


def _save_tiles(tiles: np.ndarray, path: Path) -> None:
    """Tiles (rows, columns, size, size, 3) as one picture."""
    rows, columns, size = tiles.shape[:3]
    picture = tiles.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)
    with written_aside(path) as temporary:
        Image.fromarray(picture).save(temporary)
