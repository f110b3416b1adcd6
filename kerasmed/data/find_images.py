"""Image files named on a command line: paths, folders, patterns and lists."""

import glob
import os
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from kerasmed.data.readers import SUFFIXES, is_hidden, suffix_of
from kerasmed.errors import InputError

_LONGEST_NAME = 255


def find_images(names: list[str], listed: Iterable[str]) -> Iterator[Path]:
    """Image files given as paths, folders, patterns such as "a/*.png", and "-".

    Hidden files are left out, unless they are named themselves.

    Args:
        names: arguments of the command line; "-" stands for ``listed``.
        listed: one path per line.

    Raises:
        InputError: a folder or a pattern contains no image.
    """
    for name in names:
        path = Path(name)
        if len(os.fsencode(path.name)) > _LONGEST_NAME:  # too long to ask the file system about
            yield path
        elif name == "-":
            lines = (line.removeprefix("\ufeff").rstrip("\r\n") for line in listed)
            yield from (Path(line) for line in lines if line.strip())
        elif path.is_dir():
            images = sorted(p for p in _visible(path) if suffix_of(p) in SUFFIXES)
            yield from _not_empty(images, f"an image in the folder {name}")
        elif not path.exists() and glob.has_magic(name):
            yield from _not_empty(_matches(path), f"a file like {name}")
        else:
            yield path


def _matches(pattern: Path) -> list[Path]:
    """The files that match a pattern; hidden ones only if the pattern names them."""
    try:
        paths = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except ValueError as error:
        raise InputError(
            f"Images: {str(pattern)!r} is not a valid pattern: {error}; correct it."
        ) from None
    if not pattern.name.startswith("."):
        named = set(pattern.parts)
        paths = [
            path
            for path in paths
            if not any(is_hidden(Path(name)) for name in set(path.parts) - named)
        ]
    return [path for path in paths if path.is_file()]


def read_list(stream: Any) -> Iterator[str]:
    """The lines of a list of paths, decoded by its byte-order mark or else as UTF-8.

    The stream is not read before the first line is needed.

    Args:
        stream: a stream such as standard input; None if it is closed.
    """
    binary: Any = getattr(stream, "buffer", None)
    if hasattr(binary, "peek"):
        start = binary.peek(2)[:2]
        encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        stream = TextIOWrapper(binary, encoding=encoding, errors="surrogateescape")
    yield from stream or ()


def _visible(folder: Path) -> Iterator[Path]:
    """Files at any depth, without hidden files and those in hidden folders."""
    for path in folder.rglob("*"):
        names = path.relative_to(folder).parts
        if path.is_file() and not any(is_hidden(Path(name)) for name in names):
            yield path


def _not_empty(paths: list[Path], wanted: str) -> list[Path]:
    if not paths:
        raise InputError(f"Images: expected {wanted}, received none; correct the path.")
    return paths
