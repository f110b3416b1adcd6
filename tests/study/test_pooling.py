"""Regimes compared over several studies of the same images."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from conftest import accept_outputs
from jsonschema import Draft202012Validator

from kerasmed.cli.main import main
from kerasmed.errors import InputError, StageError
from kerasmed.files import write_json
from kerasmed.study.pooling import compare_studies
from kerasmed.study.result_files import json_schema
from kerasmed.study.run_folder import RunFolder


def with_seed(run: RunFolder, seed: int) -> None:
    """Make a copied study look like one of another seed, its CNNs named accordingly."""
    record = run.record()
    record["config"]["seed"] = record["seed"] = seed
    for stage in record["stages"].values():
        if "seed" in stage["fingerprint"]["settings"]:
            stage["fingerprint"]["settings"]["seed"] = seed
    write_json(run.record_path, record)
    path = run.evaluation / "predictions.csv"
    path.write_text(re.sub(r"-s\d+", f"-s{seed}", path.read_text()))
    accept_outputs(run.root)


def answers(run: RunFolder, right: dict[str, float], seed: int) -> None:
    """Rewrite what the CNNs of a study name its test images, right so often."""
    rng = np.random.default_rng(seed)
    path = run.evaluation / "predictions.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    wrong = {"clear": "ground_glass", "ground_glass": "clear"}
    for name, chance in right.items():
        for row in rows:
            row[f"MobileNet-{name}-s{run.record()['seed']}"] = (
                row["class"] if rng.random() < chance else wrong[row["class"]]
            )
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    accept_outputs(run.root)


@pytest.fixture
def studies(run_copy, tmp_path):
    """Three studies, the CNN of both at 95% and that of real images at 60%."""
    runs = [RunFolder(shutil.copytree(run_copy, tmp_path / f"s{i}")) for i in range(3)]
    for seed, run in enumerate(runs):
        with_seed(run, seed)
        answers(run, {"real": 0.6, "synthetic": 0.6, "both": 0.95}, seed)
    return runs


def accuracies(run: RunFolder, regime: str) -> float:
    rows = csv.DictReader((run.evaluation / "predictions.csv").read_text().splitlines())
    return float(
        np.mean(
            [row[f"MobileNet-{regime}-s{run.record()['seed']}"] == row["class"] for row in rows]
        )
    )


def test_all_answers_of_all_studies_count(studies, tmp_path, capsys):
    target = tmp_path / "pooled.json"
    folders = [str(run.root) for run in studies]
    assert main(["compare", *folders, "--out", str(target)]) == 0
    rows = json.loads(target.read_text())
    Draft202012Validator(json_schema("comparisons")).validate(rows)
    (row,) = [row for row in rows if row["regimes"] == ["real", "both"]]
    for regime, received in zip(row["regimes"], row["accuracy"]["of_each"], strict=True):
        assert received == pytest.approx(np.mean([accuracies(run, regime) for run in studies]))
    assert row["conclusion"] == "higher"
    assert "higher" in capsys.readouterr().out


def test_studies_that_disagree_widen_the_interval(studies):
    def width() -> float:
        (row,) = [r for r in compare_studies(studies) if r["regimes"] == ["real", "both"]]
        return float(np.ptp(row["accuracy"]["interval"]))

    before = width()
    answers(studies[0], {"both": 0.2}, 7)
    assert width() > 2 * before


def test_studies_that_are_no_repetitions_are_refused(studies):
    with_seed(studies[1], 0)
    with pytest.raises(InputError, match=r"a different seed for each, received \[0, 0\]"):
        compare_studies(studies[:2])
    record = studies[2].record()
    record["config"]["diffusion"]["max_images"] = 99
    record["stages"]["diffusion"]["fingerprint"]["settings"]["diffusion"]["max_images"] = 99
    write_json(studies[2].record_path, record)
    with pytest.raises(InputError, match="the same settings except the seed"):
        compare_studies([studies[0], studies[2]])


def test_settings_that_change_no_answer_may_differ(studies):
    for section, key, value in (("diffusion", "preview_every", 99), ("worth", "draws", 9)):
        record = studies[1].record()
        record["config"][section][key] = value
        for stage in record["stages"].values():
            settings = stage["fingerprint"]["settings"].get(section)
            if settings is not None and key in settings:
                settings[key] = value
        write_json(studies[1].record_path, record)
    assert compare_studies(studies[:2])


def test_evaluation_without_predictions_is_refused(studies):
    (studies[0].evaluation / "predictions.csv").unlink()
    with pytest.raises(StageError, match=r"predictions.csv"):
        compare_studies(studies[:2])


def test_what_cannot_be_pooled_is_refused(studies, run_copy):
    with pytest.raises(InputError, match="expected two or more, each once, received 1"):
        compare_studies(studies[:1])
    with pytest.raises(InputError, match="received 2 with 1 different folders"):
        compare_studies([studies[0], studies[0]])
    record = studies[1].record()
    record["config"]["classifiers"]["train_on"] = ["real"]
    write_json(studies[1].record_path, record)
    with pytest.raises(InputError, match=r"two or more regimes .* received \['MobileNet real'\]"):
        compare_studies(studies[:2])
    write_json(studies[2].record_path, {**studies[2].record(), "data_hash": "0" * 64})
    with pytest.raises(InputError, match="the same real images in all"):
        compare_studies([studies[0], studies[2]])
    path = studies[0].evaluation / "predictions.csv"
    path.write_text(path.read_text().replace("clear", "ground_glass", 1))
    with pytest.raises(StageError, match=r"predictions.csv"):
        compare_studies(studies[:2])


def test_study_that_is_not_evaluated_is_refused(studies, tmp_path):
    with pytest.raises(StageError, match="'evaluate' has not finished"):
        compare_studies([studies[0], RunFolder(tmp_path)])
