"""Files that are written whole or not at all."""

import csv
import errno
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from kerasmed.errors import StageError


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        StageError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StageError(
            f"Cannot make the folder {path}: expected a place to write, received {error.strerror}; "
            "choose another --out or mend its permissions."
        ) from None


def process_name() -> str:
    """Of this process among those of all machines; in containers many have the same number."""
    return f"{platform.node()}.{os.getpid()}"


_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "mend its permissions"),
}


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that is moved onto it when the block ends without error.

    The suffix is kept, because Keras and Pillow choose the format by it.

    Raises:
        StageError: the disk or the quota is full, or the folder cannot be written to.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.stem}.{process_name()}.tmp{path.suffix}")
    try:
        with writing(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def nameless_file(folder: Path) -> Iterator[IO[bytes]]:
    """A file that is gone when nothing holds it any more.

    Raises:
        StageError: as of ``written_aside``.
    """
    with writing(folder), tempfile.TemporaryFile(dir=folder) as file:
        yield file


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the disk while this path is written, in one line with the remedy.

    Raises:
        StageError: the disk or the quota is full, or the folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise StageError(
            f"Cannot write {path}: {error.strerror}; {_REMEDIES[error.errno]} and run the command "
            "again, it goes on from what is finished."
        ) from None


@contextmanager
def folder_written_aside(path: Path, replace: bool = True) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends without error.

    Args:
        path: the folder to be.
        replace: whether it may be there already.

    Raises:
        StageError: it is there, and may not be replaced.
    """
    if not replace and path.exists():
        raise _is_there(path)
    temporary = path.with_name(f".{path.name}.{process_name()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that had the same name
    make_folder(temporary)
    try:
        yield temporary
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        elif path.exists():  # since the block began
            raise _is_there(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_there(path: Path) -> StageError:
    return StageError(
        f"{path} is there already: expected a folder to make; choose another or remove it."
    )


# File names need not be UTF-8, and may be part of the text; JSON has the same escapes for them.
_TEXT: Any = {"encoding": "utf-8", "errors": "backslashreplace"}


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with written_aside(path) as temporary:
        temporary.write_text(text, **_TEXT)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; NaN and infinity are refused, since JSON has neither."""
    # Piece by piece: a whole text of a million entries would fill the memory.
    pieces = json.JSONEncoder(indent=2, allow_nan=False, ensure_ascii=False).iterencode(value)
    with written_aside(path) as temporary, temporary.open("w", **_TEXT) as stream:
        stream.writelines(pieces)
        stream.write("\n")


def read_json(path: Path, made_by: str) -> Any:
    """The content of a JSON file that an earlier stage wrote.

    Args:
        path: the file.
        made_by: the command that writes it, for the error message.

    Raises:
        StageError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"Missing {path}: it is written by `{made_by}`; run that first.") from None
    except (OSError, ValueError) as error:
        raise StageError(
            f"Cannot read {path}: expected JSON written by `{made_by}`, received {error}; "
            "delete the file and run that command again."
        ) from None


def read_history(path: Path) -> list[dict[str, str]]:
    """The rows of a training's ``history.csv``; none where there is no file yet."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except FileNotFoundError:
        return []


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
