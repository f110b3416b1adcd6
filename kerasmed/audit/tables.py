"""The figures of a study as CSV, for other programs, and as LaTeX, for a paper."""

import csv
import io
from collections.abc import Iterable
from statistics import mean, stdev
from typing import Any

from kerasmed.text import text_for_latex

_METRICS = (
    *("backbone", "trained_on", "variant", "seed", "precision", "n_train", "n_test"),
    *("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy"),
    *("macro_precision", "macro_recall", "macro_f1", "auroc", "ece", "accuracy_on_synthetic"),
)
_COMPARISONS = (
    *("backbone", "first", "second", "first_accuracy", "second_accuracy"),
    *("difference", "low", "high", "p_value", "conclusion"),
)
_FIDELITY = (
    *("compared_in", "class", "images", "kid", "kid_low", "kid_high"),
    *("fid", "precision", "recall", "density", "coverage"),
)


def trained_on(regime: str, variant: str | None) -> str:
    """What a CNN was trained on, in a word or two."""
    return regime if variant is None else f"{regime} {variant}"


def number_text(value: float | None, digits: int, factor: float = 1) -> str:
    """A figure of ``metrics.json``, or a dash where it was not computed.

    Args:
        value: the figure.
        digits: after the point.
        factor: 100 for percent.
    """
    return "-" if value is None else f"{factor * value:.{digits}f}"


def over_seeds_text(row: dict[str, Any], figure: str, digits: int, factor: float = 1) -> str:
    """Mean ± standard deviation, or the value of one seed; a dash where it was not computed.

    Args:
        row: of ``over_seeds.json``.
        figure: its key.
        digits: after the point.
        factor: 100 for percent.
    """
    spread = row["standard_deviation"][figure]
    text = number_text(row["mean"][figure], digits, factor)
    return text if spread is None else f"{text} ± {factor * spread:.{digits}f}"


def metrics_csv(rows: list[dict[str, Any]]) -> str:
    """One line a classifier.

    Args:
        rows: of ``metrics.json``.
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


def comparisons_csv(rows: list[dict[str, Any]]) -> str:
    """One line for each two ways of training.

    Args:
        rows: of ``comparisons.json``.
    """
    flat = []
    for row in rows:
        first, second = map(trained_on, row["regimes"], row["variants"])
        low, high = row["interval"]
        one, two = row["accuracy"]
        flat.append(
            {
                **row,
                **{"first": first, "second": second, "low": low, "high": high},
                **{"first_accuracy": one, "second_accuracy": two},
            }
        )
    return _csv(_COMPARISONS, flat)


def spaces_of(fidelity: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What ``fidelity.json`` holds, by a name of what the images were compared in."""
    of_cnn = f"features of {fidelity['features_of']}"
    return {
        of_cnn: fidelity["in_features"],
        **{f"features of {name}": each for name, each in fidelity["in_networks"].items()},
        "pixels": fidelity["in_pixels"],
        **{f"{of_cnn}, set {name}": each for name, each in fidelity["of_variants"].items()},
    }


def fidelity_csv(spaces: dict[str, dict[str, Any]]) -> str:
    """One line for each space, class, and synthetic or real images.

    Args:
        spaces: by name, what ``fidelity_by_class`` returns.
    """
    flat = []
    for space, found in spaces.items():
        for name, each in [("all", found), *found["per_class"].items()]:
            for images, key in (
                ("synthetic", "generated_to_held_out"),
                ("real", "seen_to_held_out"),
            ):
                if key in each:
                    low, high = each[key]["interval"]
                    named = {"compared_in": space, "class": name, "images": images}
                    flat.append({**each[key], **named, "kid_low": low, "kid_high": high})
    return _csv(_FIDELITY, flat)


def privacy_csv(found: dict[str, Any]) -> str:
    """One line a figure of the audit, without a name of a file; what was not computed is left out.

    Args:
        found: of ``privacy.json``.
    """
    rows: list[dict[str, Any]] = []

    def add(measure: str, value: float, interval: Iterable[float | str] = ("", "")) -> None:
        low, high = interval
        rows.append({"measure": measure, "value": value, "low": low, "high": high})

    copies = found["copies"]
    if "not_computed" not in copies:
        add("images drawn", copies["drawn"])
        if copies["rejected"] is not None:  # else they were not looked for
            add("of these copies, left out", copies["rejected"])
        add("copies in the set", len(copies["found"]))
        add("threshold of similarity", copies["threshold"])
        add("held-out images above it, share", copies["calibration"]["held_out"]["above"])
        closer = copies["closer_to_training"]["share"]
        add("closer to training than to held-out after alignment, share", closer)
        for row in copies["power"]:
            add(f"planted copies found, {row['alteration']}, share", row["found"])
    for space in ("in_pixels", "in_features"):
        if "not_computed" not in found[space]:
            name = space.replace("_", " ")
            closer = found[space]["share_closer_to_training"]
            add(f"closer to training than to held-out {name}, share", closer)
            add(f"C_T {name}", found[space]["c_t"])
            for images, share in found[space]["authenticity"].items():
                add(f"authentic {name}, {images.replace('_', '-')}, share", share)
    for row in found["membership"].get("levels", []):
        level = f"membership, timestep {row['timestep']}"
        add(f"{level}, area under the curve", row["auc"], row["interval"])
        add(
            f"{level}, true positives at 1% false ones",
            row["true_positives"],
            row["true_positives_interval"],
        )
    return _csv(("measure", "value", "low", "high"), rows)


def metrics_latex(rows: list[dict[str, Any]], caption: str) -> str:
    """The results as a table for LaTeX with the package booktabs.

    One line for each network and training set, float32 alone: with the 95% interval of the accuracy
    for one seed, else mean and standard deviation over the seeds.

    Args:
        rows: of ``metrics.json``.
        caption: plain text.
    """
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["precision"] == "fp32":
            key = (row["backbone"], trained_on(row["trained_on"], row["variant"]))
            cells.setdefault(key, []).append(row)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{text_for_latex(caption)}}}",
        r"\begin{tabular}{llrlrrrr}",
        r"\toprule",
        r"CNN & trained on & images & accuracy \% & precision & recall & F1 & AUROC \\",
        r"\midrule",
    ]
    above = ""
    for (backbone, name), members in cells.items():
        if above and backbone != above:
            lines.append(r"\midrule")
        figures = [
            "--" if None in values else f"{mean(values):.3f}"
            for key in ("macro_precision", "macro_recall", "macro_f1", "auroc")
            for values in [[row[key] for row in members]]
        ]
        shown = text_for_latex(backbone) if backbone != above else ""
        images = f"{members[0]['n_train']:,}".replace(",", r"\,")
        fields = [shown, text_for_latex(name), images, _accuracy(members), *figures]
        lines.append(" & ".join(fields) + r" \\")
        above = backbone
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _accuracy(members: list[dict[str, Any]]) -> str:
    percent = [100 * row["accuracy"] for row in members]
    if len(members) == 1:
        low, high = (100 * value for value in members[0]["accuracy_ci95"])
        return f"{percent[0]:.1f} ({low:.1f} to {high:.1f})"
    return rf"{mean(percent):.1f} $\pm$ {stdev(percent):.1f}"


def _csv(columns: tuple[str, ...], rows: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
