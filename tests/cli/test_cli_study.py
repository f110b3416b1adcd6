"""Commands on a whole study: study, demo and doctor."""

import json
from pathlib import Path

import numpy as np

from kerasmed.cli.main import main
from kerasmed.saved_models import load_model

pytest_plugins = ["cli_fixtures"]

CNN = "MobileNet-real-s0"
ROOT = Path(__file__).parents[2]


def test_study_writes_the_agreed_folder(tiny_run):
    for name in (
        "run.json", "split.json", "report.html", "images/phantoms/clear/clear-00000.png",
        "images/masks/ground_glass/ground_glass-00000.png", "diffusion/denoiser.keras",
        "diffusion/denoiser.onnx", "diffusion/history.csv", "diffusion/previews",
        "diffusion/checkpoints", "synthetic/manifest.json", "synthetic/clear/000000.png",
        f"classifiers/{CNN}/model.keras", f"classifiers/{CNN}/history.csv",
        f"exported/{CNN}.onnx", f"exported/{CNN}.json", "evaluation/leakage.json",
        "evaluation/metrics.json", "evaluation/fidelity.json", "evaluation/privacy.json",
        f"explanations/{CNN}", "figures/accuracy.png",
    ):  # fmt: skip
        assert (tiny_run / name).exists(), name


def test_study_runs_its_stages_in_order(tiny_run):
    stages = json.loads((tiny_run / "run.json").read_text())["stages"]
    assert list(stages) == [
        "data", "leakage", "diffusion", "sampling", "classifiers", "export", "evaluate", "explain",
        "audit", "report",
    ]  # fmt: skip


def test_metrics_have_the_agreed_fields_for_every_regime(tiny_run):
    rows = json.loads((tiny_run / "evaluation" / "metrics.json").read_text())
    assert [row["trained_on"] for row in rows] == ["real", "synthetic", "both"]
    for row in rows:
        assert row.keys() == {
            "backbone", "trained_on", "seed", "variant", "precision", "n_train", "n_test",
            "accuracy", "accuracy_ci95", "balanced_accuracy", "macro_precision", "macro_recall",
            "macro_f1", "auroc", "ece", "per_class", "confusion", "accuracy_on_synthetic",
        }  # fmt: skip
        assert (row["accuracy_on_synthetic"] is None) == (row["trained_on"] != "real")
        assert row["n_test"] == 24
        assert row["accuracy_ci95"][0] <= row["accuracy"] <= row["accuracy_ci95"][1]


def test_report_stands_alone_and_shows_the_figures(tiny_run):
    page = (tiny_run / "report.html").read_text()
    rows = json.loads((tiny_run / "evaluation" / "metrics.json").read_text())
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("data:image/png;base64,") >= 6
    assert all(f"<strong>{100 * row['accuracy']:.1f}</strong>" in page for row in rows)


def test_study_that_is_finished_does_nothing_again(tiny_config, run_copy):
    before = (run_copy / "run.json").read_bytes()
    assert main(["study", str(tiny_config), "--out", str(run_copy)]) == 0
    assert (run_copy / "run.json").read_bytes() == before


def test_study_goes_on_at_the_first_stage_that_is_not_finished(tiny_config, run_copy):
    record = json.loads((run_copy / "run.json").read_text())
    before = record["stages"].pop("evaluate")
    (run_copy / "run.json").write_text(json.dumps(record))
    (run_copy / "evaluation" / "metrics.json").unlink()
    assert main(["study", str(tiny_config), "--out", str(run_copy)]) == 0
    after = json.loads((run_copy / "run.json").read_text())["stages"]
    assert after["export"] == record["stages"]["export"]
    assert after["evaluate"]["result"] == before["result"]
    # The figures are the same, so the report on them is still current.
    assert after["report"] == record["stages"]["report"]


def test_the_tiny_study_really_trained(tiny_run):
    networks = [
        load_model(path).network.get_layer("logits").get_weights()[1]
        for path in sorted((tiny_run / "classifiers").glob("*/model.keras"))
    ]
    assert all(np.abs(bias).max() > 0 for bias in networks)
    assert not np.array_equal(networks[0], networks[1])


def test_split_that_was_edited_after_the_training_is_refused(refused, tiny_config, run_copy):
    path = run_copy / "split.json"
    content = json.loads(path.read_text())
    group = next(entry["group"] for entry in content["files"] if entry["role"] == "train")
    for entry in content["files"]:
        if entry["group"] == group:
            entry["role"] = "test"
    path.write_text(json.dumps(content))
    for command in (("study",), ("evaluate",), ("train", "classifier")):
        message = refused(*command, tiny_config, "--out", run_copy)
        assert "`split.json` was " in message
        assert "choose another --out, or rerun `kerasmed" in message

    record = json.loads((run_copy / "run.json").read_text())
    record["stages"] = {name: record["stages"][name] for name in ("data",)}
    (run_copy / "run.json").write_text(json.dumps(record))
    # Before anything has learned from it, it may be edited.
    assert main(["data", "leakage", str(tiny_config), "--out", str(run_copy)]) == 0


def test_demo_is_a_study_on_phantoms(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("kerasmed.study.runner.run_study", lambda config, *_: called.append(config))
    monkeypatch.setattr("kerasmed.files.read_json", lambda *_: [])
    monkeypatch.setattr("kerasmed.cli.tables.print_metrics", lambda rows: None)
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert called[0].data.phantoms.family == "smear"
    own, packaged = (ROOT / folder / "demo.yaml" for folder in ("configs", "kerasmed/study"))
    assert own.read_text() == packaged.read_text()


def test_doctor_names_what_really_runs(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "onnxruntime provider" in printed
    assert "ExecutionProvider" in printed
