"""TF_CONFIG, and two processes that train one network together over the loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kerasmed.cli import main
from kerasmed.errors import ConfigError, MachineError, StageError
from kerasmed.workers import lost_workers_named, of_chief, read_worker

EXPERIMENT = """
name: together
data: {phantoms: {family: smear, per_class: 30}, image_size: 32}
split: {diffusion: 0.4, test: 0.2}
diffusion: {widths: [8], max_minutes: null, max_images: 960, checkpoint_steps: 5, batch_size: 8,
            warmup_steps: 2, clip_norm: 0.05, preview_every: 1000}
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
        (_tf_config(2, 1, 2), "worker 2 is none of its 2"),
        (_tf_config(-1, 1, 2), "worker -1 is none"),
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


def test_unknown_host_is_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", _tf_config(0, 1, 2).replace("127.0.0.1:2", "no-host.invalid:2"))
    with pytest.raises(ConfigError, match=r"received 'no-host\.invalid'"):
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
    assert "expected no --shard and no --executor beside it" in capsys.readouterr().err


def test_alone_a_process_is_the_chief():
    assert of_chief(0.25, 3.0) == (0.25, 3.0)


def test_other_errors_are_no_lost_workers():
    with pytest.raises(ValueError, match="connection"), lost_workers_named():
        raise ValueError("connection")
    with pytest.raises(StageError), lost_workers_named():
        raise StageError("a loss of NaN")


def test_lost_worker_is_one_line(monkeypatch):
    from kerasmed import workers

    monkeypatch.setattr(workers._Joined, "worker", workers.Worker(0, ("a:1", "b:2")))
    monkeypatch.setattr(workers._Joined, "lost", False)
    message = r"Worker 0 lost another one of a:1, b:2: .* aborted"
    with pytest.raises(MachineError, match=message), lost_workers_named():
        raise RuntimeError("collective was aborted")
    assert workers._Joined.lost
    with pytest.raises(ZeroDivisionError), lost_workers_named():
        raise ZeroDivisionError("division by zero")


def _start(experiment: Path, out: Path, backend: str, *workers: str) -> list[subprocess.Popen]:
    """The training by one process, or by the workers with these TF_CONFIGs."""
    command = [sys.executable, "-m", "kerasmed.cli", "train", "diffusion", str(experiment)]
    command += ["--out", str(out)]
    command += ["--set", "runtime.distribution=multi_worker"] if workers else []
    return [
        subprocess.Popen(
            command,
            env={**os.environ, "KERAS_BACKEND": backend, "TF_CONFIG": tf_config},
            stderr=subprocess.PIPE,
            text=True,
        )
        for tf_config in workers or ("",)
    ]


def _end(*processes: subprocess.Popen) -> list[str]:
    told = [process.communicate(timeout=300)[1] for process in processes]
    for process, text in zip(processes, told, strict=True):
        assert process.returncode == 0, text
    return told


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
    _end(*_start(experiment, alone, backend))

    ports = _free_port(), _free_port()
    both = [_tf_config(index, *ports) for index in (0, 1)]
    chief, other = _start(experiment, together, backend, *both)
    while len(_losses(together)) < 2:
        assert chief.poll() is None, chief.communicate()[1]
        time.sleep(0.02)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    told = chief.communicate(timeout=120)[1]
    assert chief.returncode == 2, told
    line = told.strip().splitlines()[-1]
    assert line.startswith("kerasmed: Worker 0 lost another one of 127.0.0.1")

    ports = _free_port(), _free_port()
    both = [_tf_config(index, *ports) for index in (0, 1)]
    told = _end(*_start(experiment, together, backend, *both))
    assert "from step 0 on" not in told[0]
    assert len(_losses(together)) == len(_losses(alone)) == 24
    np.testing.assert_allclose(_losses(together), _losses(alone), rtol=1e-4)
    record = json.loads((together / "run.json").read_text())["stages"]["diffusion"]["result"]
    assert (record["distribution"], record["replicas"], record["workers"]) == ("multi_worker", 2, 2)
