"""One writer at a time in a run folder."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from kerasmed.errors import StageError
from kerasmed.study.run_folder import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from kerasmed.study.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked(int(sys.argv[2]), int(sys.argv[3])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path):
    """``hold(index, shards)`` starts a process that writes to the folder for a minute."""
    started = []

    def start(index: int = 1, shards: int = 1) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(tmp_path / "run"), str(index), str(shards)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "locked\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("other", "own", "refused"),
    [
        ((1, 1), (1, 1), True),
        ((1, 1), (1, 2), True),
        ((1, 2), (1, 1), True),
        ((1, 2), (1, 2), True),
        ((1, 2), (2, 2), False),
    ],
)
def test_second_writer_is_refused_unless_it_has_another_shard(hold, tmp_path, other, own, refused):
    process = hold(*other)
    run = RunFolder(tmp_path / "run")

    if not refused:
        with run.locked(*own):
            return
    with (
        pytest.raises(StageError, match=f"process {process.pid} on .* writes to"),
        run.locked(*own),
    ):
        pass


def test_run_folder_that_cannot_be_written_to_is_one_line(tmp_path, monkeypatch):
    def denied(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    run = RunFolder(tmp_path / "run")
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(StageError, match=r"run/\.lock: Permission denied; change"), run.locked():
        pass


def test_lock_of_a_process_that_was_killed_is_gone(hold, tmp_path):
    process = hold()
    process.kill()
    process.wait()

    with RunFolder(tmp_path / "run").locked():
        pass


def test_lock_is_let_go_of_in_the_end_and_after_an_error(tmp_path):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(ValueError, match="wrong"), run.locked():
        raise ValueError("wrong")

    with run.locked(), pytest.raises(StageError), run.locked():
        pass


@pytest.mark.parametrize("content", ["{}", "[]", '{"stages": []}'])
def test_record_without_stages_is_refused(tmp_path, content):
    run = RunFolder(tmp_path)
    run.record_path.write_text(content)

    with pytest.raises(StageError, match="is not a record of a run"):
        run.finished_stages()
