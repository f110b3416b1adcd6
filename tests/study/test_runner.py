"""A study in one process or in several."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kerasmed.cli.main import main


@pytest.mark.slow
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


def _without(run: Path, folders: list[str], stages: set[str]) -> None:
    """Remove results of a study, and their stages from its record."""
    for name in folders:
        shutil.rmtree(run / name)
    record = json.loads((run / "run.json").read_text())
    record["stages"] = {
        name: entry for name, entry in record["stages"].items() if name not in stages
    }
    (run / "run.json").write_text(json.dumps(record))


def _two_processes(config: Path, run: Path) -> list[str]:
    """Run a study in two processes; returns what each says."""
    code = "import sys; from kerasmed.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "study", str(config), "--out", str(run), "--shard"]
    processes = [
        subprocess.Popen([*command, f"{i}/2"], stderr=subprocess.PIPE, text=True) for i in (1, 2)
    ]
    news = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], news
    return news


def _assert_same_images(run: Path, other: Path) -> None:
    paths = sorted((other / "synthetic").rglob("*.png"))
    assert paths
    for path in paths:
        assert (run / path.relative_to(other)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_two_processes_draw_the_set_that_one_draws(tiny_config, tiny_run, run_copy):
    _without(run_copy, ["synthetic"], {"sampling"})

    news = _two_processes(tiny_config, run_copy)

    assert all(f"sampling: shard {i} of 2" in text for i, text in enumerate(news, 1))
    _assert_same_images(run_copy, tiny_run)
    # The set is the same, so what was built on it is still current.
    assert "classifiers: already finished" in news[0]
    assert "report: already finished" in news[0]


@pytest.mark.slow
def test_two_processes_make_the_study_that_one_makes(tiny_config, tiny_run, run_copy):
    folders = ["synthetic", "classifiers", "exported", "evaluation", "explanations"]
    kept = {"data", "leakage", "diffusion"}
    stages = json.loads((run_copy / "run.json").read_text())["stages"].keys()
    _without(run_copy, folders, stages - kept)
    shutil.copytree(tiny_run / "evaluation", run_copy / "evaluation")

    news = _two_processes(tiny_config, run_copy)

    assert "classifier 1 of 3" in news[0]
    assert "classifier 2 of 3" in news[1]
    assert "classifier 3 of 3" in news[0]
    _assert_same_images(run_copy, tiny_run)
    one, two = (
        [row["accuracy"] for row in json.loads((run / "evaluation" / "metrics.json").read_text())]
        for run in (tiny_run, run_copy)
    )
    assert one == pytest.approx(two, abs=0.1)
