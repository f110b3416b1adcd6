"""Exporting CNNs to ONNX files, and predicting with them."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from kerasmed.cli.main import main

pytest_plugins = ["cli_fixtures"]

CNN = "MobileNet-real-s0"
REAL = "classifiers.train_on=[real]"


@pytest.fixture(scope="module")
def real_run(tiny_config, tmp_path_factory):
    """A run folder with one CNN, trained on real images, exported and tested."""
    folder = tmp_path_factory.mktemp("real") / "run"
    assert main(["data", "split", str(tiny_config), "--out", str(folder)]) == 0
    for command in (["train", "classifier"], ["export"], ["evaluate"]):
        assert main([*command, str(tiny_config), "--set", REAL, "--out", str(folder)]) == 0
    return folder


def test_real_images_alone_need_no_synthetic_ones(refused, tiny_config, real_run):
    (row,) = json.loads((real_run / "evaluation" / "metrics.json").read_text())
    assert (row["trained_on"], row["accuracy_on_synthetic"]) == ("real", None)
    line = refused("audit", tiny_config, "--set", REAL, "--out", real_run)
    assert "run `kerasmed train diffusion CONFIG` first" in line
    line = refused("train", "classifier", tiny_config, "--on", "both", "--out", real_run)
    assert "run `kerasmed train diffusion CONFIG` first" in line


def test_export_in_every_precision_and_test_of_each(tiny_config, real_run, tmp_path, monkeypatch):
    run_copy = Path(shutil.copytree(real_run, tmp_path / "run"))
    monkeypatch.chdir(run_copy.parent)
    # A few epochs from scratch decide by a hair, which 8 bits may turn.
    monkeypatch.setattr("kerasmed.export.precision.MAX_LOSS", 0.5)
    options = ["--set", REAL, "--out", str(run_copy)]
    arguments = ["export", str(tiny_config), *options, "--precision", "fp16", "--precision", "int8"]
    assert main(arguments) == 0
    name = "MobileNet-real-s0"
    for suffix in ("", ".fp16", ".int8"):
        path = run_copy.parent / "exported" / "tiny" / f"{name}{suffix}.onnx"
        assert main(["export", "--check", str(path)]) == 0
    options += ["--set", "export.precisions=[fp16, int8]"]
    assert main(["evaluate", str(tiny_config), *options]) == 0
    rows = json.loads((run_copy / "evaluation" / "metrics.json").read_text())
    assert [row["precision"] for row in rows] == ["fp32", "fp16", "int8"]
    # What was not asked for again does not outlive the training that it was made from.
    assert main(["export", str(tiny_config), "--set", REAL, "--out", str(run_copy)]) == 0
    for folder in (run_copy / "exported", run_copy.parent / "exported" / "tiny"):
        assert list(folder.glob(f"{name}.*"))
        assert not list(folder.glob("*.int8.*"))


@pytest.mark.slow
def test_network_that_fails_the_gate_does_not_stop_the_others(
    tiny_config, run_copy, monkeypatch, capsys
):
    monkeypatch.chdir(run_copy.parent)
    monkeypatch.setattr(
        "kerasmed.export.precision._correct",
        lambda path, gate: np.full(len(gate.images), float("int8" not in path.name)),
    )
    arguments = ["--out", str(run_copy), "--set", "export.precisions=[int8]"]
    assert main(["export", str(tiny_config), *arguments]) == 0
    assert "expected int8 to lose less than" in capsys.readouterr().err
    assert main(["evaluate", str(tiny_config), *arguments]) == 0
    rows = json.loads((run_copy / "evaluation" / "metrics.json").read_text())
    assert {row["precision"] for row in rows} == {"fp32"}


def test_export_takes_a_study_or_a_file(refused, tiny_config, tmp_path):
    assert "takes an experiment file, or --check MODEL.onnx" in refused("export")
    assert "No model file at" in refused("export", "--check", tmp_path / "no.onnx")
    line = refused("export", tiny_config, "--check", tmp_path / "no.onnx")
    assert "leave the experiment file out" in line
    line = refused("export", "--check", tmp_path / "no.onnx", "--out", tmp_path)
    assert "--out goes with an experiment file" in line
    assert "export.precisions" in refused("export", tiny_config, "--precision", "fp8")


def test_export_copies_to_the_project(tiny_config, run_copy, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(tiny_config), "--out", str(run_copy)]) == 0
    assert (tmp_path / "exported" / "tiny" / f"{CNN}.onnx").exists()
    assert f"{CNN}.onnx" in capsys.readouterr().out


def test_predict_prints_a_table_or_json(model, save_slice, tmp_path, capsys):
    image = save_slice(tmp_path)
    assert main(["predict", str(model), str(image)]) == 0
    assert "predicted" in capsys.readouterr().out
    assert main(["predict", str(model), str(image), "--json"]) == 0
    prediction = json.loads(capsys.readouterr().out)
    assert prediction["predicted"] in ("clear", "ground_glass")
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_predict_takes_folders_patterns_and_a_list(
    model, save_slice, tmp_path, capsys, monkeypatch
):
    (tmp_path / "inside").mkdir()
    paths = [str(save_slice(tmp_path / "inside", name)) for name in ("a.png", "b.png")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(paths) + "\n\n"))
    for given in (str(tmp_path / "inside"), str(tmp_path / "inside" / "*.png"), "-"):
        assert main(["predict", str(model), given, "--json"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["image"] for line in lines] == paths


def test_predict_takes_a_name_that_is_not_text(model, save_slice, tmp_path, capsys):
    image = save_slice(tmp_path, os.fsdecode(b"\xff.png"))
    assert main(["predict", str(model), str(image), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["image"].endswith(".png")


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_predict_goes_on_after_a_corrupt_file(model, save_slice, tmp_path, capsys, bad):
    paths = [save_slice(tmp_path, name) for name in ("a.png", "b.png", "c.png")]
    paths[bad].write_bytes(b"no image")
    arguments = ["predict", str(model), *map(str, paths)]
    assert main([*arguments, "--json"]) == 2
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    assert ["error" in row for row in rows] == [i == bad for i in range(3)]
    assert "1 of 3 images cannot be read: Cannot read" in printed.err
    assert main(arguments) == 2
    assert "predicted" in capsys.readouterr().out


def test_predict_without_a_readable_image(refused, model, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "an image in the folder" in refused("predict", model, tmp_path / "empty")
    assert "a file like" in refused("predict", model, tmp_path / "empty" / "*.png")
    assert "1 of 1 images cannot be read" in refused("predict", model, tmp_path / "no.png")
    assert "expected cuda" in refused("predict", model, tmp_path / "no.png", "--provider", "cuda")
