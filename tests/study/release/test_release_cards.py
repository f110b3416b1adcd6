"""Cards of a release, for people and for programs."""

import csv
import json
import re

import mlcroissant
import pytest
import yaml

from kerasmed.study.release.write import release
from kerasmed.study.run_folder import RunFolder


@pytest.fixture(scope="module")
def folder(tiny_run, tmp_path_factory):
    target = tmp_path_factory.mktemp("cards") / "set"
    release(RunFolder(tiny_run), target)
    return target


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # of rdflib's own use
def test_croissant_is_valid_and_its_records_are_the_labels(folder):
    dataset = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    records = [
        {key.removeprefix("images/"): value.decode() for key, value in record.items()}
        for record in dataset.records("images")
    ]
    assert records == rows


def test_croissant_has_the_responsible_ai_fields_and_the_answers(folder, tiny_run):
    card = json.loads((folder / "croissant.json").read_text())
    fields = {key for key in card if key.startswith("rai:")}
    assert {"rai:dataLimitations", "rai:dataBiases", "rai:personalSensitiveInformation"} <= fields
    verdicts = json.loads((tiny_run / "evaluation" / "verdicts.json").read_text())
    text = json.dumps(card)
    for verdict in verdicts:
        assert f"{verdict['question'].capitalize()}: {verdict['light']}." in text
    assert "None" not in text


def test_page_for_hugging_face_has_front_matter_with_the_classes(folder):
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    values = yaml.safe_load(front)
    (label,) = [f for f in values["dataset_info"]["features"] if f["name"] == "label"]
    assert label["dtype"]["class_label"]["names"] == {"0": "clear", "1": "ground_glass"}
    assert values["task_categories"] == ["image-classification"]
    assert "synthetic" in values["tags"]
    assert "44 images of 2 classes" in body


def test_scorecard_has_the_seven_criteria_each_filled_or_marked(folder):
    text = (folder / "SCORECARD.md").read_text()
    rows = re.findall(r"^\| (\w+): [^|]+\| ([^|]+) \| (.+) \|$", text, re.MULTILINE)
    assert [name for name, *_ in rows] == [
        "Congruence", "Coverage", "Constraint", "Completeness", "Compliance", "Comprehension",
        "Consistency",
    ]  # fmt: skip
    assert {name: result for name, _, result in rows}["Constraint"] == "not assessed"
    assert all(result.strip() for *_, result in rows)


def test_checklist_has_every_item_answered_or_asked(folder):
    text = (folder / "CLAIM.md").read_text()
    numbers: set[int] = set()
    for first, last in re.findall(r"^\| (\d+)(?:[-,] ?(\d+))? ", text, re.MULTILINE):
        numbers |= set(range(int(first), int(last or first) + 1))
    assert numbers == set(range(1, 45))
    assert "To be answered by the authors" in text
    assert "20 Level of disjoint partitions | copies and near-copies" in text
