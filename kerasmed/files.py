"""Files and folders that are written completely or not at all."""

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
    """Create a folder and its parents if they do not exist.

    Raises:
        StageError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StageError(
            f"Cannot make the folder {path}: expected a writable place, received {error.strerror}; "
            "choose another --out or change the permissions."
        ) from None


def process_name() -> str:
    """A name for this process; process ids repeat between machines and containers."""
    return f"{platform.node()}.{os.getpid()}"


_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions"),
}


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary path, moved to ``path`` in the same folder when the block ends without error.

    It has the suffix of ``path``, by which Keras and Pillow choose the format.

    Raises:
        StageError: the disk or the quota is full, or the folder is not writable.
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
    """An unnamed file, deleted when nothing refers to it any more.

    Raises:
        StageError: as for ``written_aside``.
    """
    with writing(folder), tempfile.TemporaryFile(dir=folder) as file:
        yield file


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn disk errors while this path is written into one line with a remedy.

    Raises:
        StageError: the disk or the quota is full, or the folder is not writable.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise StageError(
            f"Cannot write {path}: {error.strerror}; {_REMEDIES[error.errno]} and run the command "
            "again; it continues from what is finished."
        ) from None


@contextmanager
def folder_written_aside(path: Path, replace: bool = True) -> Iterator[Path]:
    """A temporary folder, moved to ``path`` when the block ends without error.

    Args:
        path: the final folder.
        replace: whether an existing folder may be replaced.

    Raises:
        StageError: the folder exists and may not be replaced.
    """
    if not replace and path.exists():
        raise _already_exists(path)
    temporary = path.with_name(f".{path.name}.{process_name()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process of the same name
    make_folder(temporary)
    try:
        yield temporary
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        elif path.exists():  # created since the block began
            raise _already_exists(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _already_exists(path: Path) -> StageError:
    return StageError(f"{path} already exists: expected a new folder; choose another or remove it.")


# The text may hold file names that are not UTF-8; JSON reads the same escapes for them.
_TEXT: Any = {"encoding": "utf-8", "errors": "backslashreplace"}


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, completely or not at all."""
    with written_aside(path) as temporary:
        temporary.write_text(text, **_TEXT)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, completely or not at all; NaN and infinity are refused, as JSON has neither."""
    # Written in chunks, since the text of a million entries would fill the memory.
    chunks = json.JSONEncoder(indent=2, allow_nan=False, ensure_ascii=False).iterencode(value)
    with written_aside(path) as temporary, temporary.open("w", **_TEXT) as stream:
        stream.writelines(chunks)
        stream.write("\n")


def read_json(path: Path, made_by: str) -> Any:
    """The content of a JSON file that an earlier stage wrote.

    Args:
        path: the file.
        made_by: the command that writes the file, for the error message.

    Raises:
        StageError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"Missing {path}: run `{made_by}`, which writes it.") from None
    except (OSError, ValueError) as error:
        raise StageError(
            f"Cannot read {path}: expected JSON written by `{made_by}`, received {error}; "
            "delete the file and run that command again."
        ) from None


def read_history(path: Path) -> list[dict[str, str]]:
    """The rows of a training's ``history.csv``; none if the file does not exist."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except FileNotFoundError:
        return []


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; of a folder, of its files' names and hashes.

    Hidden files of a folder do not count.
    """
    if not path.is_dir():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    digest = hashlib.sha256()
    for inner in sorted(path.iterdir()):
        if not inner.name.startswith("."):
            line = f"{sha256_of(inner)} {inner.name}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()
