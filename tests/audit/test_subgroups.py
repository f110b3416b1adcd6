import csv
import json

import numpy as np
import pytest
import yaml
from conftest import TINY, phantom_set
from jsonschema import Draft202012Validator

from kerasmed.audit.comparison import TrainedOn
from kerasmed.audit.subgroups import by_subgroup
from kerasmed.cli.main import main
from kerasmed.study.result_files import json_schema


def test_accuracy_of_each_value_by_hand():
    right = np.repeat([1.0, 0.0], [45, 15])
    correct = {TrainedOn("A", "real"): [right], TrainedOn("A", "both", "x3"): [1 - right]}
    columns = {"site": ["n"] * 30 + ["s"] * 30, "sex": ["F"] * 55 + [""] * 5}
    found = by_subgroup(correct, np.arange(60) // 2, columns)
    north, south = found["site"]["n"], found["site"]["s"]
    assert (north["images"], north["groups"]) == (30, 15)
    assert north["accuracy"]["A real"]["value"] == 1.0
    assert north["accuracy"]["A real"]["interval"][0] < 1  # the next patient may differ
    assert south["accuracy"]["A both x3"]["value"] == 0.5
    assert found["sex"].keys() == {"F"}


def test_ages_become_bands():
    ages = ["19", "20", "39.5", "60Y", "081Y", "unknown", "", "nan", "inf", "-1"]
    found = by_subgroup({}, np.arange(10), {"age": ages})["age"]
    assert {band: row["images"] for band, row in found.items()} == {
        "under 20": 1, "20 to 39": 2, "60 to 79": 1, "80 and over": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("images", "groups"), [(19, 19), (40, 4)])
def test_few_images_or_groups_get_no_figure(images, groups):
    correct = {TrainedOn("A", "real"): [np.ones(images)]}
    site = {"site": ["n"] * images}
    found = by_subgroup(correct, np.arange(images) % groups, site)["site"]["n"]
    assert "fewer than 20 images or 5 groups" in found["accuracy"]["not_computed"]


@pytest.mark.slow
def test_study_of_a_table_has_figures_by_subgroup(tmp_path):
    images = phantom_set(per_class=100)
    images.to_directory(tmp_path / "images")
    paths = sorted((tmp_path / "images").rglob("*.png"))
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "Sex", "age"])
        for i, path in enumerate(paths):
            writer.writerow(
                [path.relative_to(tmp_path), path.parent.name, "FM"[i % 2], 30 + i % 40]
            )
    values = {**TINY, "data": {"image_size": 16, "symmetry": "mirror"}}
    config, run = tmp_path / "table.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(values))
    table = ["--data", str(tmp_path / "table.csv"), "--out", str(run)]
    assert main(["study", str(config), *table]) == 0
    found = json.loads((run / "evaluation" / "subgroups.json").read_text())
    Draft202012Validator(json_schema("subgroups")).validate(found)
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert sum(row["images"] for row in found["sex"].values()) == metrics[0]["n_test"]
    of_all = [row["accuracy"]["MobileNet real"]["value"] for row in found["sex"].values()]
    assert min(of_all) <= metrics[0]["accuracy"] <= max(of_all)
    assert "By subgroup of the test images" in (run / "report.html").read_text()
    assert main(["release", str(run), str(tmp_path / "set")]) == 0
    assert "| sex F |" in (tmp_path / "set" / "DATASHEET.md").read_text()
