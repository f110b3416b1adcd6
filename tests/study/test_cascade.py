"""Studies of large images: which networks they have, and a whole one with tiny networks."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import psutil
import pytest
import yaml
from conftest import TINY, phantom_set
from PIL import Image

from kerasmed.audit.privacy import membership_of_training_images
from kerasmed.cli.main import main
from kerasmed.diffusion.enlarge import reduce_images
from kerasmed.errors import ConfigError, MachineError, StageError
from kerasmed.inference.upscaler import OnnxUpscaler
from kerasmed.metrics.copies import Copy
from kerasmed.study import cascade, synthetic_set
from kerasmed.study.cascade import Enlarger, at_size, pixels_at
from kerasmed.study.config import Config, parse_config
from kerasmed.study.engine import check_unchanged, stages_of
from kerasmed.study.inputs import load_split
from kerasmed.study.release.facts import facts_of
from kerasmed.study.result_files import json_schema
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import STAGES
from kerasmed.study.stages.sampling import draw_samples, draw_shard


def settings(size: int, **sections) -> Config:
    return parse_config({"name": "x", "data": {"source": "a", "image_size": size}, **sections}, "f")


@pytest.mark.parametrize(
    ("size", "use", "base_size"),
    [
        (64, "auto", 64),
        (128, "auto", 128),
        (224, "auto", 56),
        (256, "auto", 64),
        (512, "auto", 128),
        (128, "always", 32),
        (256, "never", 256),
    ],
)
def test_size_decides_whether_there_is_an_upscaler(size, use, base_size, tmp_path):
    config = settings(size, upscaler={"use": use})
    assert (config.base_size, config.is_cascade) == (base_size, base_size != size)
    names = [stage.name for stage in stages_of(config, RunFolder(tmp_path))]
    assert ("upscaler" in names) == config.is_cascade


def test_set_of_another_program_is_drawn_by_no_network(tmp_path):
    config = settings(240, sampling={"source": "elsewhere"})
    names = {stage.name for stage in stages_of(config, RunFolder(tmp_path))}
    assert not config.is_cascade
    assert not names & {"diffusion", "upscaler"}


def test_stages_of_small_images_depend_on_no_setting_of_the_upscaler():
    one, other = settings(64), settings(64, upscaler={"steps": 4, "max_images": 3})
    for stage in STAGES.values():
        recorded = stage.settings(one)
        assert recorded == stage.settings(other)
        assert "upscaler" not in recorded


def test_each_stage_depends_on_what_decides_its_result():
    def changed(**upscaler):
        config = settings(256, upscaler=upscaler)
        return {name for name, stage in STAGES.items() if stage.settings(config) != before[name]}

    before = {name: stage.settings(settings(256)) for name, stage in STAGES.items()}
    assert changed(use="always", preview_every=3) == set()
    assert changed(steps=4) == changed(drawing_noise=0.1) == {"sampling"}
    assert changed(max_images=100) == changed(batch_size=8) == {"upscaler"}
    assert changed(use="never") >= {"diffusion"}


@pytest.mark.parametrize(
    ("size", "diffusion", "widths"),
    [
        (256, {}, [32, 64, 128, 192]),
        (224, {}, [32, 64, 192]),
        (224, {"preset": "small"}, [64, 128, 256]),
        (224, {"widths": [8, 16]}, [8, 16]),
    ],
)
def test_network_has_the_levels_that_small_images_allow(size, diffusion, widths):
    config = settings(size, diffusion=diffusion)
    assert config.diffusion.widths == widths
    assert parse_config(config.model_dump(mode="json"), "run.json") == config


@pytest.mark.parametrize(
    ("size", "sections", "message"),
    [
        (250, {}, r"data\.image_size must be a multiple of 16 .* received 250; change one"),
        (240, {}, r"data\.image_size / 4 must be a multiple of 8 .* received 60; .*use: never"),
        (224, {"diffusion": {"widths": [8, 16, 16, 16]}}, "a multiple of 16 .* received 56"),
        (256, {"upscaler": {"use": "never", "max_images": 9}}, r"upscaler\.max_images would have"),
        (256, {"upscaler": {"drawing_noise": 0.3}}, r"must not exceed upscaler\.base_noise"),
        (
            64,
            {"upscaler": {"use": "always", "crop_size": 128}},
            r"must not exceed data\.image_size",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(size, sections, message):
    with pytest.raises(ConfigError, match=message) as caught:
        settings(size, **sections)
    assert "\n" not in str(caught.value)


def test_images_are_reduced_as_the_upscaler_reduces_them():
    images = phantom_set(size=64)
    small = at_size(images, 16)
    np.testing.assert_array_equal(small.images, reduce_images(images.images))
    assert (small.data_hash, small.class_names) == (images.data_hash, images.class_names)
    assert pixels_at(images.images, 64) is images.images


UPSCALER = {
    "use": "always", "widths": [8], "crop_size": 16, "max_images": 32, "checkpoint_steps": 4,
    "batch_size": 4, "preview_every": 2, "warmup_steps": 2, "steps": 2,
}  # fmt: skip
LARGE = {
    **TINY,
    "name": "large",
    "data": {**TINY["data"], "image_size": 64},
    "upscaler": UPSCALER,
    "classifiers": {**TINY["classifiers"], "train_on": ["real", "synthetic"]},
}


@pytest.fixture(scope="module")
def config_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "large.yaml"
    path.write_text(yaml.safe_dump(LARGE))
    return path


@pytest.fixture(scope="module")
def drawn(config_path, tmp_path_factory) -> Path:
    """The run folder of both trainings and the set; read it, do not change it."""
    folder = tmp_path_factory.mktemp("large") / "run"
    for command in (["train", "diffusion"], ["train", "upscaler"], ["sample"]):
        assert main([*command, str(config_path), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(drawn, tmp_path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(drawn, tmp_path / "run")))


@pytest.fixture
def config(run) -> Config:
    return parse_config(run.record()["config"], "test")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")
    }


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_both_networks_leave_their_files_and_images_have_the_full_size(drawn):
    for folder, name in (("diffusion", "denoiser"), ("upscaler", "upscaler")):
        made = drawn / folder
        assert {path.name for path in made.iterdir()} == {
            f"{name}.keras", f"{name}.onnx", "checkpoints", "history.csv", "previews",
        }  # fmt: skip
        assert (made / "previews" / "step-00000008.png").exists()
        assert len((made / "history.csv").read_text().splitlines()) == 3
    header = (drawn / "upscaler" / "history.csv").read_text().splitlines()[0]
    assert "validation_loss" in header
    assert "closer_to_train" not in header
    metadata = OnnxUpscaler(drawn / "upscaler" / "upscaler.onnx").metadata
    assert (metadata["image_size"], metadata["base_size"]) == (64, 16)
    images = list((drawn / "synthetic").rglob("*.png"))
    assert len(images) == 44
    assert {pixels_of(path).shape for path in images} == {(64, 64, 3)}
    record = json.loads((drawn / "run.json").read_text())
    jsonschema.validate(record, json_schema("run"))
    assert record["stages"]["upscaler"]["result"]["steps"] == 8


def test_shards_and_a_resumed_sampling_draw_the_same_set(run, config):
    before = files_of(run.synthetic)
    shutil.rmtree(run.synthetic)
    assert draw_shard(config, run, 2, 2) == 22
    unfinished = run.root / "synthetic.unfinished"
    for path in sorted(unfinished.glob("*/*.png"))[::5]:
        path.unlink()
    assert draw_shard(config, run, 1, 2) == 5
    draw_samples(config, run)
    assert files_of(run.synthetic) == before


def test_draw_that_is_left_out_is_never_enlarged(run, config, monkeypatch):
    looked_at, enlarged = [], []

    class Filter:
        def find(self, images):
            looked_at.append(images.shape)
            first = len(looked_at) == 1
            return [Copy(0.9, 0.5, 3) if first and i == 5 else None for i in range(len(images))]

    upscale = cascade.upscale_images

    def watched(network, ranges, images, keys, *rest):
        enlarged.extend(keys)
        return upscale(network, ranges, images, keys, *rest)

    monkeypatch.setattr(synthetic_set, "CopyFilter", lambda *_: Filter())
    monkeypatch.setattr(cascade, "upscale_images", watched)
    shutil.rmtree(run.synthetic)
    assert draw_samples(config, run)["rejected"] == 1
    assert {shape[1:] for shape in looked_at} == {(16, 16, 3)}
    assert len(enlarged) == len(set(enlarged)) == 44
    assert (0, 5, 1) in enlarged
    assert (0, 5, 0) not in enlarged


def test_keras_draws_what_onnxruntime_draws(drawn, run, config):
    values = config.model_dump()
    values["sampling"] |= {"engine": "keras", "per_class": 4}
    draw_samples(parse_config(values, "test"), run)
    again = list(run.synthetic.rglob("*.png"))
    assert len(again) == 8
    for path in again:
        first = drawn / path.relative_to(run.root)
        assert np.abs(pixels_of(first).astype(int) - pixels_of(path)).max() <= 1


@pytest.mark.parametrize("keep", ["soft", "confirmed", "coverage"])
def test_draws_are_chosen_at_the_small_size(run, config, monkeypatch, keep):
    sizes = []

    class Real:
        def __init__(self, config, settings, train, groups, run):
            sizes.append(train.image_size)

        def probabilities(self, images):
            sizes.append(images.shape[1])
            return np.full((len(images), 2), 0.5)

        def doubts(self, images, labels):
            sizes.append(images.shape[1])
            return [None] * len(images)

        def covered_by(self, drawn, per_class):
            sizes.append(drawn.image_size)
            return np.concatenate([np.flatnonzero(drawn.labels == c)[:per_class] for c in (0, 1)])

    monkeypatch.setattr(synthetic_set, "RealImages", Real)
    monkeypatch.setattr(synthetic_set, "mark_of_extractor", lambda *_: {})
    monkeypatch.setattr(synthetic_set, "check_groups", lambda *_: None)
    values = config.model_dump()
    values["sampling"] |= {"keep": keep, "per_class": 4}
    values["audit"]["extractors"] = ["any.onnx"]
    assert draw_samples(parse_config(values, "test"), run)["images"] == {
        "clear": 4, "ground_glass": 4,
    }  # fmt: skip
    assert set(sizes) == {16}
    assert {pixels_of(path).shape for path in run.synthetic.rglob("*.png")} == {(64, 64, 3)}


@pytest.mark.parametrize(
    ("key", "value"),
    [("class_names", ["a", "b"]), ("base_size", 8), ("image_size", 32), ("data_hash", "0")],
)
def test_upscaler_of_another_study_is_refused(run, config, monkeypatch, key, value):
    image_set, _ = load_split(config, run)
    path = run.upscaler / "upscaler.onnx"
    opened = cascade._open

    def other(path):
        network, ranges, own = opened(path)
        return network, ranges, {**own, key: value}

    monkeypatch.setattr(cascade, "_open", other)
    with pytest.raises(StageError, match=f"another study: expected {key} .* received"):
        Enlarger(path, config, image_set)


def test_too_little_memory_is_refused_before_anything_is_drawn(monkeypatch):
    memory = SimpleNamespace(available=2**28)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    with pytest.raises(MachineError, match=r"upscaler\.onnx: expected 0\.4 GiB .* received 0\.2"):
        Enlarger(Path("upscaler.onnx"), settings(256), phantom_set(per_class=1))


def test_size_of_what_is_drawn_cannot_change_in_a_finished_study(run, config):
    values = {**config.model_dump(), "upscaler": {"use": "never"}}
    with pytest.raises(StageError, match=r"`upscaler\.use` was always when this was made"):
        check_unchanged(STAGES["diffusion"], parse_config(values, "test"), run)


def test_file_of_another_network_is_refused(run, config):
    shutil.copyfile(run.diffusion / "denoiser.onnx", run.upscaler / "upscaler.onnx")
    with pytest.raises(StageError, match=r"upscaler/upscaler\.onnx` was "):
        check_unchanged(STAGES["upscaler"], config, run)


def test_study_without_an_upscaler_trains_none(tiny_config, capsys, tmp_path):
    assert main(["train", "upscaler", str(tiny_config), "--out", str(tmp_path)]) == 2
    assert "This study has no upscaler: the diffusion model draws images of 16" in " ".join(
        capsys.readouterr().err.split()
    )


def test_file_of_the_upscaler_is_verified(drawn, capsys):
    assert main(["export", "--check", str(drawn / "upscaler" / "upscaler.onnx")]) == 0
    assert "with Keras on noise" in capsys.readouterr().out


@pytest.mark.slow
def test_whole_study_reports_both_networks(run, config_path, monkeypatch):
    asked = []

    def watched(denoiser, pixels, train, reserve, *rest):
        asked.extend([train.image_size, reserve.image_size])
        return membership_of_training_images(denoiser, pixels, train, reserve, *rest)

    monkeypatch.setattr("kerasmed.study.stages.audit.membership_of_training_images", watched)
    assert main(["study", str(config_path), "--out", str(run.root)]) == 0
    assert asked == [16, 16]
    page = run.report.read_text(encoding="utf-8")
    assert "Training of the upscaler" in page
    assert "at the 16 pixels that the diffusion model draws" in page
    privacy = json.loads((run.evaluation / "privacy.json").read_text())
    jsonschema.validate(privacy, json_schema("privacy"))
    assert privacy["base_size"] == 16
    facts = facts_of(run, synthetic_set.read_synthetic(parse_config(LARGE, "f"), run), 0)
    assert facts["upscaling"]["base_size"] == 16
    assert facts["provenance"]["sha256"].keys() >= {"denoiser", "upscaler"}
