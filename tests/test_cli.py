"""Every public command, run as a user runs it; one tiny study serves them all."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from kerasmed.cli import main
from kerasmed.data.phantoms import draw_phantom

CELL = "MobileNet-real-s0"


@pytest.fixture
def run_copy(tiny_run, tmp_path):
    """A copy of the tiny study that a test may change."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture
def model(tiny_run):
    """A model that the tiny study exported."""
    return tiny_run / "exported" / f"{CELL}.onnx"


@pytest.fixture
def refused(capsys):
    """Runs a command that must be refused, and returns its one line."""

    def run(*arguments) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        own = [line for line in lines if line.startswith("kerasmed: ")]
        assert lines[-1:] == own
        return own[0]

    return run


def test_study_writes_the_agreed_folder(tiny_run):
    for name in (
        "run.json", "split.json", "report.html", "images/phantoms/clear/clear-00000.png",
        "images/masks/ground_glass/ground_glass-00000.png", "diffusion/denoiser.keras",
        "diffusion/denoiser.onnx", "diffusion/history.csv", "diffusion/previews",
        "diffusion/checkpoints", "synthetic/manifest.json", "synthetic/clear/000000.png",
        f"classifiers/{CELL}/model.keras", f"classifiers/{CELL}/history.csv",
        f"exported/{CELL}.onnx", f"exported/{CELL}.json", "evaluation/metrics.json",
        "evaluation/fidelity.json", "evaluation/privacy.json", f"explanations/{CELL}",
        "figures/accuracy.png",
    ):  # fmt: skip
        assert (tiny_run / name).exists(), name


def test_metrics_have_the_agreed_fields_for_every_regime(tiny_run):
    rows = json.loads((tiny_run / "evaluation" / "metrics.json").read_text())
    assert [row["trained_on"] for row in rows] == ["real", "synthetic", "both"]
    for row in rows:
        assert row.keys() == {
            "backbone", "trained_on", "seed", "variant", "precision", "n_train", "n_test",
            "accuracy", "accuracy_ci95", "balanced_accuracy", "macro_precision", "macro_recall",
            "macro_f1", "auroc", "ece", "per_class", "confusion",
        }  # fmt: skip
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
    assert after["report"]["finished"] > record["stages"]["report"]["finished"]


def test_sample_again_gives_the_same_bytes(tiny_config, tiny_run, run_copy):
    assert main(["sample", str(tiny_config), "--out", str(run_copy)]) == 0
    for path in sorted((tiny_run / "synthetic").rglob("*.png")):
        again = run_copy / path.relative_to(tiny_run)
        assert again.read_bytes() == path.read_bytes()


def test_sample_per_class_with_the_keras_engine(tiny_config, run_copy):
    arguments = ["--per-class", "3", "--set", "sampling.engine=keras", "--out", str(run_copy)]
    assert main(["sample", str(tiny_config), *arguments]) == 0
    assert len(list((run_copy / "synthetic").glob("*/*.png"))) == 6
    assert json.loads((run_copy / "synthetic" / "manifest.json").read_text())["engine"] == "keras"


def test_keras_and_onnx_sampling_agree_within_a_grey_level(tiny_config, tiny_run, run_copy):
    import numpy as np

    arguments = ["--set", "sampling.engine=keras", "--out", str(run_copy)]
    assert main(["sample", str(tiny_config), *arguments]) == 0
    for path in (tiny_run / "synthetic").glob("*/00000[0-3].png"):
        one = np.asarray(Image.open(path)).astype(int)
        other = np.asarray(Image.open(run_copy / path.relative_to(tiny_run))).astype(int)
        assert np.abs(one - other).max() <= 1


def test_train_classifier_takes_what_is_there_and_adds_what_is_asked(tiny_config, run_copy, capsys):
    arguments = ["--on", "real", "--on", "real_all", "--seeds", "1", "--out", str(run_copy)]
    assert main(["train", "classifier", str(tiny_config), *arguments]) == 0
    printed = capsys.readouterr().err
    assert "MobileNet-real_all-s0" in printed
    assert "MobileNet-real-s0," not in printed
    assert (run_copy / "classifiers" / "MobileNet-real_all-s0" / "model.keras").exists()


@pytest.mark.parametrize("command", ["evaluate", "audit", "report"])
def test_later_stages_run_alone(tiny_config, run_copy, command):
    shutil.rmtree(run_copy / "figures")
    names = {"evaluate": "metrics", "audit": "privacy"}
    if command in names:
        (run_copy / "evaluation" / f"{names[command]}.json").unlink()
    assert main([command, str(tiny_config), "--out", str(run_copy)]) == 0
    if command in names:
        assert (run_copy / "evaluation" / f"{names[command]}.json").exists()
    else:
        assert (run_copy / "figures" / "accuracy.png").exists()


def test_explain_repeats_its_numbers(tiny_config, tiny_run, run_copy):
    assert main(["explain", str(tiny_config), "--out", str(run_copy)]) == 0
    for path in (tiny_run / "explanations").rglob("*.json"):
        again = run_copy / path.relative_to(tiny_run)
        assert json.loads(again.read_text()) == json.loads(path.read_text())


def test_export_copies_to_the_project(tiny_config, run_copy, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(tiny_config), "--out", str(run_copy)]) == 0
    assert (tmp_path / "exported" / "tiny" / f"{CELL}.onnx").exists()
    assert f"{CELL}.onnx" in capsys.readouterr().out


def test_train_diffusion_that_is_finished_keeps_its_steps(tiny_config, run_copy):
    assert main(["train", "diffusion", str(tiny_config), "--out", str(run_copy)]) == 0
    assert len((run_copy / "diffusion" / "history.csv").read_text().splitlines()) == 3


def test_data_split_on_a_folder(tiny_config, image_folder, tmp_path):
    arguments = ["--data", str(image_folder), "--out", str(tmp_path / "run")]
    assert main(["data", "split", str(tiny_config), *arguments]) == 0
    files = json.loads((tmp_path / "run" / "split.json").read_text())["files"]
    assert len(files) == 24
    assert files[0].keys() == {"path", "sha256", "class", "group", "role"}


def test_demo_is_a_study_on_phantoms(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("kerasmed.study.run_study", lambda config, run: called.append(config))
    monkeypatch.setattr("kerasmed.files.read_json", lambda *_: [])
    monkeypatch.setattr("kerasmed.tables.print_metrics", lambda rows: None)
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert called[0].data.phantoms.family == "smear"
    assert Path("configs/demo.yaml").read_text() == Path("kerasmed/demo.yaml").read_text()


def _image(folder, name="slice.png"):
    image, _ = draw_phantom("ct", "clear", 500, 40, 0)
    Image.fromarray(image).save(folder / name)
    return folder / name


def test_predict_prints_a_table_or_json(model, tmp_path, capsys):
    image = _image(tmp_path)
    assert main(["predict", str(model), str(image)]) == 0
    assert "predicted" in capsys.readouterr().out
    assert main(["predict", str(model), str(image), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["predicted"] in ("clear", "ground_glass")
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_evaluate_a_model_on_a_folder(model, image_folder, capsys):
    assert main(["evaluate", str(model), str(image_folder)]) == 0
    assert "24 test images" in capsys.readouterr().out


def test_explain_images_with_a_model(model, tmp_path):
    image = _image(tmp_path)
    assert main(["explain", str(model), str(image), "--out", str(tmp_path / "lime")]) == 0
    found = json.loads((tmp_path / "lime" / "slice.json").read_text())
    assert len(found["weights"]["clear"]) == 1 + max(max(row) for row in found["segments"])
    assert (tmp_path / "lime" / "slice.png").exists()


def test_doctor_names_what_really_runs(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "onnxruntime provider" in printed
    assert "ExecutionProvider" in printed


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert "kerasmed 0." in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "study" in capsys.readouterr().out


def test_missing_folder_of_images(refused, tiny_config, tmp_path):
    line = refused("study", tiny_config, "--data", tmp_path / "no", "--out", tmp_path / "run")
    assert "No folder at" in line
    assert "one folder of images for each class" in line


def test_unknown_key_and_value_out_of_range(refused, tiny_config, tmp_path):
    out = ("--out", tmp_path / "run")
    assert "unknown key diffusion.stepz" in refused(
        "study", tiny_config, "--set", "diffusion.stepz=3", *out
    )
    assert "received 2.0" in refused("study", tiny_config, "--set", "split.test=2.0", *out)
    assert not (tmp_path / "run").exists()


def test_unknown_backbone_is_told_before_anything_is_trained(refused, tiny_config, run_copy):
    line = refused("train", "classifier", tiny_config, "--backbone", "Xceptoin", "--out", run_copy)
    assert "received 'Xceptoin'; did you mean Xception?" in line


def test_unreadable_image_stops_or_is_counted(refused, image_folder, tiny_config, tmp_path, capsys):
    (image_folder / "clear" / "broken.png").write_bytes(b"no image")
    arguments = ["--data", str(image_folder), "--out", str(tmp_path / "run")]
    assert "broken.png" in refused("data", "split", tiny_config, *arguments)
    skip = ["--set", "data.on_bad_image=skip"]
    assert main(["data", "split", str(tiny_config), *arguments, *skip]) == 0
    stages = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]
    assert len(stages["data"]["result"]["skipped"]) == 1


def test_files_that_are_no_model(refused, tmp_path):
    image, text = _image(tmp_path), tmp_path / "text.onnx"
    text.write_text("no model")
    assert "not a model that onnxruntime" in refused("predict", text, image)
    assert "No model file at" in refused("predict", tmp_path / "no.onnx", image)


def test_classes_that_the_model_does_not_have(refused, model, image_folder):
    (image_folder / "clear").rename(image_folder / "other")
    line = refused("evaluate", model, image_folder)
    assert "expected the model's class folders ['clear', 'ground_glass']" in line


def test_image_changed_after_the_split(refused, tiny_config, image_folder, tmp_path):
    arguments = ["--data", str(image_folder), "--out", str(tmp_path / "run")]
    assert main(["data", "split", str(tiny_config), *arguments]) == 0
    image = image_folder / "clear" / "0.png"
    Image.new("RGB", (16, 16)).save(image)
    line = refused("train", "diffusion", tiny_config, *arguments)
    assert "0.png has changed since" in line


def test_stage_on_what_other_settings_made_is_refused(refused, tiny_config, tiny_run):
    line = refused("report", tiny_config, "--set", "diffusion.widths=[16]", "--out", tiny_run)
    assert "'diffusion'" in line
    assert "diffusion.widths: [8, 16], received [16]" in line


def test_study_refuses_a_mistake_in_the_last_stage_before_the_first(refused, tiny_config, tmp_path):
    line = refused(
        "study", tiny_config, "--set", "classifiers.input_size=32", "--set",
        "classifiers.backbones=[Xception]", "--out", tmp_path / "run",
    )  # fmt: skip
    assert "Xception needs at least 71, received 32" in line
    assert not (tmp_path / "run" / "split.json").exists()


def test_out_that_cannot_be_a_folder(refused, tiny_config, tmp_path):
    (tmp_path / "file").touch()
    assert "Cannot make the folder" in refused("study", tiny_config, "--out", tmp_path / "file")


def test_options_of_a_study_do_not_go_with_a_model(refused, model, image_folder, tmp_path):
    line = refused("evaluate", model, image_folder, "--set", "evaluation.bootstrap_samples=100")
    assert "--set goes with an experiment file" in line
    assert "add the images" in refused("explain", model)


def test_later_stage_without_the_earlier_one(refused, tmp_path):
    config = tmp_path / "own.yaml"
    settings = {"name": "own", "data": {"phantoms": {"family": "ct", "per_class": 8}}}
    config.write_text(yaml.safe_dump(settings))
    line = refused("sample", config, "--out", tmp_path / "run")
    assert "run `kerasmed train diffusion CONFIG` first" in line
