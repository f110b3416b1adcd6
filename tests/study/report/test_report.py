"""Pictures of the report."""

import json
from dataclasses import replace

import numpy as np
from conftest import accept_outputs, phantom_set
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.study.report.figures import draw_confusions, draw_roc
from kerasmed.study.report.fonts import fonts_for
from kerasmed.study.report.pictures import draw_grid


def test_grid_shows_each_class_from_its_first_to_its_last_image(tmp_path):
    images = phantom_set(per_class=100)
    shades = np.arange(100, dtype=np.uint8).repeat(16 * 16 * 3).reshape(100, 16, 16, 3)
    few = replace(images, images=np.concatenate([shades, shades])).subset([*range(100), 100, 101])

    draw_grid(few, tmp_path / "grid.png")

    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    size = grid.shape[0] // 2
    above, below = (row[size // 2, size // 2 :: size, 0].tolist() for row in np.split(grid, 2))
    assert above == np.linspace(0, 99, 8).round().tolist()
    assert below == [0, 1] + [255] * 6


NAMES = [".5 mm $x$_{a} %", "_肺/炎 [1]", "$", "a\udce9b\nc"]


def test_figures_take_any_name_of_a_class(tmp_path, capsys):
    row = {
        "confusion": np.eye(4, dtype=int).tolist(), "backbone": "N", "trained_on": "both",
        "variant": "x_3", "seed": 0, "precision": "fp32",
    }  # fmt: skip
    curve = {"false_positives": [0, 1], "true_positives": [0, 1]}
    roc = dict.fromkeys(NAMES, curve)

    with fonts_for(NAMES[:3]):
        draw_confusions([row], NAMES, tmp_path / "confusion.png")
        draw_roc({"_n": {"roc": roc}}, tmp_path / "roc.png")

    assert (tmp_path / "confusion.png").stat().st_size > 0
    assert (tmp_path / "roc.png").stat().st_size > 0
    assert len(capsys.readouterr().err.splitlines()) <= 1


def test_figures_show_classes_without_images_as_empty(tmp_path):
    row = {
        "confusion": [[2, 1], [0, 0]], "backbone": "N", "trained_on": "both", "variant": None,
        "seed": 0, "precision": "fp32",
    }  # fmt: skip

    draw_confusions([row], ["a", "b"], tmp_path / "confusion.png")
    draw_roc(
        {"n": {"roc": {"a": {"not_computed": "x"}, "b": {"not_computed": "x"}}}},
        tmp_path / "roc.png",
    )

    assert (tmp_path / "confusion.png").exists()
    assert (tmp_path / "roc.png").exists()


def test_page_of_a_single_random_split(tiny_config, run_copy):
    path = run_copy / "evaluation" / "leakage.json"
    leakage = json.loads(path.read_text())
    leakage["random"] |= {"standard_deviation": None, "values": leakage["random"]["values"][:1]}
    path.write_text(json.dumps(leakage))
    accept_outputs(run_copy)

    assert main(["report", str(tiny_config), "--out", str(run_copy)]) == 0

    assert "(1 splits) on splits by image" in (run_copy / "report.html").read_text()
