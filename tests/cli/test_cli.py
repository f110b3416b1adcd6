"""Every public command, run as a user runs it; one tiny study serves them all."""

import csv
import dataclasses
import io
import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import yaml
from conftest import accept_outputs
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.data.phantoms import draw_phantom
from kerasmed.errors import DataError
from kerasmed.export.denoisers import export_denoiser
from kerasmed.files import sha256_of
from kerasmed.inference.denoiser import OnnxDenoiser
from kerasmed.inference.evaluate import evaluate_folder
from kerasmed.study.stages import diffusion as images
from kerasmed.study.stages import leakage

ROOT = Path(__file__).parents[2]
CNN = "MobileNet-real-s0"


@pytest.fixture
def model(tiny_run):
    """A model that the tiny study exported."""
    return tiny_run / "exported" / f"{CNN}.onnx"


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


def test_sample_again_gives_the_same_bytes(tiny_config, tiny_run, run_copy):
    shutil.rmtree(run_copy / "synthetic")
    assert main(["sample", str(tiny_config), "--out", str(run_copy)]) == 0
    for path in sorted((tiny_run / "synthetic").rglob("*.png")):
        again = run_copy / path.relative_to(tiny_run)
        assert again.read_bytes() == path.read_bytes()


def _same_set(run, other) -> bool:
    """Whether both runs hold the same synthetic files with the same bytes, but for their place.

    A note on a copy names the training image by its path, in a copied run that of the first run.
    """
    first, second = (
        {
            path.relative_to(folder): path.read_bytes()
            .replace(bytes(run), b"")
            .replace(bytes(other), b"")
            for path in (folder / "synthetic").rglob("*")
            if path.is_file()
        }
        for folder in (run, other)
    )
    return first == second


def test_shards_in_any_order_make_the_set_file_for_file(tiny_config, tiny_run, run_copy, capsys):
    shutil.rmtree(run_copy / "synthetic")
    for shard, missing in (("2/3", 29), ("3/3", 15), ("1/3", 0)):
        capsys.readouterr()
        arguments = ["sample", str(tiny_config), "--shard", shard, "--out", str(run_copy)]
        assert main(arguments) == 0
        assert f"{missing} images of all sets are missing" in capsys.readouterr().out
        assert not (run_copy / "synthetic").exists()
    assert main(["sample", str(tiny_config), "--out", str(run_copy)]) == 0
    assert _same_set(tiny_run, run_copy)
    assert not (run_copy / "synthetic.unfinished").exists()


def test_interrupted_sampling_draws_only_what_is_missing(tiny_config, tiny_run, run_copy):
    unfinished = run_copy / "synthetic.unfinished"
    (run_copy / "synthetic").rename(unfinished)
    for path in sorted(unfinished.glob("*/*.png"))[5::7]:
        path.unlink()
    (unfinished / "clear" / ".000005.77.tmp.png").write_bytes(b"half of an ima")
    kept = {path.name: path.stat().st_mtime_ns for path in (unfinished / "clear").iterdir()}
    assert main(["sample", str(tiny_config), "--out", str(run_copy)]) == 0
    assert _same_set(tiny_run, run_copy)
    after = {p.name: p.stat().st_mtime_ns for p in (run_copy / "synthetic" / "clear").iterdir()}
    assert kept.items() - after.items() == {(".000005.77.tmp.png", kept[".000005.77.tmp.png"])}


def test_set_begun_with_other_settings_is_not_mixed(refused, tiny_config, run_copy):
    (run_copy / "synthetic").rename(run_copy / "synthetic.unfinished")
    line = refused("sample", tiny_config, "--set", "sampling.steps=4", "--out", run_copy)
    assert "`sampling.steps` was 3 when this was made and is 4 now" in line
    assert "delete" in line


def test_set_begun_with_other_timesteps_is_not_mixed(refused, tiny_config, run_copy, monkeypatch):
    from kerasmed.study import synthetic_set

    (run_copy / "synthetic").rename(run_copy / "synthetic.unfinished")
    monkeypatch.setattr(synthetic_set, "sampling_timesteps", lambda steps: np.array([999, 500, 0]))
    line = refused("sample", tiny_config, "--out", run_copy)
    assert "synthetic.unfinished: `sampling.timesteps` was [" in line
    assert "is [999, 500, 0] now" in line


def test_shard_whose_set_was_finished_by_another_stops(refused, tiny_config, run_copy, monkeypatch):
    from kerasmed.study import synthetic_set

    def draw(*_):
        yield 0, 0, np.zeros((16, 16, 3), np.uint8)
        (run_copy / "synthetic.unfinished").rename(run_copy / "elsewhere")
        yield 0, 1, np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr(synthetic_set, "generate_images", draw)
    off = "sampling.copy_filter=false"
    line = refused("sample", tiny_config, "--shard", "1/2", "--set", off, "--out", run_copy)
    assert "synthetic.unfinished is gone" in line
    assert not (run_copy / "synthetic.unfinished").exists()


def test_real_images_alone_need_no_synthetic_ones(refused, tiny_config, tmp_path, capsys):
    real = ["--set", "classifiers.train_on=[real]", "--out", str(tmp_path)]
    assert main(["data", "split", str(tiny_config), "--out", str(tmp_path)]) == 0
    for command in (["train", "classifier"], ["export"], ["evaluate"]):
        assert main([*command, str(tiny_config), *real]) == 0
    (row,) = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert (row["trained_on"], row["accuracy_on_synthetic"]) == ("real", None)
    line = refused("audit", tiny_config, *real)
    assert "run `kerasmed train diffusion CONFIG` first" in line
    line = refused("train", "classifier", tiny_config, "--on", "both", "--out", tmp_path)
    assert "run `kerasmed train diffusion CONFIG` first" in line


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_shard_that_is_none_is_refused(refused, tiny_config, tiny_run, shard):
    line = refused("sample", tiny_config, f"--shard={shard}", "--out", tiny_run)
    assert f"--shard takes I/N with 1 <= I <= N, received '{shard}'" in line


def test_sample_per_class_with_the_keras_engine(tiny_config, run_copy):
    arguments = ["--per-class", "3", "--set", "sampling.engine=keras", "--out", str(run_copy)]
    assert main(["sample", str(tiny_config), *arguments]) == 0
    assert len(list((run_copy / "synthetic").glob("*/*.png"))) == 6
    manifest = json.loads((run_copy / "synthetic" / "manifest.json").read_text())
    assert manifest["fingerprint"]["settings"]["sampling"]["engine"] == "keras"


def test_keras_and_onnx_sampling_agree_within_a_grey_level(tiny_config, run_copy):
    # A few steps of training draw plain grey, so weights under which noise and label matter.
    keras_path, onnx_path = (run_copy / "diffusion" / f"denoiser.{n}" for n in ("keras", "onnx"))
    model = keras.saving.load_model(keras_path, compile=False)
    rng = np.random.default_rng(0)
    model.set_weights([w + 0.1 * rng.standard_normal(w.shape) for w in model.get_weights()])
    model.save(keras_path)
    metadata = OnnxDenoiser(onnx_path).metadata
    kept = {k: metadata[k] for k in ("class_names", "data_hash")}
    export_denoiser(model, sha256_of(keras_path), kept, onnx_path)
    accept_outputs(run_copy)
    drawn = {}
    for engine in ("onnx", "keras"):
        options = ["sampling.copy_filter=false", f"sampling.engine={engine}"]
        settings = [text for option in options for text in ("--set", option)]
        assert main(["sample", str(tiny_config), *settings, "--out", str(run_copy)]) == 0
        paths = sorted((run_copy / "synthetic").glob("*/00000[0-3].png"))
        drawn[engine] = np.stack([np.asarray(Image.open(path)) for path in paths]).astype(int)

    assert np.abs(drawn["onnx"] - drawn["keras"]).max() <= 1
    assert np.abs(drawn["onnx"] - drawn["onnx"][:1]).max() > 20
    noise = np.repeat(rng.standard_normal(drawn["onnx"][:1].shape, np.float32), 2, axis=0)
    timesteps, labels = np.full(2, 500, np.int32), np.arange(2, dtype=np.int32)
    first, second = OnnxDenoiser(onnx_path)(noise, timesteps, labels)
    assert np.abs(first - second).max() > 0.1


def test_train_classifier_takes_what_is_there_and_adds_what_is_asked(tiny_config, run_copy, capsys):
    arguments = ["--on", "real", "--on", "real_all", "--seeds", "1", "--out", str(run_copy)]
    assert main(["train", "classifier", str(tiny_config), *arguments]) == 0
    printed = capsys.readouterr().err
    assert "MobileNet-real_all-s0" in printed
    assert "MobileNet-real-s0," not in printed
    assert (run_copy / "classifiers" / "MobileNet-real_all-s0" / "model.keras").exists()


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


def test_set_in_which_nobody_looked_for_copies_while_drawing_is_reported(tiny_config, run_copy):
    path = run_copy / "synthetic" / "manifest.json"
    manifest = {**json.loads(path.read_text()), "calibration": None, "rejected": []}
    path.write_text(json.dumps(manifest))
    accept_outputs(run_copy)
    for command in ("audit", "report"):
        assert main([command, str(tiny_config), "--out", str(run_copy)]) == 0
    copies = json.loads((run_copy / "evaluation" / "privacy.json").read_text())["copies"]
    assert (copies["rejected"], copies["drawn"] > 0) == (None, True)
    page = (run_copy / "report.html").read_text()
    assert "Copies were not searched for while the set was drawn." in page
    assert "drawn again" not in page


def test_denoiser_of_another_backend_waits_for_its_export(
    refused, tiny_config, run_copy, monkeypatch
):
    resolve = images.resolve_runtime
    monkeypatch.setattr(
        images,
        "resolve_runtime",
        lambda settings: dataclasses.replace(resolve(settings), backend="jax"),
    )
    train = ["train", "diffusion", str(tiny_config), "--out", str(run_copy)]
    assert main(train) == 0
    assert "the training ran without TensorFlow" in refused(
        "sample", tiny_config, "--out", run_copy
    )
    monkeypatch.setattr(images, "resolve_runtime", resolve)
    assert main(train) == 0
    assert (run_copy / "diffusion" / "denoiser.onnx").exists()


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


def test_export_in_every_precision_and_test_of_each(tiny_config, run_copy, monkeypatch):
    monkeypatch.chdir(run_copy.parent)
    # A few epochs from scratch decide by a hair, which 8 bits may turn.
    monkeypatch.setattr("kerasmed.export.precision.MAX_LOSS", 0.5)
    options = ["--out", str(run_copy)]
    arguments = ["export", str(tiny_config), *options, "--precision", "fp16", "--precision", "int8"]
    assert main(arguments) == 0
    name = "MobileNet-real-s0"
    for suffix in ("", ".fp16", ".int8"):
        path = run_copy.parent / "exported" / "tiny" / f"{name}{suffix}.onnx"
        assert main(["export", "--check", str(path)]) == 0
    options += ["--set", "export.precisions=[fp16, int8]"]
    assert main(["evaluate", str(tiny_config), *options]) == 0
    rows = json.loads((run_copy / "evaluation" / "metrics.json").read_text())
    of_one = [row["precision"] for row in rows if row["trained_on"] == "real"]
    assert of_one == ["fp32", "fp16", "int8"]
    # What was not asked for again does not outlive the training that it was made from.
    assert main(["export", str(tiny_config), "--out", str(run_copy)]) == 0
    for folder in (run_copy / "exported", run_copy.parent / "exported" / "tiny"):
        assert list(folder.glob(f"{name}.*"))
        assert not list(folder.glob("*.int8.*"))


def test_network_that_fails_the_gate_does_not_stop_the_others(
    tiny_config, run_copy, monkeypatch, capsys
):
    monkeypatch.chdir(run_copy.parent)
    monkeypatch.setattr("kerasmed.export.precision.MAX_LOSS", -2.0)
    arguments = ["--out", str(run_copy), "--set", "export.precisions=[int8]"]
    assert main(["export", str(tiny_config), *arguments]) == 0
    assert "expected int8 to lose at most" in capsys.readouterr().err
    assert main(["evaluate", str(tiny_config), *arguments]) == 0
    rows = json.loads((run_copy / "evaluation" / "metrics.json").read_text())
    assert {row["precision"] for row in rows} == {"fp32"}


def test_the_tiny_study_really_trained(tiny_run):
    networks = [
        keras.saving.load_model(path, compile=False).get_layer("logits").get_weights()[1]
        for path in sorted((tiny_run / "classifiers").glob("*/model.keras"))
    ]
    assert all(np.abs(bias).max() > 0 for bias in networks)
    assert not np.array_equal(networks[0], networks[1])


def test_export_takes_a_study_or_a_file(refused, tiny_config, tmp_path):
    assert "takes an experiment file, or --check MODEL.onnx" in refused("export")
    assert "No model file at" in refused("export", "--check", tmp_path / "no.onnx")
    line = refused("export", tiny_config, "--check", tmp_path / "no.onnx")
    assert "leave the experiment file out" in line
    line = refused("export", "--check", tmp_path / "no.onnx", "--out", tmp_path)
    assert "--out goes with an experiment file" in line
    assert "export.precisions" in refused("export", tiny_config, "--precision", "fp8")


def _explanations(run):
    """Every record of a run but for what differs from time to time."""
    records = {}
    for path in sorted((run / "explanations").glob("*/*.json")):
        records[path.relative_to(run)] = json.loads(path.read_text())
        del records[path.relative_to(run)]["duration_s"]
    return records


def test_regimes_are_compared(tiny_run):
    comparisons = json.loads((tiny_run / "evaluation" / "comparisons.json").read_text())
    assert [row["regimes"] for row in comparisons] == [
        ["real", "synthetic"], ["real", "both"], ["synthetic", "both"],
    ]  # fmt: skip
    metrics = json.loads((tiny_run / "evaluation" / "metrics.json").read_text())
    accuracy = {row["trained_on"]: row["accuracy"] for row in metrics}
    for row in comparisons:
        assert row["accuracy"] == pytest.approx([accuracy[name] for name in row["regimes"]])


def test_explain_repeats_its_numbers(tiny_config, tiny_run, run_copy):
    shutil.rmtree(run_copy / "explanations")
    assert main(["explain", str(tiny_config), "--out", str(run_copy)]) == 0
    records = _explanations(run_copy)
    assert len(records) == 6  # one image a class, three CNNs
    assert records == _explanations(tiny_run)


def test_explain_goes_on_and_removes_what_other_settings_left(
    tiny_config, tiny_run, run_copy, capsys
):
    folder = run_copy / "explanations" / CNN
    kept, lost = sorted(folder.glob("*.json"))
    lost.unlink()
    written = kept.stat().st_mtime_ns
    (folder / "older-3.png").write_bytes(b"")
    assert main(["explain", str(tiny_config), "--out", str(run_copy)]) == 0
    assert kept.stat().st_mtime_ns == written
    assert _explanations(run_copy) == _explanations(tiny_run)
    assert not (folder / "older-3.png").exists()
    printed = capsys.readouterr().out
    assert "lime" in printed
    assert "insertion" in printed


def test_summary_of_explanations_has_the_checks_of_every_network(tiny_run):
    summary = json.loads((tiny_run / "explanations" / "summary.json").read_text())["lime"]
    assert list(summary["networks"]) == [
        f"MobileNet-{regime}-s0" for regime in ("real", "synthetic", "both")
    ]
    assert len(summary["agreement"]) == 3
    explained = _explanations(tiny_run)
    for name, figures in summary["networks"].items():
        assert figures["images"] == 2
        for key in ("deletion", "insertion", "random_deletion", "random_insertion"):
            assert 0 <= figures[key] <= 1
        # A tiny network with shuffled weights may answer every image alike: nothing to compare.
        records = [record for path, record in explained.items() if path.parent.name == name]
        compared = [record["randomised"] for record in records if "randomised" in record]
        assert all(-1 <= correlation <= 1 for correlation in compared)
        expected = pytest.approx(np.mean(compared)) if compared else None
        assert figures.get("randomised") == expected
        assert set(figures["mean_maps"]) == {"clear", "ground_glass"}


def test_region_of_a_phantom_is_compared_with_its_explanation(tiny_run):
    for path in (tiny_run / "explanations").glob("*/*.json"):
        record = json.loads(path.read_text())
        # A phantom without a lesion has no region.
        assert ("region" in record) == (record["true_class"] == "ground_glass")


@pytest.mark.parametrize("explainer", ["kernel_shap", "occlusion", "cam"])
def test_every_explainer_runs_in_a_study(tiny_config, run_copy, explainer):
    arguments = ["--set", f"explain.explainers=[lime, {explainer}]", "--out", str(run_copy)]
    assert main(["explain", str(tiny_config), *arguments]) == 0
    summary = json.loads((run_copy / "explanations" / "summary.json").read_text())
    assert list(summary) == ["lime", explainer]
    pictures = {path.name for path in (run_copy / "explanations" / CNN).glob("*.png")}
    assert sum(f".{explainer}." in name for name in pictures) == 2
    assert len(pictures) == 4
    assert main(["report", str(tiny_config), *arguments]) == 0
    assert explainer in (run_copy / "report.html").read_text()


def test_export_copies_to_the_project(tiny_config, run_copy, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(tiny_config), "--out", str(run_copy)]) == 0
    assert (tmp_path / "exported" / "tiny" / f"{CNN}.onnx").exists()
    assert f"{CNN}.onnx" in capsys.readouterr().out


def test_train_diffusion_that_is_finished_keeps_its_steps_and_the_set(
    tiny_config, run_copy, capsys
):
    onnx_path = run_copy / "diffusion" / "denoiser.onnx"
    before = onnx_path.read_bytes()
    assert main(["train", "diffusion", str(tiny_config), "--out", str(run_copy)]) == 0
    assert len((run_copy / "diffusion" / "history.csv").read_text().splitlines()) == 3
    assert onnx_path.read_bytes() == before

    assert main(["sample", str(tiny_config), "--out", str(run_copy)]) == 0
    assert "synthetic already exists" in " ".join(capsys.readouterr().err.split())


def test_data_split_on_a_folder(tiny_config, image_folder, tmp_path):
    arguments = ["--data", str(image_folder), "--out", str(tmp_path / "run")]
    assert main(["data", "split", str(tiny_config), *arguments]) == 0
    files = json.loads((tmp_path / "run" / "split.json").read_text())["files"]
    assert len(files) == 24
    assert files[0].keys() == {"path", "sha256", "class", "group", "role"}


PHANTOMS = ("clear", "ground_glass")


def phantom(class_name: str, index: int) -> np.ndarray:
    return draw_phantom("ct", class_name, index, 24, 0)[0]


def write_folder(root: Path) -> Path:
    for name in PHANTOMS:
        (root / "set" / name).mkdir(parents=True)
        for i in range(24):
            Image.fromarray(phantom(name, i)).save(root / "set" / name / f"{i}.png")
    return root / "set"


def write_table(root: Path, spelling: str = "set/{}", where: str = "set.csv") -> Path:
    """Two images of each class are of one patient, who has the same name in both classes."""
    write_folder(root)
    path = root / where
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "label", "patient"])
        for name in PHANTOMS:
            rows = [(spelling.format(f"{name}/{i}.png"), name, i // 2) for i in range(24)]
            table.writerows(rows)
    return path


def write_npz(root: Path) -> Path:
    images = np.stack([phantom(name, i)[..., 0] for name in PHANTOMS for i in range(24)])
    labels = np.repeat([0, 1], 24)
    path = root / "set.npz"
    np.savez(
        path,
        train_images=images[::2], train_labels=labels[::2],
        test_images=images[1::2], test_labels=labels[1::2],
    )  # fmt: skip
    return path


@pytest.mark.parametrize(
    ("write", "options", "groups"),
    [
        (write_folder, [], 48),
        (write_table, [], 12),
        (write_npz, [], 48),
        (write_npz, ["--set", "data.class_names=[clear, ground_glass]"], 48),
    ],
)
def test_data_split_from_every_kind_of_source(
    write, options, groups, tiny_config, tmp_path, capsys
):
    source = write(tmp_path)
    arguments = ["--data", str(source), "--out", str(tmp_path / "run"), *options]

    assert main(["data", "split", str(tiny_config), *arguments]) == 0

    result = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["data"]["result"]
    assert list(result["images"].values()) == [24, 24]
    assert result["groups"] == groups
    assert result["patients"] == (12 if source.suffix == ".csv" else None)
    files = json.loads((tmp_path / "run" / "split.json").read_text())["files"]
    roles = {entry["group"]: {entry["role"]} for entry in files}
    for entry in files:
        roles[entry["group"]].add(entry["role"])
    assert len(files) == 48
    assert len(roles) == groups
    assert all(len(of_group) == 1 for of_group in roles.values())
    assert f"{groups} groups, the largest of {48 // groups} images" in capsys.readouterr().out


@pytest.mark.parametrize("spelling", ["../set/../set/{}", "{absolute}/set/{{}}"])
def test_data_split_from_a_table_elsewhere(spelling, tiny_config, tmp_path):
    spelling = spelling.format(absolute=tmp_path) if "absolute" in spelling else spelling
    table = write_table(tmp_path, spelling, where="tables/set.csv")
    arguments = ["--data", str(table), "--out", str(tmp_path / "run")]

    assert main(["data", "split", str(tiny_config), *arguments]) == 0


def test_data_split_prints_roles_and_copies(tiny_config, tmp_path, capsys):
    folder = write_folder(tmp_path)
    shutil.copy(folder / "clear" / "0.png", folder / "clear" / "100.png")
    shutil.copy(folder / "clear" / "1.png", folder / "ground_glass" / "101.png")
    Image.fromarray(phantom("clear", 2)[:, ::-1]).save(folder / "clear" / "102.png")
    (folder / "clear" / "103.png").write_bytes(b"no image")
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run")]

    skip = ["--set", "data.on_bad_image=skip"]
    assert main(["data", "split", str(tiny_config), *arguments, *skip]) == 0

    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["data"]["result"]
    rows = [line.replace("│", "").split() for line in printed.splitlines() if "│" in line]
    assert rows == [
        [name, str(result["images"][name]), *(str(n[name]) for n in result["roles"].values())]
        for name in PHANTOMS
    ]
    assert result["images"] == {"clear": 26, "ground_glass": 25}
    assert all(word in printed for word in ("train", "validation", "test", "reserve"))
    assert "48 groups, the largest of 2 images" in printed
    assert "Copies: 2 with equal bytes, 2 with equal pixels" in printed
    assert "Near-duplicates: 4 images, and 2 more when mirrored or turned" in printed
    assert "With two labels: 1 pairs of equal pixels, 1 near-duplicate pairs" in printed
    assert "  clear/1.png and ground_glass/101.png" in printed.splitlines()
    assert "1 unreadable files left out, such as: " in printed


def test_data_split_prints_classes_whatever_their_names(tiny_config, tmp_path, capsys):
    folder = write_folder(tmp_path)
    (folder / "clear").rename(folder / "[clear]")
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run")]

    assert main(["data", "split", str(tiny_config), *arguments]) == 0

    assert "[clear]" in capsys.readouterr().out


def test_data_split_by_pattern_and_by_neighbours(tiny_config, tmp_path):
    folder = write_folder(tmp_path)

    def groups(name: str, *options: str) -> int:
        out = ["--data", str(folder), "--out", str(tmp_path / name)]
        assert main(["data", "split", str(tiny_config), *out, *options]) == 0
        files = json.loads((tmp_path / name / "split.json").read_text())["files"]
        return len({entry["group"] for entry in files})

    pattern = ["--set", "split.group_by=pattern", "--set", r"split.pattern=^(\w+/\d)"]
    # The first digit of 0 to 23 in each class: ten of them.
    assert groups("pattern", *pattern) == 20
    runs = ["--set", "split.group_by=neighbours", "--set", "split.run_length=5"]
    # 0-4, 5-9, 10-14, 15-19, 20-23 in each class.
    assert groups("runs", *runs) == 10


def test_data_split_refuses_classes_with_too_few_groups(refused, tiny_config, tmp_path):
    folder = write_folder(tmp_path)
    runs = ["--set", "split.group_by=neighbours", "--set", "split.run_length=10"]
    out = ["--data", folder, "--out", tmp_path / "run"]

    line = refused("data", "split", tiny_config, *runs, *out)

    assert "Class 'clear' has 3 groups of images that must stay together" in line
    assert "'test' got none" in line
    assert not (tmp_path / "run" / "split.json").exists()


def test_data_list_tells_what_can_be_fetched(capsys):
    assert main(["data", "list"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in (
        "brain-tumor-mri", "leukemia-all", "sarscov2-ct", "3256", "masoudnickparvar/brain-tumor",
        "Licence", "Benign", "CC BY-NC-SA 4.0",
    ):  # fmt: skip
        assert words.lower() in printed.lower()


def make_copy(folder: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{i}.jpg").touch()
    return folder


def test_data_fetch_takes_a_copy_and_tells_both_counts(tmp_path, capsys):
    copy = make_copy(tmp_path / "copy", Benign=504, Early=985, Pre=963, Pro=803)

    assert main(["data", "fetch", "leukemia-all", "--from", str(copy)]) == 0

    printed = capsys.readouterr().out
    rows = [line.replace("│", "").split() for line in printed.splitlines() if "│" in line]
    assert rows == [
        ["Benign", "504", "504"],
        ["Early", "985", "985"],
        ["Pre", "963", "963"],
        ["Pro", "803", "804"],
    ]
    assert "Fewer images than published" in printed
    assert "10.34740/KAGGLE/DSV/2175623" in printed
    assert f"Next: kerasmed study configs/leukemia_all.yaml --data {copy}" in printed


def test_data_fetch_of_a_whole_copy_warns_of_nothing(tmp_path, capsys):
    copy = make_copy(tmp_path / "Original", Benign=504, Early=985, Pre=963, Pro=804)

    assert main(["data", "fetch", "leukemia-all", "--from", str(tmp_path)]) == 0

    printed = capsys.readouterr().out
    assert "Fewer" not in printed
    assert f"--data {copy}" in printed


def test_data_fetch_downloads_into_the_folder_data(monkeypatch, tmp_path, capsys):
    def download(handle: str, output_dir: str) -> str:
        assert handle == "plameneduardo/sarscov2-ctscan-dataset"
        make_copy(Path(output_dir), **{"COVID": 2, "non-COVID": 3})
        return output_dir

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kagglehub.dataset_download", download)

    assert main(["data", "fetch", "sarscov2-ct"]) == 0

    assert (tmp_path / "data" / "sarscov2-ct" / "COVID" / "1.jpg").exists()
    assert "configs/sarscov2_ct.yaml --data data/sarscov2-ct" in capsys.readouterr().out


def test_data_fetch_without_network_tells_the_way_by_hand(refused, monkeypatch, tmp_path):
    def download(handle: str, output_dir: str) -> str:
        raise ConnectionError("Failed to resolve 'www.kaggle.com'\n(Errno -3)")

    monkeypatch.setattr("kagglehub.dataset_download", download)

    line = refused("data", "fetch", "brain-tumor-mri", "--out", tmp_path / "brain")

    assert "Cannot fetch masoudnickparvar/brain-tumor-mri-dataset" in line
    assert "Failed to resolve 'www.kaggle.com'" in line
    assert "https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset" in line
    assert "`kerasmed data fetch brain-tumor-mri --from DIR`" in line


def test_data_fetch_refuses_other_names_and_other_folders(refused, image_folder):
    assert "Unknown data set 'brains'" in refused("data", "fetch", "brains")
    line = refused("data", "fetch", "sarscov2-ct", "--from", image_folder)
    assert "expected the class folders ['COVID', 'non-COVID'] of sarscov2-ct" in line


def test_data_check_prints_the_findings_and_where_the_page_is(tmp_path, monkeypatch, capsys):
    folder = write_folder(tmp_path)
    shutil.copy(folder / "clear" / "1.png", folder / "ground_glass" / "101.png")
    monkeypatch.chdir(tmp_path)

    assert main(["data", "check", "set"]) == 0

    printed = capsys.readouterr().out
    assert "49 images, 1 different sizes" in printed
    assert "Patients: not named" in printed
    assert "Unreadable: 0" in printed
    assert "Copies: 1 with equal bytes, 1 with equal pixels" in printed
    assert "With two labels: 1 pairs of equal pixels, 1 near-duplicate pairs" in printed
    assert "  clear/1.png and ground_glass/101.png" in printed.splitlines()
    assert "Class from image size only: " in printed
    assert printed.rstrip().endswith(f"Page: {Path('runs') / 'check-set' / 'check.html'}")
    assert (tmp_path / "runs" / "check-set" / "check.html").exists()


def test_data_check_prints_nothing_but_json_when_asked(tmp_path, capsys):
    folder, out = write_folder(tmp_path), tmp_path / "out"

    assert main(["data", "check", str(folder), "--json", "--out", str(out)]) == 0

    findings = json.loads(capsys.readouterr().out)
    assert findings == json.loads((out / "check.json").read_text())
    assert findings["classes"] == {"clear": 24, "ground_glass": 24}
    assert (out / "check.html").exists()


def test_data_check_takes_settings_of_the_data(tmp_path, capsys):
    arguments = ["--json", "--out", str(tmp_path / "out")]
    names = ["--set", "data.class_names=[clear, ground_glass]"]

    assert main(["data", "check", str(write_npz(tmp_path)), *arguments, *names]) == 0

    assert list(json.loads(capsys.readouterr().out)["classes"]) == list(PHANTOMS)


def test_data_check_takes_the_number_of_bits(tmp_path, capsys):
    folder = write_folder(tmp_path)
    shutil.copy(folder / "clear" / "0.png", folder / "clear" / "100.png")
    arguments = ["--json", "--out", str(tmp_path / "out")]

    bits = ["--set", "split.near_duplicate_bits=null"]
    assert main(["data", "check", str(folder), *arguments, *bits]) == 0

    assert json.loads(capsys.readouterr().out)["duplicates"]["near_duplicates"] == 0


def test_data_check_refuses_what_is_no_set(refused, tmp_path, image_folder):
    assert f"Nothing at {tmp_path / 'no'}" in refused("data", "check", tmp_path / "no")
    (image_folder / "clear" / "notes.txt").touch()
    assert "notes.txt has an unsupported file extension" in refused("data", "check", image_folder)
    assert "unknown key data.colour" in refused(
        "data", "check", image_folder, "--set", "data.colour=1"
    )


def test_data_leakage_tells_both_splits(tiny_config, tmp_path, capsys):
    """Every image has a copy, so that a random split of few features may remember them."""
    folder = write_folder(tmp_path)
    for path in sorted(folder.glob("*/*.png")):
        shutil.copy(path, path.with_name(f"1{path.name}"))
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run")]

    assert main(["data", "leakage", str(tiny_config), *arguments]) == 0

    result = json.loads((tmp_path / "run" / "evaluation" / "leakage.json").read_text())
    assert result.keys() == {"features_of", "grouped", "random", "gap"}
    for name in ("grouped", "random"):
        values = result[name]["values"]
        assert len(values) == 5
        assert result[name]["mean"] == pytest.approx(np.mean(values))
        assert result[name]["standard_deviation"] == pytest.approx(np.std(values, ddof=1))
    assert result["gap"] == pytest.approx(result["random"]["mean"] - result["grouped"]["mean"])
    assert result["gap"] > 0
    printed = capsys.readouterr().out
    rows = [line.split("│")[1:4] for line in printed.splitlines() if "│" in line]
    assert [row[0].strip() for row in rows] == ["random, by image", "by group, as in this study"]
    assert float(rows[0][1]) == pytest.approx(100 * result["random"]["mean"], abs=0.06)
    assert float(rows[1][2]) == pytest.approx(
        100 * result["grouped"]["standard_deviation"], abs=0.06
    )
    assert f"Logistic regression on features of {result['features_of']}." in printed
    stages = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]
    assert list(stages) == ["data", "leakage"]


def test_data_leakage_leaves_out_seeds_that_cannot_be_split(
    tiny_config, tmp_path, monkeypatch, capsys
):
    folder = write_folder(tmp_path)
    split, asked = leakage.make_split, []

    def make_split(labels, groups, names, settings, seed):
        asked.append(seed)
        if seed > 0:
            raise DataError("too few groups")
        return split(labels, groups, names, settings, seed)

    monkeypatch.setattr(leakage, "make_split", make_split)
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run")]
    assert main(["data", "leakage", str(tiny_config), *arguments]) == 0
    assert max(asked) > 5
    result = json.loads((tmp_path / "run" / "evaluation" / "leakage.json").read_text())
    assert len(result["grouped"]["values"]) == 1
    assert result["grouped"]["standard_deviation"] is None
    assert "by group" in capsys.readouterr().out


def test_data_leakage_repeats_its_numbers(tiny_config, tiny_run, run_copy):
    before = json.loads((tiny_run / "evaluation" / "leakage.json").read_text())
    assert main(["data", "leakage", str(tiny_config), "--out", str(run_copy)]) == 0
    assert json.loads((run_copy / "evaluation" / "leakage.json").read_text()) == before


def test_data_leakage_stops_at_a_file_that_changed(refused, tiny_config, image_folder, tmp_path):
    arguments = ["--data", str(image_folder), "--out", str(tmp_path / "run")]
    assert main(["data", "split", str(tiny_config), *arguments]) == 0
    (image_folder / "clear" / "3.png").unlink()
    assert "3.png` was clear" in refused("data", "leakage", tiny_config, *arguments)


def test_data_leakage_follows_the_files_when_the_lines_of_a_table_change_places(
    tiny_config, tmp_path
):
    table = write_table(tmp_path)
    arguments = ["--data", str(table), "--out", str(tmp_path / "run")]

    def grouped() -> list[float]:
        assert main(["data", "leakage", str(tiny_config), *arguments]) == 0
        path = tmp_path / "run" / "evaluation" / "leakage.json"
        return json.loads(path.read_text())["grouped"]["values"]

    before = grouped()
    header, *lines = table.read_text().splitlines()
    lines = [lines[i] for i in np.random.default_rng(0).permutation(len(lines))]
    table.write_text("\n".join([header, *lines]) + "\n")

    assert grouped() == before


def test_demo_is_a_study_on_phantoms(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("kerasmed.study.runner.run_study", lambda config, *_: called.append(config))
    monkeypatch.setattr("kerasmed.files.read_json", lambda *_: [])
    monkeypatch.setattr("kerasmed.cli.tables.print_metrics", lambda rows: None)
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert called[0].data.phantoms.family == "smear"
    own, packaged = (ROOT / folder / "demo.yaml" for folder in ("configs", "kerasmed/study"))
    assert own.read_text() == packaged.read_text()


def _image(folder, name="slice.png"):
    image, _ = draw_phantom("ct", "clear", 500, 40, 0)
    Image.fromarray(image).save(folder / name)
    return folder / name


def test_predict_prints_a_table_or_json(model, tmp_path, capsys):
    image = _image(tmp_path)
    assert main(["predict", str(model), str(image)]) == 0
    assert "predicted" in capsys.readouterr().out
    assert main(["predict", str(model), str(image), "--json"]) == 0
    prediction = json.loads(capsys.readouterr().out)
    assert prediction["predicted"] in ("clear", "ground_glass")
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_predict_takes_folders_patterns_and_a_list(model, tmp_path, capsys, monkeypatch):
    (tmp_path / "inside").mkdir()
    paths = [str(_image(tmp_path / "inside", name)) for name in ("a.png", "b.png")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(paths) + "\n\n"))
    for given in (str(tmp_path / "inside"), str(tmp_path / "inside" / "*.png"), "-"):
        assert main(["predict", str(model), given, "--json"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["image"] for line in lines] == paths


def test_predict_takes_a_name_that_is_not_text(model, tmp_path, capsys):
    image = _image(tmp_path, os.fsdecode(b"\xff.png"))
    assert main(["predict", str(model), str(image), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["image"].endswith(".png")


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_predict_goes_on_after_a_corrupt_file(model, tmp_path, capsys, bad):
    paths = [_image(tmp_path, name) for name in ("a.png", "b.png", "c.png")]
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
    assert "cuda was asked for" in refused(
        "predict", model, tmp_path / "no.png", "--provider", "cuda"
    )


def test_evaluate_a_model_on_a_folder(model, image_folder, capsys):
    assert main(["evaluate", str(model), str(image_folder)]) == 0
    assert "24 test images" in capsys.readouterr().out


def test_evaluate_names_what_a_missing_class_leaves_out(model, image_folder, capsys):
    shutil.rmtree(image_folder / "clear")
    metrics = evaluate_folder(model, image_folder)
    assert metrics["per_class"]["clear"]["n"] == 0
    assert metrics["per_class"]["ground_glass"] == {
        "n": 12, "recall": metrics["accuracy"], "precision": None, "f1": None,
        "not_computed": "precision and F1: every test image is of 'ground_glass'",
    }  # fmt: skip

    assert main(["evaluate", str(model), str(image_folder)]) == 0
    printed = capsys.readouterr().out
    assert "12 test images" in printed
    assert "Not computed: all but the sensitivity of 'ground_glass'" in printed


def test_evaluate_a_table_by_name_in_whatever_order(model, image_folder):
    whole = evaluate_folder(model, image_folder)
    table = image_folder.parent / "outside.csv"
    paths = sorted(image_folder.rglob("*.png"), reverse=True)
    lines = [f"{path.relative_to(table.parent)},{path.parent.name}" for path in paths]
    table.write_text("\n".join(["path,label", *lines]))

    metrics = evaluate_folder(model, table)

    assert metrics["confusion"] == whole["confusion"]
    table.write_text("\n".join(["path,label", *(x for x in lines if x.endswith("ground_glass"))]))
    alone = evaluate_folder(model, table)
    assert alone["confusion"] == [[0, 0], whole["confusion"][1]]


def _numbered(model: Path, folder: Path, **changes) -> Path:
    """The model with other metadata."""
    proto = onnx.load(model)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    metadata |= {f"kerasmed.{key}": json.dumps(value) for key, value in changes.items()}
    onnx.helper.set_model_props(proto, metadata)
    onnx.save(proto, folder / "numbered.onnx")
    return folder / "numbered.onnx"


def _archive(folder: Path, labels: list[int]) -> Path:
    names = ("clear", "ground_glass")
    images = np.stack([draw_phantom("ct", names[label % 2], i, 16, 0)[0] for i, label in
                       enumerate(labels)])  # fmt: skip
    np.savez(folder / "set.npz", test_images=images, test_labels=np.array(labels))
    return folder / "set.npz"


def test_evaluate_an_archive_by_the_numbers_that_the_model_knows(model, tmp_path, refused):
    archive = _archive(tmp_path, [1] * 6)
    line = refused("evaluate", model, archive)
    assert "an .npz has numbers for labels" in line
    assert "give a .csv or a folder of class folders" in line

    # Trained on an archive whose 0 is ground_glass, so that its 1 is clear.
    named = _numbered(model, tmp_path, data_class_names=["ground_glass", "clear"])
    assert evaluate_folder(named, archive)["per_class"]["clear"]["n"] == 6
    numbered = _numbered(model, tmp_path, class_names=["00", "01"])
    assert evaluate_folder(numbered, archive)["per_class"]["01"]["n"] == 6
    assert "received 1 to 2" in refused("evaluate", numbered, _archive(tmp_path, [1, 2]))


def test_evaluate_a_folder_counts_copies_of_a_file_once(model, image_folder):
    alone = evaluate_folder(model, image_folder)["accuracy_ci95"]
    for path in list(image_folder.rglob("*.png")):
        for i in range(5):
            shutil.copy(path, path.with_name(f"{path.stem}-{i}.png"))

    with_copies = evaluate_folder(model, image_folder)
    assert with_copies["n_test"] == 6 * 24
    assert with_copies["accuracy_ci95"] == pytest.approx(alone, abs=0.06)


def test_explain_images_with_a_model(model, tmp_path, capsys):
    image = _image(tmp_path)
    arguments = ["explain", str(model), str(image), "--out", str(tmp_path / "lime")]
    assert main([*arguments, "--set", "explain.num_samples=40", "--set", "seed=3"]) == 0
    record = json.loads((tmp_path / "lime" / "slice.json").read_text())
    assert len(record["weights"]["clear"]) == 1 + max(max(row) for row in record["segments"])
    assert (record["num_samples"], record["seed"]) == (40, 3)
    assert (tmp_path / "lime" / "slice.png").exists()
    assert f"slice.png: {record['predicted_class']}" in capsys.readouterr().out


def test_explain_goes_on_after_a_file_that_cannot_be_read(model, tmp_path, refused):
    _image(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    line = refused("explain", model, tmp_path / "*.png", "--out", tmp_path / "lime")
    assert "1 of 2 images cannot be read" in line
    assert (tmp_path / "lime" / "slice.png").exists()


def test_explain_a_model_refuses_what_it_cannot_do(model, tmp_path, refused):
    image = _image(tmp_path)
    alone = shutil.copyfile(model, tmp_path / model.name)
    line = refused("explain", alone, image, "--set", "explain.explainers=[cam]")
    assert "CAM needs the Keras network" in line
    assert "explain.hide" in refused("explain", model, image, "--set", "explain.hide=median")
    assert "--data goes with" in refused("explain", model, image, "--data", tmp_path)


def test_explain_images_of_one_name_in_two_folders(model, tmp_path, capsys):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    paths = [_image(tmp_path / "one"), _image(tmp_path / "two"), _image(tmp_path)]
    few = ["--set", "explain.num_samples=40"]
    arguments = ["explain", str(model), *map(str, paths), "--out", str(tmp_path / "lime"), *few]

    assert main(arguments) == 0

    # In the folder that is above all, one step more tells it apart.
    names = {path.name for path in (tmp_path / "lime").glob("*.png")}
    assert names == {"one-slice.png", "two-slice.png", f"{tmp_path.name}-slice.png"}
    assert capsys.readouterr().out.count(" samples, ") == 3


def test_explain_never_overwrites_an_image(model, tmp_path, refused):
    image = _image(tmp_path)
    before = image.read_bytes()
    line = refused("explain", model, image, "--out", tmp_path)
    assert "expected a folder without the images" in line
    assert image.read_bytes() == before
    assert list(tmp_path.iterdir()) == [image]


def test_explain_a_folder_again_takes_no_overlay_for_an_image(model, tmp_path, capsys):
    _image(tmp_path)
    few = ["--set", "explain.num_samples=40", "--set", "explain.explainers=[lime, occlusion]"]
    arguments = ["explain", str(model), str(tmp_path), "--out", str(tmp_path / "lime"), *few]
    for _ in range(2):
        assert main(arguments) == 0
    names = {path.name for path in (tmp_path / "lime").iterdir()}
    assert names == {
        f"slice{ending}" for ending in (".json", ".png", ".occlusion.json", ".occlusion.png")
    }


def test_explain_names_overlays_apart(model, tmp_path, refused):
    for name in ("IM.1", "IM.2"):
        _image(tmp_path).rename(tmp_path / name)
    paths = [_image(tmp_path, "s.png"), _image(tmp_path, "s.occlusion.png")]
    both = ["--set", "explain.explainers=[lime, occlusion]", "--set", "explain.num_samples=40"]
    arguments = ["explain", str(model), *map(str, paths), *both, "--out", str(tmp_path / "lime")]
    assert main(arguments) == 0
    assert len(list((tmp_path / "lime").glob("*.png"))) == 4
    # No images, but each is looked at by its own name.
    line = refused("explain", model, tmp_path / "IM.1", tmp_path / "IM.2", "--out", tmp_path / "o")
    assert "2 of 2 images cannot be read" in line


def test_explain_without_images_or_with_options_of_something_else(
    model, tmp_path, refused, tiny_config, monkeypatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "expected at least one path" in refused("explain", model, "-", "--out", tmp_path)
    image = _image(tmp_path)
    assert "received data.image_size" in refused(
        "explain", model, image, "--set", "data.image_size=8"
    )
    assert "go with a model" in refused("explain", tiny_config, "--provider", "cpu")


@pytest.mark.parametrize(("least", "taken"), [(-1, "int8"), (1.01, "fp32")])
def test_int8_explains_only_if_it_explains_like_float32(
    model, tmp_path, monkeypatch, capsys, least, taken
):
    broken, image = tmp_path / "broken.png", _image(tmp_path)
    broken.write_bytes(b"no image")
    model = shutil.copyfile(model, tmp_path / model.name)
    small = model.with_suffix(".int8.onnx")
    proto = onnx.load(model)
    proto.metadata_props.add(
        key="kerasmed.float32_sha256", value=json.dumps(sha256_of(Path(model)))
    )
    onnx.save(proto, small)
    monkeypatch.setattr("kerasmed.runtime.hardware.cpu_fields", lambda: {"flags": "avx_vnni"})
    monkeypatch.setattr("kerasmed.explain.network.SAME_EXPLANATION", least)
    arguments = ["--precision", "auto", "--out", str(tmp_path / "lime")]
    assert main(["explain", str(model), str(broken), str(image), *arguments]) == 2
    record = json.loads((tmp_path / "lime" / "slice.json").read_text())
    assert record["model"] == (small if taken == "int8" else model).name
    assert "a rank correlation of 1.000" in capsys.readouterr().err


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


def test_files_that_are_no_model(refused, tmp_path):
    image, text = _image(tmp_path), tmp_path / "text.onnx"
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
