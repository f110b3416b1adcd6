"""Results as tables on the terminal."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table


def print_metrics(rows: list[dict[str, Any]]) -> None:
    """One line a classifier."""
    table = Table("backbone", "trained on", "seed", "n train", "accuracy %", "95% interval", "F1")
    for row in rows:
        low, high = row["accuracy_ci95"]
        table.add_row(
            row["backbone"],
            row["trained_on"],
            str(row["seed"]),
            str(row["n_train"]),
            f"{100 * row['accuracy']:.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{row['macro_f1']:.3f}",
        )
    Console().print(table)
    print(f"{rows[0]['n_test']} test images")


def print_predictions(rows: list[dict[str, Any]], as_json: bool) -> None:
    """One line an image, as a table or as JSON lines."""
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table("image", "predicted", *rows[0]["probabilities"])
    for row in rows:
        numbers = (f"{value:.3f}" for value in row["probabilities"].values())
        table.add_row(row["image"], row["predicted"], *numbers)
    Console().print(table)


def print_pairs(pairs: dict[str, Any]) -> None:
    """One line a finding."""
    table = Table("what", "found", show_header=False)
    for name, value in pairs.items():
        table.add_row(name, str(value))
    Console().print(table)
