"""TF_CONFIG, and two processes that train one network together over the loopback."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kerasmed.cli.main import main
from kerasmed.errors import ConfigError, MachineError, StageError
from kerasmed.fingerprint import Fingerprint
from kerasmed.parallel import workers
from kerasmed.parallel.workers import from_chief, naming_lost_workers, read_worker
from kerasmed.study import runner as study
from kerasmed.study.config import load_config
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import STAGES

EXPERIMENT = """
name: together
data: {phantoms: {family: smear, per_class: 30}, image_size: 32}
split: {train: 0.4, test: 0.2}
diffusion: {widths: [8], max_minutes: null, max_images: 960, checkpoint_steps: 5, batch_size: 8,
            warmup_steps: 2, clip_norm: 0.05, preview_every: 1000}
sampling: {per_class: 6, steps: 4, copy_filter: false}
classifiers: {backbones: [MobileNet], weights: none, input_size: 32, finetune_epochs: 1,
              train_on: [real, synthetic]}
explain: {images_per_class: 1, num_samples: 40, superpixels: 10, checks: false}
runtime: {precision: float32}
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _tf_config(index: int, *ports: int) -> str:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps(
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    )


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("together") / "together.yaml"
    path.write_text(EXPERIMENT)
    return path


def test_tf_config_says_which_worker_this_is(monkeypatch):
    ports = _free_port(), _free_port()
    monkeypatch.setenv("TF_CONFIG", _tf_config(1, *ports))
    worker = read_worker()
    assert (worker.index, worker.is_chief) == (1, False)
    assert worker.addresses == tuple(f"127.0.0.1:{port}" for port in ports)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "it is not set"),
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"cluster": {"worker": ["127.0.0.1:1"]}}', "KeyError: 'task'"),
        (_tf_config(2, 1, 2), "worker 2 is not one of its 2"),
        (_tf_config(-1, 1, 2), "worker -1 is not one"),
        (_tf_config(0, 70000), "is not HOST:PORT"),
        (_tf_config(0, 1).replace("127.0.0.1:1", "somewhere"), "'somewhere' is not HOST:PORT"),
        (_tf_config(0, 1).replace('"worker"', '"ps"'), "KeyError: 'worker'"),
        (_tf_config(0, 1).replace('"cluster": {', '"cluster": {"ps": [],'), "other tasks"),
    ],
)
def test_malformed_tf_config_is_refused(text, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match=message):
        read_worker()


@pytest.mark.parametrize("host", ["no-host.invalid", "host..1"])
def test_unknown_host_is_refused(monkeypatch, host):
    monkeypatch.setenv("TF_CONFIG", _tf_config(0, 1, 2).replace("127.0.0.1:2", f"{host}:2"))
    with pytest.raises(ConfigError, match=f"received {re.escape(repr(host))}"):
        read_worker()


def test_port_in_use_is_refused_by_the_command(experiment, monkeypatch, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("TF_CONFIG", _tf_config(0, port, _free_port()))
        arguments = ["--out", str(tmp_path), "--set", "runtime.distribution=multi_worker"]
        assert main(["train", "diffusion", str(experiment), *arguments]) == 2
    assert f"expected a free port for this worker, received {port}" in capsys.readouterr().err


def test_work_is_not_divided_in_two_ways(experiment, tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--set", "runtime.distribution=multi_worker"]
    assert main(["study", str(experiment), *arguments, "--shard", "1/2"]) == 2
    assert "expected no --shard and no --executor in addition" in capsys.readouterr().err


def test_worker_with_another_recipe_or_kerasmed_is_refused(monkeypatch):
    chief = []
    monkeypatch.setattr(workers, "from_chief", lambda value: (chief.append(value) or value,))
    workers.check_agreed(Fingerprint({"seed": 0}))
    monkeypatch.setattr(workers, "from_chief", lambda value: (chief[0],))
    workers.check_agreed(Fingerprint({"seed": 0}))
    with pytest.raises(StageError, match=r"Worker 0 has another recipe than the chief.*'seed': 1"):
        workers.check_agreed(Fingerprint({"seed": 1}))
    monkeypatch.setattr(workers, "__version__", "9.0")
    with pytest.raises(StageError, match=r"expected the same kerasmed, .*'kerasmed': '9\.0'"):
        workers.check_agreed(Fingerprint({"seed": 0}))


def test_folder_that_is_not_shared_is_refused(experiment, monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CONFIG", _tf_config(1, _free_port(), _free_port()))
    monkeypatch.setattr(study, "meet", lambda worker: None)
    monkeypatch.setattr(study, "from_chief", lambda mark: (7.0,))
    monkeypatch.setattr(study, "_VISIBLE_WITHIN_S", 0.0)
    config = load_config(experiment, ["runtime.distribution=multi_worker"])
    with pytest.raises(StageError, match=r"Worker 1 cannot find in .* the chief wrote"):
        study.run_stage(STAGES["diffusion"], config, RunFolder(tmp_path))


def test_nobody_waits_for_a_worker_that_has_ended(tmp_path):
    run = RunFolder(tmp_path)
    with run.locked(1, 3), run.locked(2, 3):
        study._check_alive(run, [1, 2], 3)
        with pytest.raises(MachineError, match="Worker 2 ended too early"):
            study._check_alive(run, [2, 3], 3)


def test_alone_a_process_is_the_chief():
    assert from_chief(0.25, 3.0) == (0.25, 3.0)


def test_other_errors_are_no_lost_workers():
    with pytest.raises(ValueError, match="connection"), naming_lost_workers():
        raise ValueError("connection")
    with pytest.raises(StageError), naming_lost_workers():
        raise StageError("a loss of NaN")


def test_lost_worker_is_one_line(monkeypatch):
    monkeypatch.setattr(workers._Joined, "worker", workers.Worker(0, ("a:1", "b:2")))
    message = r"Worker 0 lost another one of a:1, b:2: .* Socket closed"
    with pytest.raises(MachineError, match=message), naming_lost_workers():
        raise RuntimeError("Collective ops is aborted by: Socket closed")
    with pytest.raises(ValueError, match="closed file"), naming_lost_workers():
        raise ValueError("I/O operation on closed file")
    with pytest.raises(ZeroDivisionError), naming_lost_workers():
        raise ZeroDivisionError("division by zero")


def _start(
    command: str, experiment: Path, out: Path, backend: str, *tf_configs: str
) -> list[subprocess.Popen]:
    """A command by one process, or by the workers with these TF_CONFIGs."""
    arguments = [sys.executable, "-m", "kerasmed", *command.split(), str(experiment)]
    arguments += ["--out", str(out)]
    arguments += ["--set", "runtime.distribution=multi_worker"] if tf_configs else []
    return [
        subprocess.Popen(
            arguments,
            env={**os.environ, "KERAS_BACKEND": backend, "TF_CONFIG": tf_config},
            stderr=subprocess.PIPE,
            text=True,
        )
        for tf_config in tf_configs or ("",)
    ]


def _two() -> list[str]:
    ports = _free_port(), _free_port()
    return [_tf_config(index, *ports) for index in (0, 1)]


def _end(*processes: subprocess.Popen) -> list[str]:
    """What each process wrote on stderr, once all have ended without an error."""
    messages = [process.communicate(timeout=300)[1] for process in processes]
    for process, text in zip(processes, messages, strict=True):
        assert process.returncode == 0, text
    return messages


def _losses(out: Path) -> list[list[float]]:
    path = out / "diffusion" / "history.csv"
    rows = path.read_text().splitlines()[1:] if path.exists() else []
    return [[float(value) for value in row.split(",")[2:4]] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_workers_learn_what_one_process_does_though_one_is_killed(
    backend, experiment, tmp_path
):
    pytest.importorskip(backend)
    alone, together = tmp_path / "alone", tmp_path / "together"
    _end(*_start("train diffusion", experiment, alone, backend))

    chief, other = _start("train diffusion", experiment, together, backend, *_two())
    until = time.monotonic() + 200
    while len(_losses(together)) < 2 and time.monotonic() < until:
        assert chief.poll() is None, chief.communicate()[1]
        time.sleep(0.02)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    chief_messages = chief.communicate(timeout=120)[1]
    assert chief.returncode == 2, chief_messages
    line = chief_messages.strip().splitlines()[-1]
    assert line.startswith("kerasmed: Worker 0 lost another one of 127.0.0.1")

    messages = _end(*_start("train diffusion", experiment, together, backend, *_two()))
    assert "From step 0 on" not in messages[0]
    assert len(_losses(together)) == len(_losses(alone)) == 24
    np.testing.assert_allclose(_losses(together), _losses(alone), rtol=1e-4)
    record = json.loads((together / "run.json").read_text())["stages"]["diffusion"]["result"]
    assert (record["distribution"], record["replicas"], record["workers"]) == ("multi_worker", 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_workers_train_the_cnns_of_one_process(backend, experiment, tmp_path):
    pytest.importorskip(backend)
    alone, together = tmp_path / "alone", tmp_path / "together"
    # Adam turns the rounding of gradients near zero into whole steps: short ones here.
    cnns = {"finetune_epochs": 3, "finetune_learning_rate": 1e-5, "dropout": 0, "batch_size": 8}
    text = experiment.read_text().replace("finetune_epochs: 1", json.dumps(cnns)[1:-1])
    changed = tmp_path / "cnns.yaml"
    changed.write_text(text.replace("max_images: 960", "max_images: 40"))
    for command in ("train diffusion", "sample"):
        _end(*_start(command, changed, alone, "tensorflow"))
    shutil.copytree(alone, together)
    _end(*_start("train classifier", changed, alone, backend))
    _end(*_start("train classifier", changed, together, backend, *_two()))
    # Images of a denoiser that has hardly learned are so alike that batch normalisation multiplies
    # the rounding.
    for name, tolerance in (("MobileNet-real-s0", 5e-3), ("MobileNet-synthetic-s0", 3e-2)):
        one, two = (
            np.genfromtxt(out / "classifiers" / name / "history.csv", delimiter=",", names=True)
            for out in (alone, together)
        )
        assert len(one) == 3
        for column in ("loss", "val_loss"):
            np.testing.assert_allclose(two[column], one[column], rtol=tolerance)
        assert (together / "classifiers" / name / "model.keras").exists()


@pytest.mark.slow
def test_two_workers_do_a_whole_study(experiment, tmp_path):
    messages = _end(*_start("study", experiment, tmp_path, "tensorflow", *_two()))
    assert (tmp_path / "report.html").exists()
    for stage in ("sampling", "export", "explain"):
        assert all(f"{stage}: shard {i + 1} of 2" in messages[i] for i in (0, 1))
    for stage in ("diffusion", "classifiers"):
        assert f"{stage}: with the other workers" in messages[1]
    records = (tmp_path / "classifiers").glob("*/training.json")
    results = [json.loads(path.read_text())["result"] for path in records]
    assert [(result["replicas"], result["workers"]) for result in results] == [(2, 2)] * 2
    # One process finds nothing left to do, and needs no TF_CONFIG.
    (again,) = _end(*_start("study", experiment, tmp_path, "tensorflow"))
    assert "started" not in again


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_workers_end_where_the_chief_does(backend, experiment, tmp_path):
    pytest.importorskip(backend)
    (tmp_path / "images").write_text("no folder: the chief cannot write its phantoms here")
    chief, other = _start("train diffusion", experiment, tmp_path, backend, *_two())
    messages = [process.communicate(timeout=200)[1] for process in (chief, other)]
    assert chief.returncode != 0, messages[0]
    assert other.returncode == 2, messages[1]
    assert "kerasmed: Worker 0 ended too early" in messages[1]
