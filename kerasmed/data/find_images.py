"""Image files that a command line means: paths, folders, patterns and lists."""

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
    """Image files that are meant by paths, folders, patterns such as "a/*.png", and "-".

    Hidden files are left out, unless they are named themselves.

    Args:
        names: what was given; "-" stands for ``listed``.
        listed: one path a line.

    Raises:
        InputError: a folder or a pattern without an image.
    """
    for name in names:
        path = Path(name)
        if len(os.fsencode(path.name)) > _LONGEST_NAME:  # of no file system, nor a folder's
            yield path
        elif name == "-":
            lines = (line.removeprefix("\ufeff").rstrip("\r\n") for line in listed)
            yield from (Path(line) for line in lines if line.strip())
        elif path.is_dir():
            inside = sorted(p for p in _visible(path) if suffix_of(p) in SUFFIXES)
            yield from _some(inside, f"an image in the folder {name}")
        elif not path.exists() and glob.has_magic(name):
            try:
                found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
            except ValueError as error:
                raise InputError(f"Images: {name!r} is no pattern: {error}; mend it.") from None
            wanted = set(path.parts)
            found = [
                each
                for each in found
                if not any(is_hidden(Path(part)) for part in set(each.parts) - wanted)
                or path.name.startswith(".")
            ]
            yield from _some([each for each in found if each.is_file()], f"a file like {name}")
        else:
            yield path


def read_list(stream: Any) -> Iterator[str]:
    """The lines of a list of paths, by its byte-order mark or as UTF-8; read when first asked for.

    Args:
        stream: such as standard input; None where it is closed.
    """
    binary: Any = getattr(stream, "buffer", None)
    if hasattr(binary, "peek"):
        start = binary.peek(2)[:2]
        encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        stream = TextIOWrapper(binary, encoding=encoding, errors="surrogateescape")
    yield from stream or ()


def _visible(folder: Path) -> Iterator[Path]:
    """Files at any depth, without hidden ones and those in hidden folders."""
    for path in folder.rglob("*"):
        below = path.relative_to(folder)
        if path.is_file() and not any(is_hidden(Path(name)) for name in below.parts):
            yield path


def _some(paths: list[Path], wanted: str) -> list[Path]:
    if not paths:
        raise InputError(f"Images: expected {wanted}, received none; mend the path.")
    return paths
