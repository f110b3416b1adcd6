"""Figures of the report, drawn with matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerasmed.audit.tables import trained_on
from kerasmed.files import read_history, written_aside
from kerasmed.text import text_for_figure

REGIMES = {
    "real": "the real images that the diffusion model learned from",
    "real_twice": "these real images in two trainings in turn: the control of pretrained",
    "real_best": "these real images, by the best of six recipes on the validation images",
    "synthetic": "synthetic images alone",
    "both": "these real images and the synthetic ones",
    "pretrained": "synthetic images first, and then these real ones, in as many steps in all",
    "best": "what does best on the validation images; synthetic images only if they clearly help",
    "real_all": "all real images except the test images: the ceiling",
}


def draw_attention(summary: dict[str, Any], path: Path) -> None:
    """Mean explanation of each network: one row per class, one column per network."""
    networks = summary["networks"]
    classes = list(next(iter(networks.values()))["mean_maps"])
    figure = Figure(figsize=(1.9 * len(networks) + 1, 1.9 * len(classes)), layout="constrained")
    all_axes = figure.subplots(len(classes), len(networks), squeeze=False)
    for column, (name, network) in enumerate(networks.items()):
        for row, class_name in enumerate(classes):
            axes = all_axes[row, column]
            values = np.array(network["mean_maps"][class_name])
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


def draw_training(history: Path, path: Path) -> None:
    """Training and validation loss of the diffusion model or the upscaler, by step."""
    rows = read_history(history)
    steps = [float(row["step"]) for row in rows]
    figure = Figure(figsize=(7, 3))
    axes = figure.subplots()
    axes.plot(steps, [float(row["loss"]) for row in rows], label="training")
    axes.plot(
        steps,
        [float(row["validation_loss"]) for row in rows],
        label="validation (EMA weights)",
    )
    axes.set(xlabel="step", ylabel="weighted squared error", yscale="log")
    axes.legend()
    _save(figure, path)


def draw_worth(worth: dict[str, Any], path: Path) -> None:
    """The learning curve of real images alone, and the accuracy that the synthetic set reaches."""
    points = worth["curve"]
    sizes = [point["images"] for point in points]
    means = np.array([point["accuracy"] for point in points])
    ends = np.array([point["interval"] for point in points]).T
    figure = Figure(figsize=(7, 3.5))
    axes = figure.subplots()
    lengths = np.maximum(np.abs(ends - means), 0)
    axes.errorbar(sizes, means, lengths, fmt="o", color="C0", capsize=3, label="real images alone")
    axes.plot(sizes, [point["fitted"] for point in points], color="C0")
    use = trained_on(worth["regime"], worth["variant"])
    axes.axhline(worth["accuracy"]["value"], color="C1", label=text_for_figure(use))
    axes.axhspan(*worth["accuracy"]["interval"], color="C1", alpha=0.15, linewidth=0)
    axes.axvline(worth["train"], color="grey", linestyle=":", label="all of train")
    axes.set(xlabel="real images", ylabel="accuracy", xscale="log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.legend(fontsize=8)
    _save(figure, path)


def draw_classifier_training(histories: list[Path], path: Path) -> None:
    """Validation loss of each CNN by epoch, over both phases."""
    figure = Figure(figsize=(7, 3))
    axes = figure.subplots()
    for history in histories:
        losses = [float(row["val_loss"]) for row in read_history(history)]
        name = text_for_figure(history.parent.name)
        axes.plot(range(1, len(losses) + 1), losses, marker=".", label=name)
    axes.set(
        xlabel="epoch (first the head, then all layers)", ylabel="validation loss", yscale="log"
    )
    axes.legend(fontsize=7)
    _save(figure, path)


def draw_accuracy(metrics: list[dict[str, Any]], path: Path) -> None:
    """Accuracy of each CNN with its interval."""
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


def draw_roc(curves: dict[str, Any], path: Path) -> None:
    """ROC curves: one panel per class (that class against the rest), one line per network."""
    classes = list(next(iter(curves.values()))["roc"])
    figure, all_axes = _panels(classes)
    for axes, class_name in zip(all_axes, classes, strict=True):
        for name, network in curves.items():
            roc = network["roc"][class_name]
            if "not_computed" not in roc:
                points = roc["false_positives"], roc["true_positives"]
                axes.plot(*points, label=text_for_figure(name), linewidth=1)
        axes.plot([0, 1], [0, 1], color="0.8", linestyle=":")
        axes.set_title(text_for_figure(class_name), fontsize=9)
        axes.set(xlabel="false positive rate", aspect="equal")
    all_axes[0].set_ylabel("true positive rate")
    _legend_below(figure, all_axes[0])
    _save(figure, path)


def draw_reliability(curves: dict[str, Any], path: Path) -> None:
    """Reliability diagram, with points as large as the number of images in their bin."""
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.8", linestyle=":")
    for name, network in curves.items():
        bins = network["reliability"]
        points = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        axes.plot(*points, linewidth=1, label=text_for_figure(name))
        axes.scatter(*points, [120 * b["fraction"] + 4 for b in bins])
    axes.set(xlabel="probability of the predicted class", ylabel="accuracy", aspect="equal")
    _legend_below(figure, axes)
    _save(figure, path)


_SETS = {"train": "real, train", "reserve": "real, reserve", "synthetic": "synthetic"}


def draw_spectra(appearance: dict[str, Any], path: Path) -> None:
    """Mean power by spatial frequency of each set."""
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, label in _SETS.items():
        power = appearance[name]["spectrum"]
        axes.plot(range(1, len(power) + 1), power, label=label)
    axes.set(xlabel="cycles per image", ylabel="mean power", xscale="log", yscale="log")
    axes.legend(fontsize=8)
    _save(figure, path)


def draw_strength(appearance: dict[str, Any], path: Path) -> None:
    """Power by band, contrast and variation of brightness, over those of ``reserve``."""
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for shift, name in ((-0.1, "train"), (0.1, "synthetic")):
        strength = appearance["strength"][name]
        ratios = [*strength["bands"], strength["contrast"], strength["brightness"]]
        values = [ratio["ratio"] for ratio in ratios]
        intervals = [r["interval"] or (r["ratio"], r["ratio"]) for r in ratios]
        ends = np.abs(np.transpose(intervals) - values)
        positions = [at + shift for at in range(len(ratios))]
        axes.errorbar(positions, values, ends, fmt="o", markersize=4, label=_SETS[name])
    bands = [
        f"{band['first']} to {band['last']}" if band["first"] < band["last"] else "1"
        for band in strength["bands"]
    ]
    axes.set_xticks(range(len(ratios)), [*bands, "contrast", "brightness"], fontsize=7)
    axes.axhline(1, color="grey", linewidth=1)
    axes.set(xlabel="power by cycles per image; contrast; brightness", ylabel="over reserve")
    axes.legend(fontsize=8, loc="lower left")
    _save(figure, path)


def draw_histograms(appearance: dict[str, Any], path: Path) -> None:
    """Histograms of red, green and blue of each set."""
    figure, all_axes = _panels(("red", "green", "blue"))
    for axes, colour, channel in zip(all_axes, ("red", "green", "blue"), range(3), strict=True):
        for name, label in _SETS.items():
            fractions = appearance[name]["histogram"][channel]
            levels = [256 * (i + 0.5) / len(fractions) for i in range(len(fractions))]
            axes.plot(levels, [100 * value for value in fractions], label=label, linewidth=1)
        axes.set_title(colour, fontsize=9)
        axes.set(xlabel="grey level", yscale="log")
    all_axes[0].set_ylabel("% of pixels")
    _legend_below(figure, all_axes[0])
    _save(figure, path)


def _panels(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(2.3 * len(titles), 3.2), layout="constrained")
    return figure, list(figure.subplots(1, len(titles), squeeze=False)[0])


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    # 0.16 inches per line, with two networks in each.
    figure.set_figheight(figure.get_figheight() + 0.16 * -(-len(labels) // 2))
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7)


def _name(row: dict[str, Any]) -> str:
    precision = "" if row["precision"] == "fp32" else f" · {row['precision']}"
    regime = trained_on(row["trained_on"], row["variant"])
    return text_for_figure(f"{row['backbone']} · {regime} · s{row['seed']}{precision}")


def draw_confusions(metrics: list[dict[str, Any]], classes: list[str], path: Path) -> None:
    """Confusion matrix of each CNN, coloured by the fraction of each true class."""
    columns = min(4, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(3.1 * columns, 3.3 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, row in zip(all_axes, metrics, strict=False):
        counts = np.array(row["confusion"])
        fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
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
