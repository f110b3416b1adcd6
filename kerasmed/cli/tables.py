"""Results as tables on the terminal."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as RichTable

from kerasmed.audit.tables import number_text, over_seeds_text, trained_on
from kerasmed.text import printable

if TYPE_CHECKING:
    from kerasmed.audit.rules import Verdict
    from kerasmed.study.result_files import ResultFile


class Table(RichTable):
    """A table whose values may be names of files."""

    def add_row(self, *values: Any, **options: Any) -> None:
        """Add one row, with each value on one line."""
        super().add_row(*map(printable, values), **options)


def _print(table: Table) -> None:
    """Print names of classes and files as they are, without markup or ``:name:`` emoji."""
    Console(markup=False, emoji=False).print(table)


def print_metrics(rows: list[dict[str, Any]]) -> None:
    """Print one line per classifier, and why some metrics could not be computed."""
    table = Table("backbone", "trained on", "seed", "n train", "accuracy %", "95% interval", "F1")
    for row in rows:
        low, high = row["accuracy_ci95"]
        table.add_row(
            _network(row),
            trained_on(str(row["trained_on"]), row["variant"]),
            str(row["seed"]),
            str(row["n_train"]),
            f"{100 * row['accuracy']:.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            number_text(row["macro_f1"], 3),
        )
    _print(table)
    print(f"{rows[0]['n_test']} test images")
    if "not_computed" in rows[0]:
        print(f"Not computed: {rows[0]['not_computed']}.")


def print_over_seeds(rows: list[dict[str, Any]]) -> None:
    """Print mean and standard deviation over seeds, if there are several seeds."""
    if all(row["seeds"] == 1 for row in rows):
        return
    table = Table("backbone", "trained on", "seeds", "accuracy %", "F1")
    for row in rows:
        table.add_row(
            _network(row),
            trained_on(row["trained_on"], row["variant"]),
            str(row["seeds"]),
            over_seeds_text(row, "accuracy", 1, 100),
            over_seeds_text(row, "macro_f1", 3),
        )
    _print(table)


def print_comparisons(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print one line per compared pair of regimes, if there is any."""
    if not rows:
        return
    table = Table("backbone", "compared", "points", "95% interval", "p", "conclusion")
    for row in rows:
        low, high = row["accuracy"]["interval"]
        first, second = map(trained_on, row["regimes"], row["variants"])
        table.add_row(
            row["backbone"],
            f"{second} less {first}",
            f"{100 * row['accuracy']['difference']:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            f"{row['p_value']:.4f}",
            row["conclusion"],
        )
    _print(table)


def _network(row: dict[str, Any]) -> str:
    """Backbone, and the precision if it is not float32."""
    precision = "" if row["precision"] in ("fp32", None) else f" {row['precision']}"
    return f"{row['backbone']}{precision}"


def print_split(result: dict[str, Any]) -> None:
    """Print the number of images by class and role, and the groups."""
    roles = result["roles"]
    table = Table("class", "images", *roles)
    for name, count in result["images"].items():
        table.add_row(name, str(count), *(str(counts[name]) for counts in roles.values()))
    _print(table)
    print(f"{result['groups']} groups, the largest of {result['largest_group']} images")
    print("\n".join(_duplicate_lines(result["duplicates"])))
    if result["skipped"]:
        print(
            f"{len(result['skipped'])} unreadable files left out, such as: {result['skipped'][0]}"
        )
    _print_remarks(result)


def print_leakage(leakage: dict[str, Any]) -> None:
    """Print the accuracy under either kind of split."""
    table = Table("split", "accuracy %", "standard deviation")
    for name, title in (("random", "random, by image"), ("grouped", "by group, as in this study")):
        deviation = leakage[name]["standard_deviation"]  # None with a single split
        deviation_text = "" if deviation is None else f"{100 * deviation:.1f}"
        table.add_row(title, f"{100 * leakage[name]['mean']:.1f}", deviation_text)
    _print(table)
    print(f"Logistic regression on features of {leakage['features_of']}.")


def print_datasets(datasets: dict[str, Any]) -> None:
    """Print the data sets that can be fetched by name."""
    for name, entry in datasets.items():
        counts = ", ".join(f"{label} {count}" for label, count in entry.counts.items())
        print(f"{name}: {sum(entry.counts.values())} images ({counts})")
        print(f"  {entry.address}")
        print(f"  Licence: {entry.licence}. Cite: {entry.citation}.")


def print_counts(counts: dict[str, int], published: dict[str, int]) -> None:
    """Print the number of images found and published, by class."""
    table = Table("class", "found", "published")
    for name, count in published.items():
        table.add_row(name, str(counts[name]), str(count))
    _print(table)


def print_findings(findings: Mapping[str, Any], as_json: bool) -> None:
    """Print the findings of ``kerasmed data check``, in short or as JSON."""
    if as_json:
        print(json.dumps(findings, indent=2))
        return
    table = Table("class", "images")
    for name, count in findings["classes"].items():
        table.add_row(name, str(count))
    _print(table)
    patients = findings["patients"]
    unreadable = findings["unreadable"]
    print(f"{findings['images']} images, {findings['sizes']['different']} different sizes")
    print("Patients: " + ("not named" if patients is None else str(patients)))
    print(f"Unreadable: {len(unreadable)}" + (f", such as: {unreadable[0]}" if unreadable else ""))
    print("\n".join(_duplicate_lines(findings["duplicates"])))
    print(f"Outliers in brightness: {len(findings['brightness_outliers'])}")
    for row in findings["shortcuts"]:
        print(
            f"Class from {row['clue']} only: {100 * row['accuracy']:.1f}% correct "
            f"(most frequent class: {100 * row['most_frequent_class']:.1f}%)"
        )
    _print_remarks(findings)


def _print_remarks(result: Mapping[str, Any]) -> None:
    if result["grey_range"]:
        black, white = result["grey_range"]
        print(f"Grey range of files without one: {black:.6g} (black) to {white:.6g} (white)")
    for line in result["remarks"]:
        print(f"Note: {line}")


def _duplicate_lines(duplicates: dict[str, Any]) -> list[str]:
    conflicts = len(duplicates["label_conflicts"])
    across = duplicates["near_across_labels"]
    byte_copies, pixel_copies = duplicates["byte_identical"], duplicates["pixel_identical"]
    lines = [
        f"Copies: {byte_copies} with equal bytes, {pixel_copies} with equal pixels",
        f"Near-duplicates: {duplicates['near_duplicates']} images, and "
        f"{duplicates['only_mirrored_or_turned']} more when mirrored or turned",
        f"With two labels: {conflicts} pairs of equal pixels, {len(across)} near-duplicate pairs",
    ]
    return lines + [f"  {a} and {b}" for a, b in across[:10]]


def print_predictions(
    rows: Iterable[Mapping[str, Any]], class_names: list[str], as_json: bool
) -> tuple[int, list[str]]:
    """Print one line per image, as a table or, while they come, as JSON lines.

    Returns:
        How many images there were, and the errors of those that could not be read.
    """
    count, errors = 0, []
    table = Table("image", "predicted", *map(printable, class_names))
    for row in rows:
        count += 1
        if "error" in row:
            errors.append(row["error"])
        else:
            numbers = (f"{value:.3f}" for value in row["probabilities"].values())
            table.add_row(row["image"], row["predicted"], *numbers)
        if as_json:
            print(json.dumps(row), flush=True)
    if not as_json and table.row_count:
        _print(table)
    return count, errors


def print_pairs(pairs: dict[str, Any]) -> None:
    """Print one line per name and value."""
    table = Table("what", "found", show_header=False)
    for name, value in pairs.items():
        table.add_row(name, str(value))
    _print(table)


def print_explanation(path: Path, record: dict[str, Any]) -> None:
    """Print one line per explanation, and one for each reason not to rely on it."""
    name = record["predicted_class"]
    texts = [f"{name} {100 * record['probabilities'][name]:.1f}%"]
    if record["r2"]:
        texts.append(f"R² {record['r2'][name]:.2f}")
    if record["stability"]:
        texts.append(f"stability {record['stability']['top_overlap']:.2f}")
    texts += [f"{record['num_samples']} samples", f"{record['duration_s']:.2f} s"]
    print(f"{path}: {', '.join(texts)}", flush=True)
    for warning in record["warnings"]:
        print(f"  do not rely on it: {warning}", flush=True)


def print_explanations(summary: dict[str, Any]) -> None:
    """Print one table per explainer, with one column per network."""
    from kerasmed.explain.summary import FIGURES, figure_texts  # needs SciPy

    for explainer, explained in summary.items():
        networks = explained["networks"]
        table = Table(explainer, *networks)
        columns = [figure_texts(figures) for figures in networks.values()]
        for (title, _, _), *texts in zip(FIGURES, *columns, strict=True):
            if any(texts):
                table.add_row(title, *texts)
        _print(table)


def print_result_files(kinds: Mapping[str, "ResultFile"]) -> None:
    """Print each kind of result file, where it is and what it holds."""
    table = Table("name", "file", "holds")
    for name, file in kinds.items():
        table.add_row(name, file.where(), file.holds)
    _print(table)


def print_verdicts(verdicts: "Iterable[Verdict]") -> None:
    """One paragraph for each answer."""
    for verdict in verdicts:
        print(f"{verdict.question.capitalize()}: {verdict.light}. {printable(verdict.answer)}")
