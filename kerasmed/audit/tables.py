"""The figures of a study as CSV for other programs, and as LaTeX for a paper."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasmed.data.image_file import common_folder
from kerasmed.text import text_for_latex

if TYPE_CHECKING:
    from kerasmed.data.image_set import ImageSet

_METRICS = (
    *("backbone", "trained_on", "variant", "seed", "precision", "n_train", "n_test"),
    *("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy"),
    *("macro_precision", "macro_recall", "macro_f1", "auroc", "ece", "accuracy_on_synthetic"),
)
_COMPARISONS = (
    *("backbone", "first", "second", "figure", "of_first", "of_second"),
    *("difference", "low", "high", "p_value", "conclusion"),
)
_FIDELITY = (
    *("compared_in", "class", "images", "kid", "kid_low", "kid_high"),
    *("fid", "precision", "recall", "density", "coverage"),
)


def trained_on(regime: str, variant: str | None) -> str:
    """The name of a training set: the regime, and the variant of the synthetic set if any."""
    return regime if variant is None else f"{regime} {variant}"


def number_text(value: float | None, digits: int, factor: float = 1) -> str:
    """A figure of ``metrics.json`` as text, or a dash where it was not computed.

    Args:
        value: The figure.
        digits: Digits after the point.
        factor: 100 for percent.
    """
    return "-" if value is None else f"{factor * value:.{digits}f}"


def over_seeds_text(row: dict[str, Any], figure: str, digits: int, factor: float = 1) -> str:
    """Mean ± standard deviation, or the value of one seed; a dash where it was not computed.

    Args:
        row: A row of ``over_seeds.json``.
        figure: Its key.
        digits: Digits after the point.
        factor: 100 for percent.
    """
    spread = row["standard_deviation"][figure]
    text = number_text(row["mean"][figure], digits, factor)
    return text if spread is None else f"{text} ± {factor * spread:.{digits}f}"


def points_text(figure: Mapping[str, Any]) -> str:
    """A difference of ``comparisons.json`` in percentage points, with its interval."""
    low, high = figure["interval"]
    return f"{100 * figure['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def metrics_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV with one line for each classifier.

    Args:
        rows: Those of ``metrics.json``.
    """
    return _csv(
        _METRICS,
        (
            {
                **row,
                "accuracy_low": row["accuracy_ci95"][0],
                "accuracy_high": row["accuracy_ci95"][1],
            }
            for row in rows
        ),
    )


def predictions_csv(images: "ImageSet", probabilities: Mapping[str, np.ndarray]) -> str:
    """CSV with one line for each test image: what it shows, and what each CNN names it.

    Args:
        images: the test images, with groups; they are named below the folder of all of them.
        probabilities: float (n, classes) of each CNN, by its name.
    """
    from kerasmed.data.measurements import name_in_set  # slow for a program that only predicts

    named = {name: of_network.argmax(axis=1) for name, of_network in probabilities.items()}
    names, groups = images.class_names, images.groups
    root = common_folder(images.files)
    rows = (
        {
            "image": name_in_set(file.path, file.frame, root),
            "group": None if groups is None else groups[row],
            "class": names[images.labels[row]],
            **{name: names[predicted[row]] for name, predicted in named.items()},
        }
        for row, file in enumerate(images.files)
    )
    return _csv(("image", "group", "class", *named), rows)


def comparisons_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV with one line for each figure of each comparison of two regimes.

    Args:
        rows: Those of ``comparisons.json``.
    """
    flat = []
    for row in rows:
        first, second = map(trained_on, row["regimes"], row["variants"])
        figures = {"accuracy": row["accuracy"], "balanced accuracy": row["balanced_accuracy"]}
        figures |= {f"sensitivity {name}": of for name, of in row["sensitivity"].items()}
        for name, of in figures.items():
            (of_first, of_second), (low, high) = of["of_each"], of["interval"]
            tested = {"p_value": row["p_value"], "conclusion": row["conclusion"]}
            flat.append(
                {
                    **{"backbone": row["backbone"], "first": first, "second": second},
                    **{"figure": name, "of_first": of_first, "of_second": of_second},
                    **{"difference": of["difference"], "low": low, "high": high},
                    **(tested if name == "accuracy" else {}),
                }
            )
    return _csv(_COMPARISONS, flat)


def spaces_of(fidelity: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The results in ``fidelity.json``, by a name of the space that images were compared in.

    The first is the one that decides whether the set is faithful.
    """
    of_cnn = f"features of {fidelity['features_of']}"
    return {
        **{f"features of {name}": result for name, result in fidelity["in_networks"].items()},
        of_cnn: fidelity["in_features"],
        "pixels": fidelity["in_pixels"],
        **{f"{of_cnn}, set {name}": result for name, result in fidelity["of_variants"].items()},
    }


def fidelity_csv(spaces: dict[str, dict[str, Any]]) -> str:
    """CSV with one line for each space, each class, and synthetic or real images.

    Args:
        spaces: Results of ``fidelity_by_class``, by the name of the space.
    """
    flat = []
    for space, result in spaces.items():
        for name, of_class in [("all", result), *result["per_class"].items()]:
            for images, key in (
                ("synthetic", "synthetic_to_reserve"),
                ("real", "train_to_reserve"),
            ):
                if key in of_class:
                    low, high = of_class[key]["interval"]
                    names = {"compared_in": space, "class": name, "images": images}
                    flat.append({**of_class[key], **names, "kid_low": low, "kid_high": high})
    return _csv(_FIDELITY, flat)


def privacy_csv(privacy: Mapping[str, Any]) -> str:
    """CSV with one line for each computed figure of ``privacy.json``, without file names.

    Args:
        privacy: The content of ``privacy.json``.
    """
    rows: list[dict[str, Any]] = []

    def add(measure: str, value: float, interval: Iterable[float | str] = ("", "")) -> None:
        low, high = interval
        rows.append({"measure": measure, "value": value, "low": low, "high": high})

    copies = privacy["copies"]
    if "not_computed" not in copies:
        if copies["filter"] is not None:
            add("images drawn", copies["filter"]["drawn"])
            add("of these left out by the copy filter", copies["filter"]["rejected"])
        add("synthetic images searched", copies["images"])
        add("copies in the set", len(copies["found"]))
        add("real images searched", copies["fresh"]["images"])
        add("copies among the real images", copies["fresh"]["copies"])
        add("p value of more copies than among real images", copies["p_value"])
        add("threshold of the ratio of distances", copies["threshold"])
        for row in copies["power"]:
            add(f"planted copies found, {row['alteration']}, fraction", row["found"])
        for fraction, chance in copies["noticed"].items():
            add(f"chance to notice a fraction of {fraction} copies", chance)
    for space in ("in_pixels", "in_features"):
        if "not_computed" not in privacy[space]:
            name = space.replace("_", " ")
            closer = privacy[space]["fraction_closer_to_train"]
            add(f"closer to training than to reserve images {name}, fraction", closer)
            add(f"C_T {name}", privacy[space]["c_t"])
            for images, fraction in privacy[space]["authenticity"].items():
                add(f"authentic {name}, {images}, fraction", fraction)
    for row in privacy["membership"].get("levels", []):
        level = f"membership, timestep {row['timestep']}"
        add(f"{level}, area under the curve", row["auc"], row["interval"])
        add(
            f"{level}, true positives at 1% false ones",
            row["true_positives"],
            row["true_positives_interval"],
        )
    return _csv(("measure", "value", "low", "high"), rows)


def metrics_latex(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    """The float32 results as a LaTeX table that needs the package booktabs.

    It has one line for each network and training set. The accuracy has its 95% interval if there is
    one seed, else mean and standard deviation over the seeds.

    Args:
        rows: Those of ``metrics.json``.
        caption: Caption in plain text.
    """
    from jinja2 import Environment, FileSystemLoader  # slow for a program that only predicts

    by_line: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["precision"] == "fp32":
            key = (row["backbone"], trained_on(row["trained_on"], row["variant"]))
            by_line.setdefault(key, []).append(row)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        # LaTeX itself is full of braces and percent signs.
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "latex": text_for_latex,
        "thousands": lambda count: f"{count:,}".replace(",", r"\,"),
        "accuracy": _accuracy,
        "average": _average,
    }
    return environment.get_template("metrics.tex.j2").render(caption=caption, by_line=by_line)


def _accuracy(members: Sequence[Mapping[str, Any]]) -> str:
    percent = [100 * row["accuracy"] for row in members]
    if len(members) == 1:
        low, high = (100 * value for value in members[0]["accuracy_ci95"])
        return f"{percent[0]:.1f} ({low:.1f} to {high:.1f})"
    return rf"{mean(percent):.1f} $\pm$ {stdev(percent):.1f}"


def _average(members: Sequence[Mapping[str, Any]], figure: str) -> str:
    values = [row[figure] for row in members]
    return "--" if None in values else f"{mean(values):.3f}"


def _csv(columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
