"""Commands that test networks and synthetic images: evaluate, explain, audit and report."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import accept_outputs

from kerasmed.cli.main import main
from kerasmed.data.phantoms import draw_phantom
from kerasmed.files import sha256_of
from kerasmed.inference.evaluate import evaluate_folder

pytest_plugins = ["cli_fixtures"]

CNN = "MobileNet-real-s0"


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


def test_set_in_which_nobody_looked_for_copies_while_drawing_is_reported(tiny_config, run_copy):
    path = run_copy / "synthetic" / "manifest.json"
    manifest = {**json.loads(path.read_text()), "calibration": None, "rejected": []}
    path.write_text(json.dumps(manifest))
    accept_outputs(run_copy)
    for command in ("audit", "report"):
        assert main([command, str(tiny_config), "--out", str(run_copy)]) == 0
    copies = json.loads((run_copy / "evaluation" / "privacy.json").read_text())["copies"]
    assert (copies["filter"], copies["images"] > 0) == (None, True)
    page = (run_copy / "report.html").read_text()
    assert "No copy filter was used while the set was drawn." in page
    assert "The copy filter rejected" not in page
    assert "which searches in another way" not in page


def test_regimes_are_compared(tiny_run):
    comparisons = json.loads((tiny_run / "evaluation" / "comparisons.json").read_text())
    assert [row["regimes"] for row in comparisons] == [
        ["real", "synthetic"], ["real", "both"], ["synthetic", "both"],
    ]  # fmt: skip
    metrics = json.loads((tiny_run / "evaluation" / "metrics.json").read_text())
    accuracy = {row["trained_on"]: row["accuracy"] for row in metrics}
    for row in comparisons:
        of_each = [accuracy[name] for name in row["regimes"]]
        assert row["accuracy"]["of_each"] == pytest.approx(of_each)


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


def _explanations(run):
    """Every record of a run but for what differs from time to time."""
    records = {}
    for path in sorted((run / "explanations").glob("*/*.json")):
        records[path.relative_to(run)] = json.loads(path.read_text())
        del records[path.relative_to(run)]["duration_s"]
    return records


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


def test_explain_images_with_a_model(model, save_slice, tmp_path, capsys):
    image = save_slice(tmp_path)
    arguments = ["explain", str(model), str(image), "--out", str(tmp_path / "lime")]
    assert main([*arguments, "--set", "explain.num_samples=40", "--set", "seed=3"]) == 0
    record = json.loads((tmp_path / "lime" / "slice.json").read_text())
    assert len(record["weights"]["clear"]) == 1 + max(max(row) for row in record["segments"])
    assert (record["num_samples"], record["seed"]) == (40, 3)
    assert (tmp_path / "lime" / "slice.png").exists()
    assert f"slice.png: {record['predicted_class']}" in capsys.readouterr().out


def test_explain_goes_on_after_a_file_that_cannot_be_read(model, save_slice, tmp_path, refused):
    save_slice(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    line = refused("explain", model, tmp_path / "*.png", "--out", tmp_path / "lime")
    assert "1 of 2 images cannot be read" in line
    assert (tmp_path / "lime" / "slice.png").exists()


def test_explain_a_model_refuses_what_it_cannot_do(model, save_slice, tmp_path, refused):
    image = save_slice(tmp_path)
    alone = shutil.copyfile(model, tmp_path / model.name)
    line = refused("explain", alone, image, "--set", "explain.explainers=[cam]")
    assert "CAM needs the Keras network" in line
    assert "explain.hide" in refused("explain", model, image, "--set", "explain.hide=median")
    assert "--data goes with" in refused("explain", model, image, "--data", tmp_path)


def test_explain_images_of_one_name_in_two_folders(model, save_slice, tmp_path, capsys):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    paths = [save_slice(tmp_path / "one"), save_slice(tmp_path / "two"), save_slice(tmp_path)]
    few = ["--set", "explain.num_samples=40"]
    arguments = ["explain", str(model), *map(str, paths), "--out", str(tmp_path / "lime"), *few]

    assert main(arguments) == 0

    # In the folder that is above all, one step more tells it apart.
    names = {path.name for path in (tmp_path / "lime").glob("*.png")}
    assert names == {"one-slice.png", "two-slice.png", f"{tmp_path.name}-slice.png"}
    assert capsys.readouterr().out.count(" samples, ") == 3


def test_explain_never_overwrites_an_image(model, save_slice, tmp_path, refused):
    image = save_slice(tmp_path)
    before = image.read_bytes()
    line = refused("explain", model, image, "--out", tmp_path)
    assert "expected a folder without the images" in line
    assert image.read_bytes() == before
    assert list(tmp_path.iterdir()) == [image]


def test_explain_a_folder_again_takes_no_overlay_for_an_image(model, save_slice, tmp_path, capsys):
    save_slice(tmp_path)
    few = ["--set", "explain.num_samples=40", "--set", "explain.explainers=[lime, occlusion]"]
    arguments = ["explain", str(model), str(tmp_path), "--out", str(tmp_path / "lime"), *few]
    for _ in range(2):
        assert main(arguments) == 0
    names = {path.name for path in (tmp_path / "lime").iterdir()}
    assert names == {
        f"slice{ending}" for ending in (".json", ".png", ".occlusion.json", ".occlusion.png")
    }


def test_explain_names_overlays_apart(model, save_slice, tmp_path, refused):
    for name in ("IM.1", "IM.2"):
        save_slice(tmp_path).rename(tmp_path / name)
    paths = [save_slice(tmp_path, "s.png"), save_slice(tmp_path, "s.occlusion.png")]
    both = ["--set", "explain.explainers=[lime, occlusion]", "--set", "explain.num_samples=40"]
    arguments = ["explain", str(model), *map(str, paths), *both, "--out", str(tmp_path / "lime")]
    assert main(arguments) == 0
    assert len(list((tmp_path / "lime").glob("*.png"))) == 4
    # No images, but each is looked at by its own name.
    line = refused("explain", model, tmp_path / "IM.1", tmp_path / "IM.2", "--out", tmp_path / "o")
    assert "2 of 2 images cannot be read" in line


def test_explain_without_images_or_with_options_of_something_else(
    model, save_slice, tmp_path, refused, tiny_config, monkeypatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "expected at least one path" in refused("explain", model, "-", "--out", tmp_path)
    image = save_slice(tmp_path)
    assert "received data.image_size" in refused(
        "explain", model, image, "--set", "data.image_size=8"
    )
    assert "go with a model" in refused("explain", tiny_config, "--provider", "cpu")


@pytest.mark.parametrize(("least", "taken"), [(-1, "int8"), (1.01, "fp32")])
def test_int8_explains_only_if_it_explains_like_float32(
    model, save_slice, tmp_path, monkeypatch, capsys, least, taken
):
    broken, image = tmp_path / "broken.png", save_slice(tmp_path)
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
