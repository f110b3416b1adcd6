"""Files are written whole or not at all."""

import errno
import hashlib
import os

import pytest

from kerasmed.errors import StageError
from kerasmed.files import (
    folder_written_aside,
    process_name,
    read_json,
    sha256_of,
    write_json,
    write_text,
    written_aside,
)


def break_off(path):
    with written_aside(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("power cut")


def test_written_aside_moves_the_file_into_place(tmp_path):
    path = tmp_path / "deep" / "down" / "a.txt"

    with written_aside(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()

    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_written_aside_keeps_the_suffix_and_the_folder(tmp_path):
    with written_aside(tmp_path / "model.keras") as temporary:
        temporary.touch()
        assert temporary.suffix == ".keras"
        assert temporary.parent == tmp_path


def test_written_aside_leaves_nothing_on_failure(tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        break_off(tmp_path / "a.txt")

    assert list(tmp_path.iterdir()) == []


def test_written_aside_keeps_the_old_file_on_failure(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    with pytest.raises(RuntimeError, match="power cut"):
        break_off(path)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), written_aside(tmp_path / "a.txt"):
        pass


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "Größe")

    assert (tmp_path / "a.txt").read_bytes() == "Größe".encode()


def test_json_round_trip(tmp_path):
    value = {"a": [1, 2.5, None, True], "b": {"c": "é"}}

    write_json(tmp_path / "a.json", value)

    assert read_json(tmp_path / "a.json", "kerasmed x") == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_json_lacks_and_keeps_the_old_file(tmp_path, number):
    path = tmp_path / "a.json"
    write_json(path, {"kid": 1.0})

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"kid": number})

    assert read_json(path, "kerasmed x") == {"kid": 1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_missing_json_names_file_and_command(tmp_path):
    path = tmp_path / "split.json"

    with pytest.raises(StageError) as caught:
        read_json(path, "kerasmed data split")

    message = str(caught.value)
    assert message == f"Missing {path}: run `kerasmed data split`, which writes it."


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b"\xff\xfe\x00"], ids=["empty", "cut", "bytes"]
)
def test_corrupt_json_names_file_and_command(tmp_path, content):
    path = tmp_path / "split.json"
    path.write_bytes(content)

    with pytest.raises(StageError) as caught:
        read_json(path, "kerasmed data split")

    message = str(caught.value)
    assert str(path) in message
    assert "`kerasmed data split`" in message
    assert "\n" not in message


def test_sha256_of_file_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")

    # FIPS 180-2, appendix B.1.
    assert sha256_of(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_folder_takes_the_place_of_the_old_one_only_when_it_is_whole(tmp_path):
    target = tmp_path / "set"
    with folder_written_aside(target) as folder:
        (folder / "old").touch()
    with pytest.raises(RuntimeError), folder_written_aside(target):
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["old"]
    with folder_written_aside(target) as folder:
        (folder / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def fail_with(path, reason):
    with written_aside(path) as temporary:
        temporary.write_text("half")
        raise OSError(reason, os.strerror(reason))


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        (errno.ENOSPC, "make room"), (errno.EDQUOT, "make room"),
        (errno.EROFS, "change its permissions"), (errno.EACCES, "change its permissions"),
    ],
)  # fmt: skip
def test_what_keeps_from_writing_is_one_line_and_leaves_the_old_file(tmp_path, reason, remedy):
    path = tmp_path / "x.json"
    path.write_text("old")

    with pytest.raises(StageError, match=remedy) as caught:
        fail_with(path, reason)

    assert str(path) in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_of_the_system_are_let_through(tmp_path):
    with pytest.raises(IsADirectoryError):
        fail_with(tmp_path / "x", errno.EISDIR)


def test_folder_that_may_not_be_replaced_is_kept(tmp_path):
    path = tmp_path / "mine"

    def make() -> None:
        with folder_written_aside(path, replace=False) as temporary:
            (temporary / "new").touch()
            path.mkdir()  # by another, meanwhile
            (path / "old").touch()

    with pytest.raises(StageError, match="already exists"):
        make()

    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]
    assert [entry.name for entry in path.iterdir()] == ["old"]


def test_what_a_process_of_the_same_name_left_is_gone(tmp_path):
    left = tmp_path / f".set.{process_name()}.tmp" / "a"
    left.mkdir(parents=True)

    with folder_written_aside(tmp_path / "set") as temporary:
        (temporary / "b").mkdir()

    assert [path.name for path in (tmp_path / "set").iterdir()] == ["b"]


def test_json_has_names_in_their_own_script_and_gives_them_back(tmp_path):
    names = ["肺炎", os.fsdecode(b"caf\xe9\\"), "a\nb"]

    write_json(tmp_path / "names.json", names)

    assert "肺炎" in (tmp_path / "names.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "names.json", "x") == names


def test_hash_of_a_folder_follows_names_and_content_of_all_that_is_not_hidden(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").write_text("content")
    before = sha256_of(tmp_path)
    (tmp_path / "a" / ".lock").write_text("process 1")
    assert sha256_of(tmp_path) == before
    (inner / "file").rename(inner / "other")
    renamed = sha256_of(tmp_path)
    (inner / "other").write_text("changed")
    assert len({before, renamed, sha256_of(tmp_path)}) == 3
