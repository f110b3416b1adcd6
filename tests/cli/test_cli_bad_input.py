"""Wrong input: each command reports it in one line and exits with code 2."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from kerasmed.cli.main import main

pytest_plugins = ["cli_fixtures"]


def test_missing_folder_of_images(refused, tiny_config, tmp_path):
    line = refused("study", tiny_config, "--data", tmp_path / "no", "--out", tmp_path / "run")
    assert f"Nothing at {tmp_path / 'no'}" in line
    assert "one folder of images for each class" in line
    assert "`kerasmed data fetch`" in line


def test_unknown_key_and_value_out_of_range(refused, tiny_config, tmp_path):
    out = ("--out", tmp_path / "run")
    assert "unknown key diffusion.stepz" in refused(
        "study", tiny_config, "--set", "diffusion.stepz=3", *out
    )
    assert "received 2.0" in refused("study", tiny_config, "--set", "split.test=2.0", *out)
    assert not (tmp_path / "run").exists()


def test_unknown_backbone_is_reported_before_anything_is_trained(refused, tiny_config, run_copy):
    line = refused("train", "classifier", tiny_config, "--backbone", "Xceptoin", "--out", run_copy)
    assert "received 'Xceptoin'; did you mean Xception?" in line
    typo = ["--set", "classifiers.by_backbone={Xceptoin: {input_size: 80}}", "--out", run_copy]
    assert "did you mean Xception?" in refused("train", "classifier", tiny_config, *typo)


def test_unreadable_image_stops_or_is_counted(refused, image_folder, tiny_config, tmp_path, capsys):
    (image_folder / "clear" / "broken.png").write_bytes(b"no image")
    arguments = ["--data", str(image_folder), "--out", str(tmp_path / "run")]
    assert "broken.png" in refused("data", "split", tiny_config, *arguments)
    skip = ["--set", "data.on_bad_image=skip"]
    assert main(["data", "split", str(tiny_config), *arguments, *skip]) == 0
    stages = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]
    assert len(stages["data"]["result"]["skipped"]) == 1


def test_files_that_are_no_model(refused, save_slice, tmp_path):
    image, text = save_slice(tmp_path), tmp_path / "text.onnx"
    text.write_text("no model")
    assert "not a model that onnxruntime" in refused("predict", text, image)
    assert "No model file at" in refused("predict", tmp_path / "no.onnx", image)


def test_classes_that_the_model_does_not_have(refused, model, image_folder):
    (image_folder / "clear").rename(image_folder / "other")
    line = refused("evaluate", model, image_folder)
    assert "expected classes of the model, ['clear', 'ground_glass'], received also" in line
    assert "received also ['other']; rename or remove them" in line


def test_image_changed_after_the_split(refused, tiny_config, image_folder, tmp_path):
    arguments = ["--data", str(image_folder), "--out", str(tmp_path / "run")]
    assert main(["data", "split", str(tiny_config), *arguments]) == 0
    image = image_folder / "clear" / "0.png"
    Image.new("RGB", (16, 16)).save(image)
    line = refused("train", "diffusion", tiny_config, *arguments)
    assert "0.png` was clear" in line


def test_stage_on_what_other_settings_made_is_refused(refused, tiny_config, tiny_run):
    line = refused("report", tiny_config, "--set", "diffusion.widths=[16]", "--out", tiny_run)
    assert "'diffusion'" in line
    assert "`diffusion.widths` was [8, 16] when this was made and is [16] now" in line


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
    assert "--set with a model takes split.patient, " in line
    assert "add the images" in refused("explain", model)


def test_later_stage_without_the_earlier_one(refused, tmp_path):
    config = tmp_path / "own.yaml"
    settings = {"name": "own", "data": {"phantoms": {"family": "ct", "per_class": 8}}}
    config.write_text(yaml.safe_dump(settings))
    line = refused("sample", config, "--out", tmp_path / "run")
    assert "run `kerasmed train diffusion CONFIG` first" in line


@pytest.mark.parametrize("command", ["study", "report", "explain"])
def test_address_of_an_object_store_is_no_folder(refused, tiny_config, command):
    line = refused(command, tiny_config, "--out", "s3://bucket/run")
    assert "--out: expected a folder, received s3://bucket/run" in line
    assert not Path("s3:").exists()
