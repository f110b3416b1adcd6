"""Training the diffusion model and the CNNs, and drawing the synthetic set."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from conftest import accept_outputs
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.diffusion.model import load_diffusion_model
from kerasmed.inference.denoiser import OnnxDenoiser
from kerasmed.study.stages import diffusion as images

pytest_plugins = ["cli_fixtures"]


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


def test_train_classifier_takes_what_is_there_and_adds_what_is_asked(tiny_config, run_copy, capsys):
    arguments = ["--on", "real", "--on", "real_all", "--seeds", "1", "--out", str(run_copy)]
    assert main(["train", "classifier", str(tiny_config), *arguments]) == 0
    printed = capsys.readouterr().err
    assert "MobileNet-real_all-s0" in printed
    assert "MobileNet-real-s0," not in printed
    assert (run_copy / "classifiers" / "MobileNet-real_all-s0" / "model.keras").exists()


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
    (run_copy / "synthetic").rename(run_copy / "synthetic.unfinished")
    monkeypatch.setattr(
        "kerasmed.diffusion.config.sampling_timesteps", lambda steps: np.array([999, 500, 0])
    )
    line = refused("sample", tiny_config, "--out", run_copy)
    assert "synthetic.unfinished: `sampling.timesteps` was [" in line
    assert "is [999, 500, 0] now" in line


def test_shard_whose_set_was_finished_by_another_stops(refused, tiny_config, run_copy, monkeypatch):
    from kerasmed.study import drawing

    def draw(*_):
        yield 0, 0, np.zeros((16, 16, 3), np.uint8)
        (run_copy / "synthetic.unfinished").rename(run_copy / "elsewhere")
        yield 0, 1, np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr(drawing, "generate_images", draw)
    off = "sampling.copy_filter=false"
    line = refused("sample", tiny_config, "--shard", "1/2", "--set", off, "--out", run_copy)
    assert "synthetic.unfinished is gone" in line
    assert not (run_copy / "synthetic.unfinished").exists()


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
    model = load_diffusion_model(keras_path)
    rng = np.random.default_rng(0)
    model.set_weights([w + 0.1 * rng.standard_normal(w.shape) for w in model.get_weights()])
    model.save(keras_path)
    metadata = OnnxDenoiser(onnx_path).metadata
    kept = {k: metadata[k] for k in ("class_names", "data_hash")}
    model.export(onnx_path, **kept)
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
