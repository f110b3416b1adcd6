"""CSV that reads back, and LaTeX that compiles."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kerasmed.audit.tables import (
    comparisons_csv,
    fidelity_csv,
    metrics_csv,
    metrics_latex,
    number_text,
    over_seeds_text,
    predictions_csv,
    privacy_csv,
    spaces_of,
)


def row(accuracy: float, seed: int = 0, **changes: object) -> dict:
    return {
        "backbone": "Mobile_Net", "trained_on": "both", "variant": None, "seed": seed,
        "precision": "fp32", "n_train": 1234, "n_test": 50, "accuracy": accuracy,
        "accuracy_ci95": [accuracy - 0.05, accuracy + 0.05], "macro_precision": 0.7,
        "macro_recall": 0.6, "macro_f1": 0.65, "auroc": 0.9, "ece": 0.1, "balanced_accuracy": 0.6,
        "accuracy_on_synthetic": None, "confusion": [[1]], **changes,
    }  # fmt: skip


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_metrics_read_back():
    (line,) = read(metrics_csv([row(0.8, variant="x3")]))

    assert (line["trained_on"], line["variant"], line["n_train"]) == ("both", "x3", "1234")
    assert float(line["accuracy_low"]) == pytest.approx(0.75)
    assert (line["accuracy_on_synthetic"], "confusion" in line) == ("", False)


def difference(first: float, second: float) -> dict:
    return {"of_each": [first, second], "difference": second - first, "interval": [0.02, 0.18]}


def test_comparisons_name_both_sides():
    compared = {
        "backbone": "A", "regimes": ["real", "both"], "variants": [None, "x3"],
        "accuracy": difference(0.8, 0.9), "balanced_accuracy": difference(0.7, 0.9),
        "sensitivity": {"a": difference(0.5, 0.9)}, "p_value": 0.01, "conclusion": "higher",
    }  # fmt: skip

    lines = read(comparisons_csv([compared]))

    assert [line["figure"] for line in lines] == ["accuracy", "balanced accuracy", "sensitivity a"]
    for line, first in zip(lines, ("0.8", "0.7", "0.5"), strict=True):
        assert (line["first"], line["second"]) == ("real", "both x3")
        assert (line["of_first"], line["of_second"], line["low"]) == (first, "0.9", "0.02")
    assert [line["p_value"] for line in lines] == ["0.01", "", ""]


def test_predictions_name_image_group_class_and_each_answer(phantoms):
    below = [replace(file, path=Path("/a/run") / file.path) for file in phantoms.files]
    images = replace(phantoms, groups=np.arange(len(phantoms)) // 2, files=tuple(below))
    always = np.tile([0.2, 0.8], (len(images), 1))
    lines = read(predictions_csv(images, {"always": always, "right": images.targets}))
    assert [line["image"] for line in lines] == [file.name for file in phantoms.files]
    assert [line["group"] for line in lines[:3]] == ["0", "0", "1"]
    assert {line["always"] for line in lines} == {images.class_names[1]}
    assert [line["right"] for line in lines] == [line["class"] for line in lines]


def test_predictions_of_files_with_and_without_a_root_are_named(phantoms):
    first, *others = phantoms.files
    images = replace(phantoms, files=(replace(first, path=Path("/a.png")), *others))
    lines = read(predictions_csv(images, {"right": images.targets}))
    assert [line["image"] for line in lines[:2]] == ["/a.png", others[0].name]


def test_fidelity_has_a_line_for_each_space_class_and_kind_that_was_computed():
    figures = {"kid": 0.1, "interval": [0.0, 0.2], "fid": None, "precision": 0.9}
    result = {"synthetic_to_reserve": figures, "train_to_reserve": figures}
    whole = {**result, "per_class": {"a": result, "b": {"not_computed": "too few"}}}
    fidelity = {
        "features_of": "N", "in_features": whole, "in_pixels": whole,
        "in_networks": {"InceptionV3 (imagenet)": whole}, "of_variants": {"x3": whole},
    }  # fmt: skip

    rows = read(fidelity_csv(spaces_of(fidelity)))

    assert [(r["class"], r["images"]) for r in rows[:4]] == [
        ("all", "synthetic"), ("all", "real"), ("a", "synthetic"), ("a", "real"),
    ]  # fmt: skip
    assert list(dict.fromkeys(r["compared_in"] for r in rows)) == [
        "features of InceptionV3 (imagenet)", "features of N", "pixels", "features of N, set x3",
    ]  # fmt: skip
    assert len(rows) == 4 * 4


def test_privacy_has_a_line_for_each_figure_that_was_computed():
    close = {"fraction_closer_to_train": 0.5, "c_t": 1.5, "authenticity": {"reserve": 0.8}}
    level = {"auc": 0.6, "interval": [0.5, 0.7], "true_positives": 0.02}
    privacy = {
        "copies": {
            "filter": {"drawn": 12, "rejected": 2}, "images": 10, "found": [], "threshold": 0.9,
            "fresh": {"images": 9, "copies": 1}, "p_value": 0.4,
            "power": [{"alteration": "mirrored", "found": 0.95}], "noticed": {"0.01": 0.3},
        },
        "in_pixels": close, "in_features": {"not_computed": "too few"},
        "membership": {
            "levels": [{"timestep": "all", "true_positives_interval": [0, 0.1], **level}]
        },
    }  # fmt: skip

    rows = {line["measure"]: line for line in read(privacy_csv(privacy))}

    assert rows["planted copies found, mirrored, fraction"]["value"] == "0.95"
    assert rows["chance to notice a fraction of 0.01 copies"]["value"] == "0.3"
    assert rows["C_T in pixels"]["value"] == "1.5"
    area = rows["membership, timestep all, area under the curve"]
    assert (area["value"], area["low"], area["high"]) == ("0.6", "0.5", "0.7")
    assert not any("features" in name for name in rows)
    privacy["copies"]["filter"] = None
    assert not any("left out" in line["measure"] for line in read(privacy_csv(privacy)))
    nothing = {"not_computed": "too few"}
    assert read(privacy_csv(dict.fromkeys(privacy, nothing))) == []


def test_latex_escapes_and_shows_an_interval_or_a_spread():
    rows = [row(0.8), row(0.7, 0, trained_on="real"), row(0.9, 1, trained_on="real")]
    rows.append(row(0.1, precision="int8"))

    table = metrics_latex(rows, "50% of R&D_1")

    assert r"\caption{50\% of R\&D\_1}" in table
    assert r"Mobile\_Net & both & 1\,234 & 80.0 (75.0 to 85.0) & 0.700 & 0.600" in table
    assert r" & real & 1\,234 & 80.0 $\pm$ 14.1 &" in table
    body = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len(body) == 3
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {7}
    assert "10.0" not in table


def test_latex_of_two_networks_by_hand():
    first, second = row(0.8), row(0.9, trained_on="real", n_train=900)

    table = metrics_latex([first, second, row(0.7, backbone="B")], "C")

    assert (
        table
        == r"""\begin{table}
\centering
\caption{C}
\begin{tabular}{llrlrrrr}
\toprule
CNN & trained on & images & accuracy \% & precision & recall & F1 & AUROC \\
\midrule
Mobile\_Net & both & 1\,234 & 80.0 (75.0 to 85.0) & 0.700 & 0.600 & 0.650 & 0.900 \\
 & real & 900 & 90.0 (85.0 to 95.0) & 0.700 & 0.600 & 0.650 & 0.900 \\
\midrule
B & both & 1\,234 & 70.0 (65.0 to 75.0) & 0.700 & 0.600 & 0.650 & 0.900 \\
\bottomrule
\end{tabular}
\end{table}
"""
    )


def test_rows_of_latex_start_with_no_argument_of_the_row_above():
    rows = [row(0.8, backbone="[1] a"), row(0.7, backbone="*b"), row(0.6, backbone="肺_{炎}")]

    table = metrics_latex(rows, "$x$ [y]\n\n%")

    assert r"\caption{\$x\$ {[}y{]}\textbackslash{}n\textbackslash{}n\%}" in table
    starts = [line.split(" & ")[0] for line in table.splitlines() if line.endswith(r"\\")]
    assert starts[1:] == ["{[}1{]} a", "{*}b", r"肺\_\{炎\}"]


def test_figures_that_were_not_computed_are_dashes():
    rows = [row(0.8, auroc=None, macro_f1=None)]

    assert metrics_latex(rows, "").count("& --") == 2
    assert [read(metrics_csv(rows))[0][name] for name in ("auroc", "macro_f1")] == ["", ""]
    assert number_text(None, 3) == "-"
    assert number_text(0.5, 1, 100) == "50.0"
    nothing = {"mean": {"auroc": None}, "standard_deviation": {"auroc": None}}
    assert over_seeds_text(nothing, "auroc", 3) == "-"


@pytest.mark.parametrize("name", ["=1+1", '肺,"炎"', "a\nb", "-x", "@x"])
def test_csv_gives_names_back_as_they_were(name):
    figures = {"kid": 0.1, "interval": [0.0, 0.2]}
    of_class = {"synthetic_to_reserve": figures}
    result = {**of_class, "per_class": {name: of_class}}

    assert [line["class"] for line in read(fidelity_csv({"pixels": result}))] == ["all", name]
