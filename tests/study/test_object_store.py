"""Run folders at an address: in a folder by file://, and in a local S3 server."""

import json
import shutil
import sys
import time
from pathlib import Path

import pytest

from kerasmed.cli.main import main
from kerasmed.errors import StageError
from kerasmed.study import lease
from kerasmed.study import object_store as remote
from kerasmed.study.run_folder import RunFolder

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
    names = store.find(path)
    return {name.removeprefix(path).lstrip("/"): store.cat_file(name) for name in names}


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


def _break_off(run: RunFolder, broken, name: str, method: str = "put_file") -> None:
    """From now on the writing of one file, or its removal, fails, after all others are done."""
    real = getattr(type(run.mirror._fs), method)

    def fail(self, *arguments, **options):
        if Path(arguments[-1]).name == name:
            time.sleep(0.5)
            raise OSError("the power is gone")
        return real(self, *arguments, **options)

    broken.setattr(type(run.mirror._fs), method, fail)


def test_what_changed_after_it_was_written_back_is_not_overwritten(tmp_path, machine, monkeypatch):
    address = f"file://{tmp_path}/store/run"
    run = RunFolder.at(address)
    for name in ("denoiser.onnx", "big.txt"):
        _write(run, name, "early")
    with monkeypatch.context() as broken:
        _break_off(run, broken, "big.txt")
        with pytest.raises(StageError, match="the power is gone"), run.locked():
            pass
    assert _stored(address) == {"denoiser.onnx": b"early"}
    _write(run, "denoiser.onnx", "final")

    with RunFolder.at(address).locked():
        assert (run.root / "denoiser.onnx").read_text() == "final"
    assert _stored(address) == {"denoiser.onnx": b"final", "big.txt": b"early"}


def test_what_was_removed_and_is_still_at_the_address_does_not_come_back(
    tmp_path, machine, monkeypatch
):
    address = f"file://{tmp_path}/store/run"
    run = RunFolder.at(address)
    with run.locked():
        _write(run, "training.json", "old")
        _write(run, "kept.txt", "kept")
    with monkeypatch.context() as broken:
        _break_off(run, broken, "training.json", "rm_file")
        with pytest.raises(StageError, match="the power is gone"), run.locked():
            (run.root / "training.json").unlink()
    assert "training.json" in _stored(address)

    with RunFolder.at(address).locked():
        assert not (run.root / "training.json").exists()
    assert _stored(address) == {"kept.txt": b"kept"}


def test_file_that_has_changed_on_both_sides_is_refused(address, machine):
    first = RunFolder.at(address)
    with first.locked():
        _write(first, "a.txt", "first")
    machine("second")
    second = RunFolder.at(address)
    with second.locked():
        _write(second, "a.txt", "second")
    machine("first")
    _write(first, "a.txt", "not written back")

    message = r"a\.txt has changed both in .* move that folder away"
    with pytest.raises(StageError, match=message), first.locked():
        pass

    assert (first.root / "a.txt").read_text() == "not written back"
    assert _stored(address) == {"a.txt": b"second"}


def test_copy_that_was_deleted_is_fetched_again(address, machine):
    run = RunFolder.at(address)
    with run.locked():
        _write(run, "a.txt", "a")
    shutil.rmtree(run.root)
    with run.locked():
        assert (run.root / "a.txt").read_text() == "a"


def test_records_are_written_after_what_they_name_and_as_they_were_before(
    tmp_path, machine, monkeypatch
):
    address = f"file://{tmp_path}/store/run"
    run = RunFolder.at(address)
    written, local = [], type(run.mirror._fs)
    put_file, pipe_file = local.put_file, local.pipe_file

    def put(self, source, target, **options):
        written.append(Path(target).name)
        _write(run, "run.json", "a stage ended meanwhile")
        put_file(self, source, target, **options)

    def pipe(self, target, content, **options):
        written.append(Path(target).name)
        pipe_file(self, target, content, **options)

    monkeypatch.setattr(local, "put_file", put)
    monkeypatch.setattr(local, "pipe_file", pipe)
    with run.locked():
        for name in ("a.txt", "run.json", "c/training.json", "z.txt"):
            _write(run, name, "text")
    assert [name for name in written if name != ".lock"][2:] == ["training.json", "run.json"]
    assert _stored(address)["run.json"] == b"text"
    with run.locked():
        pass
    assert _stored(address)["run.json"] == b"a stage ended meanwhile"


def test_lease_is_renewed_while_a_long_transfer_lasts(tmp_path, machine, monkeypatch):
    address = f"file://{tmp_path}/store/run"
    monkeypatch.setattr(remote, "RENEW_EVERY_S", 0.1)
    monkeypatch.setattr(lease, "_ENDS_AFTER_S", 1.0)
    run, refused = RunFolder.at(address), []
    put_file = type(run.mirror._fs).put_file

    def slow(self, source, target, **options):
        time.sleep(2)
        machine("second")
        try:
            with RunFolder.at(address).locked():
                pass
        except StageError as error:
            refused.append(str(error))
        put_file(self, source, target, **options)

    monkeypatch.setattr(type(run.mirror._fs), "put_file", slow)
    with run.locked():
        _write(run, "a.txt", "a")
    assert len(refused) == 1
    assert "writes to" in refused[0]


def test_address_that_another_process_took_is_not_written_to(address, machine):
    run = RunFolder.at(address)
    store, path = fsspec.core.url_to_fs(address)
    other = json.dumps({"holder": "Process 1 elsewhere", "token": "x", "at": time.time()})
    _write(run, "a.txt", "a")
    with pytest.raises(StageError, match="Process 1 elsewhere has taken"), run.locked():
        store.pipe_file(f"{path}/.lock", other.encode())
    assert _stored(address) == {".lock": other.encode()}
    assert (run.root / "a.txt").exists()


@pytest.mark.parametrize("name", ["run/", "run/synthetic/"])
def test_folders_that_a_console_made_are_no_files(s3, machine, name):
    store = fsspec.filesystem("s3")
    store.call_s3("put_object", Bucket="studies", Key=name, Body=b"")
    run = RunFolder.at(s3)
    with run.locked():
        _write(run, "synthetic/a.txt", "a")
    assert _stored(s3)["synthetic/a.txt"] == b"a"


def test_address_without_a_path_is_one_line(machine, tiny_config, capsys):
    assert "s3://BUCKET/PATH" in _fails(capsys, tiny_config, "--out", "s3://")


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
    silent = time.time() - lease._ENDS_AFTER_S - 1
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
    assert "kerasmed[s3]" in line


def test_shards_at_an_address_are_refused(machine, tiny_config, capsys, tmp_path):
    out = f"file://{tmp_path}/store"
    assert main(["study", str(tiny_config), "--out", out, "--shard", "1/2"]) == 2
    assert "expected a run folder that all processes can use" in capsys.readouterr().err
