"""Cards of a release, for people and for programs."""

import copy
import csv
import json
import re

import mlcroissant
import pytest
import yaml

from kerasmed.study.config import parse_config
from kerasmed.study.inputs import read_synthetic
from kerasmed.study.release.facts import _without_names, facts_of
from kerasmed.study.release.templates import rendered
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
    assert (
        "20 Level of disjoint partitions | patients were not known to the software; copies and"
        in text
    )


def test_checklist_knows_how_the_roles_came_about(tiny_run):
    run = RunFolder(tiny_run)
    facts = facts_of(run, read_synthetic(parse_config(run.record()["config"], "test"), run), 0)
    facts |= {"models": [], "despite": None, "licence": None, "by": None}

    def item(number: int, **changes) -> str:
        text = rendered("claim.md.j2", facts | changes)
        return next(line for line in text.splitlines() if line.startswith(f"| {number} "))

    def with_settings(section: str, **changes) -> dict:
        record = copy.deepcopy(facts["record"])
        record["config"][section] |= changes
        return {"record": record}

    assert "runs of 30 neighbouring files" in item(
        20, **with_settings("split", group_by="neighbours")
    )
    assert "patients, as named in the paths" in item(
        20, **with_settings("split", group_by="pattern")
    )
    assert "that the set itself names" in item(19, **with_settings("data", official_split="keep"))
    assert "edited by hand" in item(19, split_was_edited=True)
    assert not facts["split_was_edited"]


def test_sites_have_numbers_and_ages_their_bands():
    row = {"images": 30, "groups": 30, "accuracy": {"A real": {}}}
    few = {"images": 3, "groups": 3, "accuracy": {"not_computed": "few"}}
    found = {"site": {"Ward 3": row, "Clinic": row}, "age": {"20 to 39": row, "under 20": few}}
    assert _without_names({**found, "sex": {"F": few}}) == {
        "site": {"1": row, "2": row}, "age": {"20 to 39": row},
    }  # fmt: skip
