"""A run folder in an object store: a local copy that is fetched, changed and written back.

The stages always work on local files. This module needs the extra `s3`, which brings fsspec.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from kerasmed.errors import StageError
from kerasmed.files import make_folder, read_json, sha256_of, write_json, written_aside
from kerasmed.progress import say
from kerasmed.study.lease import RENEW_EVERY_S, Lease

# Folders that are never uploaded: real images may not leave the machine.
_LOCAL_ONLY = ("cache",)
# Records vouch for other files. They are uploaded after these, in the state from before the files
# were listed, and removed before them. run.json comes last, since it vouches for whole stages.
_RECORDS = ("training.json", "export.json", "manifest.json", "run.json")
_PUSH_EVERY_S = 60.0
_NOTE_EVERY_S = 1.0
_TRANSFERS = 16
# Keys by which file systems tell the version of an object.
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "updated", "mtime", "created")

# Size and time of each local file, and version of its object, when the two were last equal.
_Synced = dict[str, list[Any]]


class Mirror:
    """An address such as ``s3://bucket/run``, and its copy on this machine.

    Args:
        address: any address that fsspec knows; its file systems look up the credentials.

    Raises:
        StageError: no such file system, or the package for it is missing.
    """

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        if self.address.endswith(":"):
            raise StageError(f"--out {address}: the address has no bucket; use s3://BUCKET/PATH.")
        with self._reported("open"):
            import fsspec

            # A folder on disk has to exist before its files; object stores have no folders.
            options = {"auto_mkdir": True} if self.address.startswith("file:") else {}
            self._fs, self._path = fsspec.core.url_to_fs(self.address, **options)
        digest = hashlib.sha256(self.address.encode()).hexdigest()[:12]
        self.local = _copies() / f"{PurePosixPath(self._path).name}-{digest}"
        self._index = self.local.with_name(f"{self.local.name}.json")
        self._lease = Lease(self._fs, self._path, self.address, self.local)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the address for this process: fetch it, then write changes back until the end.

        Raises:
            StageError: another process holds the address, or it cannot be reached.
        """
        with self._reported("write"):
            self._lease.take()
        with ExitStack() as stack:
            stack.callback(self._give_lease_back)
            stack.enter_context(_repeated(RENEW_EVERY_S, self._lease.renew, self._say_later))
            self.fetch()
            stack.callback(self._push_last)
            stack.enter_context(_repeated(_PUSH_EVERY_S, self._push, self._say_later))
            yield

    def fetch(self) -> None:
        """Fetch what has changed at the address; local changes not yet written back stay.

        Raises:
            StageError: the address cannot be reached, or a file has changed on both sides.
        """
        make_folder(self.local)
        local_files = self._local_files()
        # An empty copy was deleted as a whole, so its files were not removed one by one.
        synced = self._read_index() if local_files else {}
        with self._reported("read"):
            versions = self._versions()
        for name in local_files.keys() & synced.keys() - versions.keys():
            (self.local / name).unlink()
        wanted = [
            name
            for name, version in versions.items()
            if name not in synced or synced[name][2] != version
        ]

        def fetch_one(name: str) -> None:
            path = self.local / name
            with written_aside(path) as temporary:
                self._fs.get_file(self._at(name), str(temporary))
                changed = name in local_files and synced.get(name, [])[:2] != local_files[name]
                if changed and sha256_of(path) != sha256_of(temporary):
                    raise StageError(
                        f"{name} has changed both in {self.local} and at {self.address}: expected "
                        "a change on one side only; move that folder away to continue from the "
                        "address, or choose another --out."
                    )

        with self._reported("read"):
            self._each(fetch_one, wanted)
        if wanted:
            say(f"{self.address}: {len(wanted)} files fetched to {self.local}")
        fetched = self._local_files()
        self._write_index(
            {name: synced[name] for name in synced.keys() & versions.keys()}
            | {name: [*fetched[name], versions[name]] for name in wanted}
        )

    def _push(self) -> None:
        """Write new and changed files to the address, and remove files that are gone locally."""
        self._lease.check()
        synced, records = self._read_index(), self._read_records()
        # The records were read first: the files that they vouch for may change meanwhile.
        files = self._local_files()
        files |= {name: state for name, (state, _) in records.items() if name in files}
        changed = [name for name, state in files.items() if synced.get(name, [])[:2] != state]
        removed = [name for name in synced if name not in files]
        if not changed and not removed:
            return
        noted, lock = time.monotonic(), threading.Lock()

        def push_one(name: str) -> None:
            nonlocal noted
            if name in records:
                self._fs.pipe_file(self._at(name), records[name][1])
            else:
                try:
                    self._fs.put_file(str(self.local / name), self._at(name))
                except FileNotFoundError:
                    if (self.local / name).exists():
                        raise
                    return  # removed since it was listed
            version = _version_of(self._fs.info(self._at(name)))
            with lock:
                # Noted at once, so that a file changed after its upload counts as newer.
                synced[name] = [*files[name], version]
                if time.monotonic() - noted > _NOTE_EVERY_S:
                    self._write_index(synced)
                    noted = time.monotonic()

        def remove(name: str) -> None:
            with suppress(FileNotFoundError):  # removed by a push killed before it noted this
                self._fs.rm_file(self._at(name))
            synced.pop(name)

        try:
            self._each(remove, [name for name in removed if _rank(name)])
            for rank in range(len(_RECORDS) + 1):
                self._each(push_one, [name for name in changed if _rank(name) == rank])
            self._each(remove, [name for name in removed if not _rank(name)])
            versions = self._versions()
            for name in changed:
                if name in synced and name in versions:
                    synced[name][2] = versions[name]
        finally:
            self._write_index(synced)

    def _push_last(self) -> None:
        with self._reported(f"write the files in {self.local} to"):
            self._push()

    def _say_later(self, error: Exception) -> None:
        say(f"{self.address}: writing failed ({_one_line(error)}); trying again later.")

    def _read_records(self) -> dict[str, tuple[list[int], bytes]]:
        """State and content of each record."""
        records = {}
        for name, state in self._local_files().items():
            if _rank(name):
                with suppress(FileNotFoundError):
                    records[name] = (state, (self.local / name).read_bytes())
        return records

    def _give_lease_back(self) -> None:
        with self._reported("write"):
            self._lease.give_back()

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _versions(self) -> dict[str, str]:
        """Version of each file below the address, by name."""
        self._fs.invalidate_cache()
        versions = {}
        for path, info in self._fs.find(self._path, detail=True).items():
            name = str(PurePosixPath(path).relative_to(PurePosixPath(self._path)))
            # Web consoles of stores create a folder as an empty object whose name ends in a slash.
            is_folder = path.endswith("/") or info["type"] != "file" or name == "."
            if not is_folder and is_mirrored(name):
                versions[name] = _version_of(info)
        return versions

    def _local_files(self) -> dict[str, list[int]]:
        """Size and time of change in nanoseconds of each file in the copy, by name."""
        files = {}
        for path in self.local.rglob("*"):
            name = path.relative_to(self.local).as_posix()
            if not is_mirrored(name):
                continue
            try:
                if path.is_file():
                    files[name] = [path.stat().st_size, path.stat().st_mtime_ns]
            except FileNotFoundError:
                continue
        return files

    def _read_index(self) -> _Synced:
        return read_json(self._index, "kerasmed") if self._index.exists() else {}

    def _write_index(self, synced: _Synced) -> None:
        write_json(self._index, synced)

    @staticmethod
    def _each(work: Callable[[str], None], names: list[str]) -> None:
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            list(pool.map(work, names))

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        """Turn whatever a file system raises into one line; each has its own exceptions."""
        try:
            yield
        except StageError:
            raise
        except ImportError as error:
            raise StageError(
                f"Cannot {what} {self.address}: expected the package for it, received "
                f"{_one_line(error)}; run `pip install 'kerasmed[s3]'`, or, if the address "
                "does not start with s3://, install the package that the message names."
            ) from None
        except Exception as error:
            raise StageError(
                f"Cannot {what} {self.address}: {type(error).__name__}: {_one_line(error)}; "
                "correct the address, or set the credentials that its store needs (for s3:// "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)."
            ) from None


def _version_of(info: dict[str, Any]) -> str:
    marks = [str(info[key]) for key in _VERSION_KEYS if info.get(key)]
    return f"{info['size']} {marks[0] if marks else ''}"


def _rank(name: str) -> int:
    """Order of upload: 0 for an ordinary file, 1 and more for records."""
    file_name = PurePosixPath(name).name
    return _RECORDS.index(file_name) + 1 if file_name in _RECORDS else 0


@contextmanager
def _repeated(
    every_s: float, work: Callable[[], None], failed: Callable[[Exception], None]
) -> Iterator[None]:
    """Let a thread repeat some work until the block ends, even if the work fails."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            try:
                work()
            except Exception as error:  # the next attempt may succeed
                failed(error)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def is_mirrored(name: str) -> bool:
    """Whether a file of the run folder is written to the address too."""
    levels = name.split("/")
    return levels[0] not in _LOCAL_ONLY and not any(level.startswith(".") for level in levels)


def _copies() -> Path:
    """The folder of all local copies: ``KERASMED_RUNS``, or one in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("KERASMED_RUNS") or Path(cache) / "kerasmed" / "runs").expanduser()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
