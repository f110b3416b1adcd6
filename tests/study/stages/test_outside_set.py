"""CNNs of a study are also tested on images from elsewhere."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
import yaml
from conftest import TINY, phantom_set
from jsonschema import Draft202012Validator
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.errors import DataError
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.study.config import parse_config
from kerasmed.study.inputs import load_images
from kerasmed.study.result_files import json_schema
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages.evaluate import evaluate_classifiers


def folder_of(images, path):
    images.to_directory(path)
    return path


@pytest.fixture
def run(run_copy):
    return RunFolder(run_copy)


@pytest.fixture
def asking(run):
    def config(outside):
        values = run.record()["config"]
        values["evaluation"] |= {"outside": str(outside)}
        return parse_config(values, "test")

    return config


def test_cnns_are_tested_and_compared_on_it(run, asking, tmp_path):
    elsewhere = phantom_set(per_class=15, size=32)
    path = folder_of(elsewhere, tmp_path / "elsewhere")
    config = asking(path)
    evaluate_classifiers(config, run)
    outside = json.loads((run.evaluation / "outside.json").read_text())
    Draft202012Validator(json_schema("outside")).validate(outside)
    assert outside["images"] == {"clear": 15, "ground_glass": 15}
    assert (outside["source"], outside["groups"]) == (str(path), 30)
    assert [row["trained_on"] for row in outside["metrics"]] == ["real", "synthetic", "both"]
    assert len(outside["comparisons"]) == 3
    engine = OnnxClassifier(run.exported / "MobileNet-real-s0.onnx")
    shrunk = [np.asarray(Image.fromarray(image).reduce(2)) for image in elsewhere.images]
    right = engine.predict(np.stack(shrunk)).argmax(axis=1) == elsewhere.labels
    assert outside["metrics"][0]["accuracy"] == pytest.approx(right.mean(), abs=0.1)
    metrics = json.loads((run.evaluation / "metrics.json").read_text())
    assert metrics[0]["n_test"] != 30
    evaluate_classifiers(parse_config(run.record()["config"], "test"), run)
    assert not (run.evaluation / "outside.json").exists()


def test_one_class_of_the_study_is_enough(run, asking, tmp_path):
    images = phantom_set(per_class=15, size=32)
    path = folder_of(images.subset(np.flatnonzero(images.labels == 1)), tmp_path / "one")
    for empty in [folder for folder in path.iterdir() if not any(folder.iterdir())]:
        empty.rmdir()
    evaluate_classifiers(asking(path), run)
    outside = json.loads((run.evaluation / "outside.json").read_text())
    assert outside["images"] == {"clear": 0, "ground_glass": 15}
    assert list(outside["comparisons"][0]["sensitivity"]) == ["ground_glass"]


def test_images_of_the_study_are_refused(run, asking, tmp_path):
    own = load_images(parse_config(run.record()["config"], "test"), run)
    path = folder_of(own.subset([0, 1, 2, 70, 71]), tmp_path / "own")
    with pytest.raises(DataError, match="not in the study, received 5 with the pixels of its"):
        evaluate_classifiers(asking(path), run)


def test_other_classes_are_refused(run, asking, tmp_path):
    path = folder_of(phantom_set("smear"), tmp_path / "smears")
    with pytest.raises(DataError, match="expected classes of the model"):
        evaluate_classifiers(asking(path), run)


def test_study_reports_it_and_notices_when_it_changes(tiny_config, run_copy, tmp_path, capsys):
    path = folder_of(phantom_set(per_class=15, size=32), tmp_path / "elsewhere")
    config = tmp_path / "with.yaml"
    evaluation = {**TINY["evaluation"], "outside": str(path)}
    config.write_text(yaml.safe_dump({**TINY, "evaluation": evaluation}))
    (run_copy / "evaluation" / "metrics.json").unlink()
    for command in ("evaluate", "audit", "report"):
        assert main([command, str(config), "--out", str(run_copy)]) == 0
    page = (run_copy / "report.html").read_text()
    assert "On images from elsewhere" in page
    assert f"30 images of {path} (30 groups)" in page
    next(path.rglob("*.png")).unlink()
    capsys.readouterr()
    assert main(["report", str(config), "--out", str(run_copy)]) == 2
    assert "elsewhere" in capsys.readouterr().err


def test_predictions_of_each_test_image_are_kept(run):
    rows = list(csv.DictReader((run.evaluation / "predictions.csv").read_text().splitlines()))
    metrics = json.loads((run.evaluation / "metrics.json").read_text())
    assert len(rows) == metrics[0]["n_test"]
    for figures in metrics:
        name = f"{figures['backbone']}-{figures['trained_on']}-s{figures['seed']}"
        right = Counter(row[name] == row["class"] for row in rows)[True]
        assert right / len(rows) == pytest.approx(figures["accuracy"])
