import json
import shutil
import subprocess
import sys

import pytest

from kerasmed.cli.main import main
from kerasmed.errors import StageError
from kerasmed.study.classifier_specs import classifier_specs
from kerasmed.study.config import parse_config
from kerasmed.study.engine import check_inputs, check_unchanged, is_current, perform
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.runner import run_study
from kerasmed.study.stages import STAGES

CONFIG = parse_config({"name": "x", "data": {"source": "somewhere"}}, "test")


def _record(run, *names, config=CONFIG):
    for name in names:
        results = {
            "data": {"data_hash": "0"},
            "sampling": {"variants": dict.fromkeys(config.sampling.variants)},
            "classifiers": {"classifiers": {spec.name: {} for spec in classifier_specs(config)}},
        }
        result = results.get(name, {})
        run.write_stage(config, name, STAGES[name].settings(config), result, 1.0)


def test_stages_come_after_what_they_need():
    names = list(STAGES)
    for name, stage in STAGES.items():
        assert all(names.index(needed) < names.index(name) for needed in stage.needs)


def test_stage_is_outdated_when_one_that_it_needs_ran_again(tmp_path):
    run = RunFolder(tmp_path)
    _record(run, "data", "diffusion", "sampling")
    assert is_current(STAGES["sampling"], CONFIG, run.finished_stages())
    _record(run, "diffusion")
    assert not is_current(STAGES["sampling"], CONFIG, run.finished_stages())


@pytest.mark.parametrize("again", ["sampling", "diffusion"])
def test_stage_on_something_outdated_is_outdated_and_refused(tmp_path, again):
    run = RunFolder(tmp_path)
    _record(run, "data", "diffusion", "sampling", "classifiers", "export")
    _record(run, again)
    _record(run, "evaluate", "audit")
    finished = run.finished_stages()
    assert not any(is_current(STAGES[name], CONFIG, finished) for name in ("evaluate", "audit"))
    with pytest.raises(StageError, match="is older than a stage that it builds on"):
        check_inputs(STAGES["audit"], CONFIG, run)


def test_changed_setting_of_a_finished_stage_is_refused_by_name(tmp_path):
    run = RunFolder(tmp_path)
    _record(run, "data", "diffusion")
    values = CONFIG.model_dump()
    values["diffusion"]["learning_rate"] = 0.5
    with pytest.raises(StageError, match=r"diffusion\.learning_rate: 0\.001, received 0\.5"):
        run_study(parse_config(values, "test"), run)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("runtime", "distribution", "mirrored"), ("diffusion", "preview_every", 3)],
)
def test_number_of_devices_and_of_previews_does_not_outdate_a_stage(tmp_path, section, key, value):
    run = RunFolder(tmp_path)
    _record(run, "data", "diffusion")
    record = run.record()
    record["stages"]["diffusion"]["settings"][section][key] = value
    run.record_path.write_text(json.dumps(record))
    check_unchanged(STAGES["diffusion"], CONFIG, run)


def test_study_adds_networks_and_refuses_to_leave_some_out(tmp_path):
    run, stage = RunFolder(tmp_path), STAGES["classifiers"]
    _record(run, "data", "diffusion", "sampling", "classifiers", "export")
    for key, value in (("seeds", 2), ("train_on", ["real", "synthetic", "both", "real_all"])):
        values = CONFIG.model_dump()
        values["classifiers"][key] = value
        more = parse_config(values, "test")
        check_unchanged(stage, more, run)
        assert not is_current(stage, more, run.finished_stages())
        assert not is_current(STAGES["export"], more, run.finished_stages())
        with pytest.raises(StageError, match=r"s1|real_all.*which adds what is missing"):
            check_inputs(STAGES["export"], more, run)
    values = CONFIG.model_dump()
    values["classifiers"]["train_on"] = ["real"]
    with pytest.raises(StageError, match=r"made with classifiers\.train_on"):
        check_unchanged(stage, parse_config(values, "test"), run)


def test_study_adds_networks_with_settings_of_their_own(tmp_path):
    run, stage, values = RunFolder(tmp_path), STAGES["classifiers"], CONFIG.model_dump()
    values["classifiers"]["backbones"] = ["MobileNet"]
    _record(run, "data", "sampling", "classifiers", config=parse_config(values, "test"))
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
        with pytest.raises(StageError, match=r"was made with classifiers\."):
            check_unchanged(stage, parse_config(changed, "test"), run)


def test_study_adds_synthetic_sets_and_refuses_to_change_one(tmp_path):
    run, values = RunFolder(tmp_path), CONFIG.model_dump()
    values["sampling"]["variants"] = {"x2": {"times_real": 2}}
    config = parse_config(values, "test")
    _record(run, "data", "diffusion", "sampling", "classifiers", config=config)
    values["sampling"]["variants"]["x3"] = {"times_real": 3}
    more = parse_config(values, "test")
    for name in ("sampling", "classifiers"):
        check_unchanged(STAGES[name], more, run)
        assert not is_current(STAGES[name], more, run.finished_stages())
    with pytest.raises(StageError, match=r"x3 in .*a drawn set.*`kerasmed sample"):
        check_inputs(STAGES["classifiers"], more, run)
    for variants in ({"x2": {"times_real": 4}}, {"x3": {"times_real": 3}}):
        values["sampling"]["variants"] = variants
        with pytest.raises(StageError, match=r"made with sampling\.variants\.x2"):
            check_unchanged(STAGES["sampling"], parse_config(values, "test"), run)


def test_setting_that_is_younger_than_a_stage_counts_as_its_default(tmp_path):
    run = RunFolder(tmp_path)
    _record(run, "data", "diffusion")
    record = run.record()
    del record["stages"]["diffusion"]["settings"]["diffusion"]["cooldown"]
    run.record_path.write_text(json.dumps(record))
    check_unchanged(STAGES["diffusion"], CONFIG, run)

    values = CONFIG.model_dump()
    values["diffusion"]["cooldown"] = 0.5
    with pytest.raises(StageError, match=r"diffusion\.cooldown: 0\.0, received 0\.5"):
        check_unchanged(STAGES["diffusion"], parse_config(values, "test"), run)


def test_stage_without_its_input_names_the_command(tmp_path):
    with pytest.raises(StageError, match="run `kerasmed train diffusion CONFIG` first"):
        perform(STAGES["sampling"], CONFIG, RunFolder(tmp_path))


def test_record_keeps_settings_machine_and_time(tmp_path):
    run = RunFolder(tmp_path)
    _record(run, "data")
    record = run.record()
    assert record["config"]["name"] == "x"
    entry = record["stages"]["data"]
    assert entry["settings"]["split"]["test"] == 0.2
    assert {"machine", "versions", "duration_s", "finished"} <= entry.keys()


def test_sweep_adds_sets_and_networks_and_keeps_what_is_there(tiny_config, run_copy):
    drawn, trained = run_copy / "synthetic" / "manifest.json", run_copy / "classifiers"
    before = {path: path.stat().st_mtime_ns for path in (drawn, *trained.glob("*/model.keras"))}
    options = [
        str(tiny_config), "--out", str(run_copy),
        "--set", "sampling.variants={guided: {guidance_scale: 2, times_real: 0.5}}",
        "--set", "classifiers.train_on=[real, synthetic]",
    ]  # fmt: skip

    assert main(["sample", *options]) == 0
    assert main(["train", "classifier", *options]) == 0
    assert main(["study", *options]) == 0

    assert {path: path.stat().st_mtime_ns for path in before} == before
    rows = json.loads((run_copy / "evaluation" / "metrics.json").read_text())
    assert [(row["trained_on"], row["variant"]) for row in rows] == [
        ("real", None), ("synthetic", None), ("synthetic", "guided"),
    ]  # fmt: skip
    assert rows[2]["n_train"] == rows[1]["n_train"] // 2
    page = (run_copy / "report.html").read_text()
    assert "synthetic guided" in page
    assert "guidance_scale 2.0, times_real 0.5" in page
    fidelity = json.loads((run_copy / "evaluation" / "fidelity.json").read_text())
    assert fidelity["of_variants"].keys() == {"guided"}
    assert (run_copy / "exported" / "MobileNet-synthetic-guided-s0.onnx").exists()


def test_two_processes_make_the_study_that_one_makes(tiny_config, tiny_run, run_copy):
    for name in ("synthetic", "classifiers", "exported", "evaluation", "explanations"):
        shutil.rmtree(run_copy / name)
    record = json.loads((run_copy / "run.json").read_text())
    record["stages"] = {name: record["stages"][name] for name in ("data", "leakage", "diffusion")}
    (run_copy / "run.json").write_text(json.dumps(record))
    shutil.copytree(tiny_run / "evaluation", run_copy / "evaluation")
    command = [
        sys.executable,
        "-c",
        "import sys; from kerasmed.cli.main import main; sys.exit(main())",
    ]
    options = ["study", str(tiny_config), "--out", str(run_copy), "--shard"]

    processes = [
        subprocess.Popen([*command, *options, f"{i}/2"], stderr=subprocess.PIPE, text=True)
        for i in (1, 2)
    ]
    news = [process.communicate(timeout=300)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], news
    assert "classifier 1 of 3" in news[0]
    assert "classifier 2 of 3" in news[1]
    assert "classifier 3 of 3" in news[0]
    for path in sorted((tiny_run / "synthetic").rglob("*.png")):
        again = run_copy / path.relative_to(tiny_run)
        assert again.read_bytes() == path.read_bytes()
    one, two = (
        [row["accuracy"] for row in json.loads((run / "evaluation" / "metrics.json").read_text())]
        for run in (tiny_run, run_copy)
    )
    assert one == pytest.approx(two, abs=0.1)
