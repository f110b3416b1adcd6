"""Parts of a study as Ray tasks."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from threadpoolctl import threadpool_info

from kerasmed import __version__
from kerasmed.cli.main import main
from kerasmed.errors import MachineError
from kerasmed.study.ray_executor import _do_shard

COMMAND = [sys.executable, "-c", "import sys; from kerasmed.cli.main import main; sys.exit(main())"]


@pytest.fixture
def unsampled(run_copy):
    """A study that stopped before its synthetic set was drawn."""
    for name in ("synthetic", "classifiers", "exported"):
        shutil.rmtree(run_copy / name)
    record = json.loads((run_copy / "run.json").read_text())
    record["stages"] = {name: record["stages"][name] for name in ("data", "leakage", "diffusion")}
    (run_copy / "run.json").write_text(json.dumps(record))
    return run_copy


def workers() -> list[int]:
    """Processes of Ray that work on one of our shards."""
    processes = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::_do_shard" in path.read_bytes():
                processes.append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return processes


@pytest.mark.slow
def test_ray_makes_the_same_study_also_when_a_worker_is_killed(tiny_config, tiny_run, unsampled):
    study = subprocess.Popen(
        [*COMMAND, "study", str(tiny_config), "--out", str(unsampled), "--executor", "ray"],
        stderr=subprocess.PIPE,
        text=True,
    )
    killed = None
    while killed is None and study.poll() is None:
        for process in workers():
            os.kill(process, signal.SIGKILL)
            killed = process
            break
        time.sleep(0.05)
    _, news = study.communicate(timeout=500)

    assert (study.returncode, killed is not None) == (0, True), news
    for path in sorted((tiny_run / "synthetic").rglob("*.png")):
        assert (unsampled / path.relative_to(tiny_run)).read_bytes() == path.read_bytes()
    rows = json.loads((unsampled / "evaluation" / "metrics.json").read_text())
    assert [row["trained_on"] for row in rows] == ["real", "synthetic", "both"]
    assert not workers()


@pytest.mark.slow
def test_interrupt_leaves_no_worker_and_the_study_goes_on(tiny_config, unsampled):
    study = subprocess.Popen(
        [*COMMAND, "study", str(tiny_config), "--out", str(unsampled), "--executor", "ray"],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not workers() and study.poll() is None:
        time.sleep(0.05)
    study.send_signal(signal.SIGINT)
    _, news = study.communicate(timeout=60)
    assert study.returncode == 130, news
    assert "Traceback" not in news
    assert not workers()
    assert main(["sample", str(tiny_config), "--out", str(unsampled)]) == 0


@pytest.fixture
def head():
    """Address and process of a cluster, as `ray start --head` begins one."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(2)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        port, for_clients = (probe.getsockname()[1] for probe in probes)
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray = Path(sys.executable).with_name("ray")
        arguments = [ray, "start", "--head", "--block", "--num-cpus=2", "--temp-dir", folder]
        arguments += ["--include-dashboard=false", f"--port={port}"]
        arguments += [f"--ray-client-server-port={for_clients}"]
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", for_clients), timeout=1).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"ray://127.0.0.1:{for_clients}", process
        _kill(process)


def _kill(process: subprocess.Popen) -> None:
    """With all that it has started; those may have sessions of their own."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    doomed = [process.pid]
    for pid in doomed:
        doomed += children.get(pid, [])
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_study_goes_on_after_its_cluster_was_lost(head, tiny_config, tiny_run, unsampled):
    address, process = head
    arguments = ["study", str(tiny_config), "--out", str(unsampled)]
    study = subprocess.Popen(
        [*COMMAND, *arguments, "--executor", address], stderr=subprocess.PIPE, text=True
    )
    while not workers() and study.poll() is None:
        time.sleep(0.05)
    _kill(process)
    _, news = study.communicate(timeout=200)
    assert study.returncode == 2, news
    assert "kerasmed: The Ray cluster" in news.strip().splitlines()[-1]
    assert main(arguments) == 0
    for path in sorted((tiny_run / "synthetic").rglob("*.png")):
        assert (unsampled / path.relative_to(tiny_run)).read_bytes() == path.read_bytes()


def test_worker_with_another_version_is_refused(run_copy):
    with pytest.raises(MachineError, match=r"has kerasmed .*: expected 9\.9\.9"):
        _do_shard(print, {}, str(run_copy), ".", 1, 1, "9.9.9")


def test_blas_of_a_task_has_the_threads_of_the_task(monkeypatch, tmp_path):
    thread_counts = []

    def work(*_):
        thread_counts.extend(
            pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"
        )

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Ray does
    values = {"name": "any", "data": {"source": "."}}
    _do_shard(work, values, str(tmp_path), ".", 1, 1, __version__)
    assert set(thread_counts) == {1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--executor", "slurm"],
            "--executor takes local, ray or ray://HOST:PORT, received 'slurm'",
        ),
        (["--executor", "ray", "--shard", "1/2"], "give only one of them"),
        (["--executor", "ray://127.0.0.1:1"], "expected a Ray cluster that answers"),
        (["--executor", "ray://127.0.0.1:99999"], "expected a Ray cluster that answers"),
    ],
)
def test_executor_that_cannot_be_used_is_refused_at_once(
    tiny_config, run_copy, capsys, options, message
):
    assert main(["study", str(tiny_config), "--out", str(run_copy), *options]) == 2
    assert message in capsys.readouterr().err
