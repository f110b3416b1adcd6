import pytest

from kerasmed.config import parse_config
from kerasmed.errors import StageError
from kerasmed.runs import RunFolder
from kerasmed.stages import STAGES, perform
from kerasmed.study import is_current, run_study

CONFIG = parse_config({"name": "x", "data": {"source": "somewhere"}}, "test")


def _record(run, *names, config=CONFIG):
    for name in names:
        result = {"data_hash": "0"} if name == "data" else {}
        run.write_stage(config, name, STAGES[name].settings(config), result, 1.0)


def test_stages_come_after_what_they_need():
    names = list(STAGES)
    for name, stage in STAGES.items():
        assert all(names.index(needed) < names.index(name) for needed in stage.needs)


def test_stage_is_outdated_when_one_that_it_needs_ran_again(tmp_path):
    run = RunFolder(tmp_path)
    _record(run, "data", "diffusion", "sampling")
    assert is_current(STAGES["sampling"], run.finished_stages())
    _record(run, "diffusion")
    assert not is_current(STAGES["sampling"], run.finished_stages())


def test_changed_setting_of_a_finished_stage_is_refused_by_name(tmp_path):
    run = RunFolder(tmp_path)
    _record(run, "data", "diffusion")
    values = CONFIG.model_dump()
    values["diffusion"]["learning_rate"] = 0.5
    with pytest.raises(StageError, match=r"diffusion\.learning_rate: 0\.001, received 0\.5"):
        run_study(parse_config(values, "test"), run)


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
