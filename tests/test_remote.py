"""Run folders at an address: in a folder by file://, and in a local S3 server."""

import json
import sys
import time
from pathlib import Path

import pytest

from kerasmed import remote
from kerasmed.cli import main
from kerasmed.errors import StageError
from kerasmed.runs import RunFolder

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(scope="module")
def s3_endpoint():
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint, monkeypatch):
    """An empty bucket on a server of this process."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    store = fsspec.filesystem("s3")
    store.mkdir("studies")
    yield "s3://studies/run"
    store.rm("studies", recursive=True)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(params=["file", "s3"])
def address(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("s3")
    return f"file://{tmp_path}/store/run"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """``machine(name)`` makes this process work with that machine's copies."""

    def change(name: str) -> None:
        monkeypatch.setenv("KERASMED_RUNS", str(tmp_path / name))

    change("first")
    return change


def _stored(address: str) -> dict[str, bytes]:
    store, path = fsspec.core.url_to_fs(address)
    store.invalidate_cache()
    found = store.find(path)
    return {name.removeprefix(path).lstrip("/"): store.cat_file(name) for name in found}


def _write(run: RunFolder, name: str, text: str) -> None:
    (run.root / name).parent.mkdir(parents=True, exist_ok=True)
    (run.root / name).write_text(text)


def test_another_machine_goes_on_where_one_stopped(address, machine, tiny_config):
    assert main(["data", "split", str(tiny_config), "--out", address]) == 0
    stored = _stored(address)
    assert {"run.json", "split.json"} < stored.keys()
    assert sum(name.startswith("images/phantoms/") for name in stored) == 120
    assert not any(name.startswith(("cache", ".")) for name in stored)

    machine("second")
    assert main(["train", "diffusion", str(tiny_config), "--out", address]) == 0
    before, after = json.loads(stored["run.json"]), json.loads(_stored(address)["run.json"])
    assert after["stages"]["data"] == before["stages"]["data"]
    assert "diffusion" in after["stages"]
    assert any(name.startswith("diffusion/checkpoints/step-") for name in _stored(address))


def test_what_changes_is_written_back_before_the_end(address, machine, monkeypatch):
    monkeypatch.setattr(remote, "_PUSH_EVERY_S", 0.05)
    run = RunFolder.at(address)
    with run.locked():
        _write(run, "diffusion/checkpoints/step-1.npz", "weights")
        deadline = time.monotonic() + 20
        while "diffusion/checkpoints/step-1.npz" not in _stored(address):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_is_removed_in_one_place_is_removed_in_the_others(address, machine):
    first = RunFolder.at(address)
    with first.locked():
        _write(first, "a/old.txt", "old")
        _write(first, "a/kept.txt", "kept")
    machine("second")
    second = RunFolder.at(address)
    with second.locked():
        assert (second.root / "a/old.txt").read_text() == "old"
        (second.root / "a/old.txt").unlink()
        _write(second, "a/kept.txt", "changed")
    assert _stored(address) == {"a/kept.txt": b"changed"}
    machine("first")
    with first.locked():
        assert not (first.root / "a/old.txt").exists()
        assert (first.root / "a/kept.txt").read_text() == "changed"


def test_what_could_not_be_written_back_is_not_lost(tmp_path, machine, monkeypatch):
    address = f"file://{tmp_path}/store/run"
    run = RunFolder.at(address)

    def fail(*arguments, **options):
        raise OSError("the line is down")

    with monkeypatch.context() as broken:
        broken.setattr(type(run.mirror._fs), "put_file", fail)
        with pytest.raises(StageError, match="the line is down"), run.locked():
            _write(run, "result.txt", "hours of work")
    with RunFolder.at(address).locked():
        assert (run.root / "result.txt").read_text() == "hours of work"
    assert _stored(address) == {"result.txt": b"hours of work"}


def test_the_record_is_written_after_what_it_names(tmp_path, machine, monkeypatch):
    run = RunFolder.at(f"file://{tmp_path}/store/run")
    written = []
    put_file = type(run.mirror._fs).put_file

    def noted(self, source, target, **options):
        written.append(Path(target).name)
        put_file(self, source, target, **options)

    monkeypatch.setattr(type(run.mirror._fs), "put_file", noted)
    with run.locked():
        for name in ("a.txt", "run.json", "z.txt"):
            _write(run, name, "text")
    assert written[-1] == "run.json"
    assert sorted(written) == ["a.txt", "run.json", "z.txt"]


def test_a_second_writer_is_refused(address, machine):
    with RunFolder.at(address).locked():
        machine("second")
        with (
            pytest.raises(StageError, match=r"Process \d+ on .* writes to"),
            RunFolder.at(address).locked(),
        ):
            pass
    with RunFolder.at(address).locked():
        pass
    assert _stored(address) == {}


def test_a_lease_that_a_crash_left_behind_ends(address, machine):
    run = RunFolder.at(address)
    store, path = fsspec.core.url_to_fs(address)
    silent = time.time() - remote._LEASE_ENDS_S - 1
    store.makedirs(path, exist_ok=True)
    left = json.dumps({"holder": "Process 1 on a dead machine", "at": silent})
    store.pipe_file(f"{path}/.lock", left.encode())
    with run.locked():
        _write(run, "a.txt", "a")
    assert _stored(address) == {"a.txt": b"a"}


def _fails(capsys, tiny_config, *arguments: str) -> str:
    assert main(["data", "split", str(tiny_config), *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if line.startswith("kerasmed: "))
    return line


def test_missing_credentials_are_one_line(s3, machine, tiny_config, capsys, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    line = _fails(capsys, tiny_config, "--out", s3)
    assert "Cannot write s3://studies/run" in line
    assert "redentials" in line.split(";")[0]


def test_bucket_that_does_not_exist_is_one_line(s3, machine, tiny_config, capsys):
    line = _fails(capsys, tiny_config, "--out", "s3://no-such-bucket/run")
    assert "Cannot write s3://no-such-bucket/run" in line


def test_unknown_kind_of_address_is_one_line(machine, tiny_config, capsys):
    line = _fails(capsys, tiny_config, "--out", "nowhere://bucket/run")
    assert "Cannot open nowhere://bucket/run" in line


def test_missing_package_is_one_line(machine, tiny_config, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    line = _fails(capsys, tiny_config, "--out", "s3://studies/run")
    assert "expected the package for it" in line
    assert "kerasmed[remote]" in line


def test_shards_at_an_address_are_refused(machine, tiny_config, capsys, tmp_path):
    out = f"file://{tmp_path}/store"
    assert main(["study", str(tiny_config), "--out", out, "--shard", "1/2"]) == 2
    assert "expected a run folder that the processes share" in capsys.readouterr().err
