"""Which stages are current, which are refused, and why."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.errors import StageError
from kerasmed.study.classifier_specs import classifier_specs
from kerasmed.study.config import parse_config
from kerasmed.study.engine import check_inputs, check_unchanged, is_current, perform
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.runner import run_study
from kerasmed.study.stages import STAGES

CONFIG = parse_config({"name": "x", "data": {"source": "somewhere"}}, "test")
ALL = ("data", "diffusion", "sampling", "classifiers", "export", "evaluate")


def _changed(section, key, value, config=CONFIG):
    values = config.model_dump()
    values[section][key] = value
    return parse_config(values, "test")


def _run(run, *names, config=CONFIG, content="first", data_hash="0"):
    """Run stages whose work is to write one file each."""
    for name in names:
        path = run.split_path if name == "data" else run.root / f"{name}.out"

        def work(config, run, name=name, path=path):
            path.write_text(content)
            results = {
                "data": {"data_hash": data_hash},
                "sampling": {"variants": dict.fromkeys(config.sampling.variants)},
                "classifiers": {"classifiers": [spec.name for spec in classifier_specs(config)]},
            }
            return results.get(name, {})

        stage = replace(STAGES[name], run=work, outputs=lambda config, run, path=path: [path])
        perform(stage, config, run)


def test_stages_come_after_what_they_need():
    names = list(STAGES)
    for name, stage in STAGES.items():
        assert all(names.index(needed) < names.index(name) for needed in stage.needs)


def test_stage_is_outdated_only_when_one_that_it_needs_gives_something_else(tmp_path):
    run = RunFolder(tmp_path)
    _run(run, "data", "diffusion", "sampling")
    _run(run, "diffusion")
    assert is_current(STAGES["sampling"], CONFIG, run)
    _run(run, "diffusion", content="second")
    assert not is_current(STAGES["sampling"], CONFIG, run)
    check_unchanged(STAGES["sampling"], CONFIG, run)  # redone rather than refused


def test_stage_that_was_interrupted_while_it_was_redone_is_not_refused(tmp_path):
    run = RunFolder(tmp_path)
    _run(run, "data", "diffusion", "sampling")
    _run(run, "diffusion", content="second")
    (tmp_path / "sampling.out").write_text("half")
    check_unchanged(STAGES["sampling"], CONFIG, run)
    assert not is_current(STAGES["sampling"], CONFIG, run)


@pytest.mark.parametrize("again", ["sampling", "diffusion"])
def test_stage_on_something_outdated_is_outdated_and_refused(tmp_path, again):
    run = RunFolder(tmp_path)
    _run(run, *ALL, "audit")
    _run(run, again, content="second")
    assert not any(is_current(STAGES[name], CONFIG, run) for name in ("evaluate", "audit"))
    with pytest.raises(StageError, match=rf"`{again}\.out` was .* rerun `kerasmed"):
        check_inputs(STAGES["audit"], CONFIG, run)


def test_split_may_be_edited_until_a_stage_has_used_it(tmp_path):
    run = RunFolder(tmp_path)
    _run(run, "data")
    run.split_path.write_text("edited")
    _run(run, "diffusion")
    assert is_current(STAGES["diffusion"], CONFIG, run)
    run.split_path.write_text("edited again")
    with pytest.raises(StageError, match=r"'diffusion' .*`split\.json` was .* rerun `kerasmed t"):
        check_inputs(STAGES["sampling"], CONFIG, run)


def test_stages_on_a_split_that_was_made_again_are_redone(tmp_path):
    run = RunFolder(tmp_path)
    _run(run, "data", "diffusion")
    _run(run, "data", content="second")
    check_unchanged(STAGES["diffusion"], CONFIG, run)
    assert not is_current(STAGES["diffusion"], CONFIG, run)


@pytest.mark.parametrize(
    ("key", "value"), [("symmetry", "dihedral"), ("image_size", 128), ("grey_range", [0, 9])]
)
def test_stages_on_images_that_are_read_differently_are_redone(tmp_path, monkeypatch, key, value):
    run, config = RunFolder(tmp_path), _changed("data", key, value)
    _run(run, *ALL)
    _run(run, "data", config=config, data_hash="0" if key != "grey_range" else "1")
    for name in ALL[1:]:
        assert is_current(STAGES[name], CONFIG, run) == (key != "grey_range")
        assert not is_current(STAGES[name], config, run)
        check_unchanged(STAGES[name], config, run)


def test_settings_of_other_sections_belong_to_the_stages_that_use_them():
    foreign = _changed("sampling", "source", Path("theirs"))
    known = _changed("sampling", "source_learned_from", "train", foreign)
    other = _changed("classifiers", "backbones", ["MobileNet"])
    more = _changed("classifiers", "backbones", ["MobileNetV2", "MobileNet"])
    covering = _changed("sampling", "keep", "coverage")
    by_other = _changed("classifiers", "backbones", ["VGG16"], covering)
    for name, before, now, is_changed in (
        ("audit", foreign, known, True), ("sampling", foreign, known, False),
        ("leakage", CONFIG, other, True), ("leakage", CONFIG, more, False),
        ("worth", CONFIG, other, True),
        ("sampling", CONFIG, other, False), ("sampling", covering, by_other, True),
    ):  # fmt: skip
        stage = STAGES[name]
        assert (stage.settings(before) != stage.settings(now)) == is_changed, name


def test_changed_setting_of_a_finished_stage_is_refused_by_name(tmp_path):
    run = RunFolder(tmp_path)
    _run(run, "data", "diffusion")
    with pytest.raises(StageError, match=r"`diffusion\.learning_rate` was 0\.001 .* is 0\.5 now"):
        run_study(_changed("diffusion", "learning_rate", 0.5), run)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("runtime", "distribution", "mirrored"), ("diffusion", "preview_every", 3)],
)
def test_number_of_devices_and_of_previews_does_not_outdate_a_stage(tmp_path, section, key, value):
    run = RunFolder(tmp_path)
    _run(run, "data", "diffusion")
    check_unchanged(STAGES["diffusion"], _changed(section, key, value), run)


def test_weights_that_changed_are_refused_and_weights_that_are_gone_are_not(tmp_path):
    run, weights = RunFolder(tmp_path / "run"), tmp_path / "mobilenet.h5"
    run.root.mkdir()
    weights.write_text("weights")
    config = _changed("classifiers", "weights", str(weights))
    _run(run, "data", "leakage", *ALL[1:4], config=config)
    weights.write_text("other weights")
    for name in ("classifiers", "leakage"):
        with pytest.raises(StageError, match=r"mobilenet\.h5` was .* rerun `kerasmed"):
            check_unchanged(STAGES[name], config, run)
    weights.unlink()
    check_unchanged(STAGES["classifiers"], config, run)


def test_study_adds_networks_and_refuses_to_leave_some_out(tmp_path):
    run, stage = RunFolder(tmp_path), STAGES["classifiers"]
    _run(run, *ALL[:5])
    for key, value in (
        ("seeds", 2),
        ("train_on", ["real", "synthetic", "both", "best", "real_all"]),
    ):
        more = _changed("classifiers", key, value)
        check_unchanged(stage, more, run)
        assert not is_current(stage, more, run)
        assert not is_current(STAGES["export"], more, run)
        with pytest.raises(StageError, match=r"s1|real_all.*which adds what is missing"):
            check_inputs(STAGES["export"], more, run)
    with pytest.raises(StageError, match=r"`classifiers\.train_on` was"):
        check_unchanged(stage, _changed("classifiers", "train_on", ["real"]), run)


def test_study_adds_networks_with_settings_of_their_own(tmp_path):
    run, stage, values = RunFolder(tmp_path), STAGES["classifiers"], CONFIG.model_dump()
    values["classifiers"]["backbones"] = ["MobileNet"]
    _run(run, *ALL[:4], config=parse_config(values, "test"))
    values["classifiers"] |= {
        "backbones": ["MobileNet", "ResNet50"],
        "weights": {"MobileNet": "imagenet", "ResNet50": "none"},
        "by_backbone": {"ResNet50": {"input_size": 64}},
    }
    check_unchanged(stage, parse_config(values, "test"), run)

    for key, value in (
        ("by_backbone", {"MobileNet": {"input_size": 64}}),
        ("weights", {"MobileNet": "none", "ResNet50": "none"}),
    ):
        changed = {**values, "classifiers": {**values["classifiers"], key: value}}
        with pytest.raises(StageError, match=r"`classifiers\."):
            check_unchanged(stage, parse_config(changed, "test"), run)


def test_study_adds_synthetic_sets_and_refuses_to_change_one(tmp_path):
    run = RunFolder(tmp_path)
    config = _changed("sampling", "variants", {"x2": {"times_real": 2}})
    _run(run, *ALL[:4], config=config)
    both = {"x2": {"times_real": 2}, "x3": {"times_real": 3}}
    more = _changed("sampling", "variants", both)
    for name in ("sampling", "classifiers"):
        check_unchanged(STAGES[name], more, run)
        assert not is_current(STAGES[name], more, run)
    with pytest.raises(StageError, match=r"x3 in .*a drawn set.*`kerasmed sample"):
        check_inputs(STAGES["classifiers"], more, run)
    for variants in ({"x2": {"times_real": 4}}, {"x3": {"times_real": 3}}):
        with pytest.raises(StageError, match=r"`sampling\.variants\.x2"):
            check_unchanged(STAGES["sampling"], _changed("sampling", "variants", variants), run)


def test_stage_without_its_input_names_the_command(tmp_path):
    with pytest.raises(StageError, match="run `kerasmed data split CONFIG` first"):
        perform(STAGES["sampling"], CONFIG, RunFolder(tmp_path))


def test_record_keeps_settings_outputs_machine_and_time(tmp_path):
    run = RunFolder(tmp_path)
    _run(run, "data")
    record = run.record()
    assert record["config"]["name"] == "x"
    entry = record["stages"]["data"]
    assert entry["fingerprint"]["settings"]["split"]["test"] == 0.2
    assert entry["outputs"].keys() == {"split.json"}
    assert {"machine", "versions", "duration_s", "finished"} <= entry.keys()


def _append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b" ")


def _repaint(run: Path, folder: str) -> None:
    image = sorted((run / folder).rglob("*.png"))[0]
    with Image.open(image) as opened:
        size = opened.size
    Image.new("RGB", size).save(image)


def _edit_split(run: Path) -> None:
    content = json.loads((run / "split.json").read_text())
    entries = content["files"]
    group = next(entry["group"] for entry in entries if entry["role"] == "reserve")
    for entry in entries:
        entry["role"] = "test" if entry["group"] == group else entry["role"]
    (run / "split.json").write_text(json.dumps(content))


CNN = "MobileNet-real-s0"

# What is changed after a study, the key that the message names, and the command that it gives.
CHANGES = {
    "images": (lambda run: _repaint(run, "images/phantoms"), r"/.*\.png", "data split"),
    "split": (_edit_split, "split.json", "data leakage"),
    "leakage": (lambda run: _append(run / "evaluation/leakage.json"), "evaluation/leakage.json",
                "data leakage"),
    "denoiser": (lambda run: _append(run / "diffusion/denoiser.onnx"), "diffusion/denoiser.onnx",
                 "train diffusion"),
    "synthetic": (lambda run: _repaint(run, "synthetic"), "synthetic", "sample"),
    "weights": (lambda run: _append(run / f"classifiers/{CNN}/model.keras"),
                f"classifiers/{CNN}/model.keras", "train classifier"),
    "exported": (lambda run: _append(run / f"exported/{CNN}.onnx"), f"exported/{CNN}.onnx",
                 "export"),
    "metrics": (lambda run: _append(run / "evaluation/metrics.json"), "evaluation/metrics.json",
                "evaluate"),
    "explanations": (lambda run: _repaint(run, "explanations"), "explanations", "explain"),
    "privacy": (lambda run: _append(run / "evaluation/privacy.json"), "evaluation/privacy.json",
                "audit"),
}  # fmt: skip

# A setting of each stage, its new value, and the command that redoes the stage.
SETTINGS = {
    "split.test": ("0.3", "data split"),
    "seed": ("1", "data split"),
    "diffusion.learning_rate": ("0.5", "train diffusion"),
    "sampling.steps": ("4", "sample"),
    "classifiers.dropout": ("0.1", "train classifier"),
    "export.calibration_images": ("17", "export"),
    "evaluation.bootstrap_samples": ("101", "evaluate"),
    "explain.top": ("1", "explain"),
    "audit.extractors": ("[MobileNet]", "audit"),
}


def _refusal(capsys, *arguments) -> str:
    assert main([*map(str, arguments)]) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changed_after_a_study_is_refused_in_one_form(
    tiny_config, run_copy, capsys, change
):
    make, key, command = CHANGES[change]
    make(run_copy)

    line = _refusal(capsys, "study", tiny_config, "--out", run_copy)

    assert re.search(
        rf"`{key}` was .+ when this was made and is .+ now\. Restore .+, choose another --out, or "
        rf"rerun `kerasmed {command} CONFIG`",
        line,
    )


@pytest.mark.parametrize("key", SETTINGS)
def test_setting_of_each_stage_that_changed_is_refused_in_the_same_form(
    tiny_config, tiny_run, capsys, key
):
    value, command = SETTINGS[key]

    line = _refusal(capsys, "study", tiny_config, "--out", tiny_run, "--set", f"{key}={value}")

    assert re.search(
        rf"`{key}` was .+ when this was made and is .+ now\. Restore .+, choose another --out, or "
        rf"rerun `kerasmed {command} CONFIG`",
        line,
    )
