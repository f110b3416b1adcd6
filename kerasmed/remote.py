"""A run folder in an object store: a local copy that is fetched, worked in, and written back.

The stages work on local files as they always do. Needs the extra `remote`; fsspec does the rest.
"""

import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from kerasmed.errors import StageError
from kerasmed.files import make_folder, read_json, write_json, written_aside
from kerasmed.progress import say

# Neither real images, which may not leave the machine, nor what belongs to this machine alone.
_STAYS_HERE = ("cache",)
_LAST = "run.json"  # so that it never names what is not there yet
_LEASE = ".lock"
_PUSH_EVERY_S = 60.0
_LEASE_ENDS_S = 300.0
_TRANSFERS = 16
# What tells one version of an object from another, by file system.
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "updated", "mtime", "created")

# Size and time of a local file, and version of its object, when they were last the same.
_Synced = dict[str, list[Any]]


class Mirror:
    """An address such as ``s3://bucket/run``, and its copy on this machine.

    Args:
        address: any that fsspec knows; credentials come from where its file systems look for them.

    Raises:
        StageError: no such file system, or the package for it is missing.
    """

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        with self._reported("open"):
            import fsspec

            # A folder on disk has to be made before what lies in it; object stores have none.
            options = {"auto_mkdir": True} if self.address.startswith("file:") else {}
            self._fs, self._path = fsspec.core.url_to_fs(self.address, **options)
        digest = hashlib.sha256(self.address.encode()).hexdigest()[:12]
        self.local = _copies() / f"{PurePosixPath(self._path).name}-{digest}"
        self._index = self.local.with_name(f"{self.local.name}.json")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the address for this process: fetch it, and write back what changes until the end.

        Raises:
            StageError: another process holds it, or it cannot be reached.
        """
        with self._reported("write"):
            self._take_lease()
        try:
            self.fetch()
            ended = threading.Event()
            writer = threading.Thread(target=self._write_back_until, args=(ended,), daemon=True)
            writer.start()
            try:
                yield
            finally:
                ended.set()
                writer.join()
                with self._reported(f"write what lies in {self.local} to"):
                    self._push()
        finally:
            with self._reported("write"):
                self._fs.rm_file(self._at(_LEASE))

    def fetch(self) -> None:
        """Bring what has changed at the address; what has not been written back yet stays.

        Raises:
            StageError: the address cannot be reached.
        """
        make_folder(self.local)
        synced, here = self._read_index(), self._local_files()
        with self._reported("read"):
            there = self._versions()
        for name in here.keys() & synced.keys() - there.keys():
            (self.local / name).unlink()
        wanted = [
            name
            for name, version in there.items()
            if name not in here or name not in synced or synced[name][2] != version
        ]

        def fetch_one(name: str) -> None:
            with written_aside(self.local / name) as temporary:
                self._fs.get_file(self._at(name), str(temporary))

        with self._reported("read"):
            self._each(fetch_one, wanted)
        if wanted:
            say(f"{self.address}: {len(wanted)} files fetched to {self.local}")
        fetched = self._local_files()
        self._write_index(
            {name: synced[name] for name in synced.keys() & there.keys()}
            | {name: [*fetched[name], there[name]] for name in wanted}
        )

    def _push(self) -> None:
        """Write new and changed files to the address, and remove there what is gone here."""
        synced, here = self._read_index(), self._local_files()
        changed = [name for name, state in here.items() if synced.get(name, [])[:2] != state]
        removed = [name for name in synced if name not in here]
        if not changed and not removed:
            return

        def push_one(name: str) -> None:
            try:
                self._fs.put_file(str(self.local / name), self._at(name))
            except FileNotFoundError:
                if (self.local / name).exists():
                    raise
                here.pop(name)  # removed since it was listed

        self._each(push_one, [name for name in changed if name != _LAST])
        self._each(push_one, [name for name in changed if name == _LAST])
        self._each(lambda name: self._fs.rm_file(self._at(name)), removed)
        there = self._versions()
        kept = {name: state for name, state in here.items() if name in there}
        self._write_index({name: [*state, there[name]] for name, state in kept.items()})

    def _write_back_until(self, ended: threading.Event) -> None:
        while not ended.wait(_PUSH_EVERY_S):
            try:
                self._write_lease("overwrite")
                self._push()
            except Exception as error:  # the next time, or the last, may do better
                say(f"{self.address}: not written to just now ({_one_line(error)}); tried again.")

    def _take_lease(self) -> None:
        try:
            self._write_lease("create")
            return
        except FileExistsError:
            holder = json.loads(self._fs.cat_file(self._at(_LEASE)))
        silent_s = time.time() - holder["at"]
        if silent_s < _LEASE_ENDS_S:
            raise StageError(
                f"{holder['holder']} writes to {self.address}, {silent_s:.0f} s ago for the last "
                "time: expected a run folder for this process alone; wait for it, or take another "
                f"--out. If it was killed, wait {_LEASE_ENDS_S - silent_s:.0f} s."
            )
        self._write_lease("overwrite")

    def _write_lease(self, mode: str) -> None:
        holder = f"Process {os.getpid()} on {platform.node()}"
        lease = json.dumps({"holder": holder, "at": time.time()}).encode()
        self._fs.pipe_file(self._at(_LEASE), lease, mode=mode)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _versions(self) -> dict[str, str]:
        """Names below the address, and what tells their versions apart."""
        self._fs.invalidate_cache()
        found = self._fs.find(self._path, detail=True)
        versions = {}
        for path, info in found.items():
            name = str(PurePosixPath(path).relative_to(PurePosixPath(self._path)))
            if _travels(name):
                known = [str(info[key]) for key in _VERSION_KEYS if info.get(key)]
                versions[name] = f"{info['size']} {known[0] if known else ''}"
        return versions

    def _local_files(self) -> dict[str, list[int]]:
        """Names in the copy, with size and time of change in nanoseconds."""
        found = {}
        for path in self.local.rglob("*"):
            name = path.relative_to(self.local).as_posix()
            if not _travels(name):
                continue
            try:
                if path.is_file():
                    found[name] = [path.stat().st_size, path.stat().st_mtime_ns]
            except FileNotFoundError:
                continue
        return found

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
        """One line for whatever a file system raises: each has exceptions of its own."""
        try:
            yield
        except StageError:
            raise
        except ImportError as error:
            raise StageError(
                f"Cannot {what} {self.address}: expected the package for it, received "
                f"{_one_line(error)}; run `pip install 'kerasmed[remote]'`, or for others than "
                "s3:// what the message names."
            ) from None
        except Exception as error:
            raise StageError(
                f"Cannot {what} {self.address}: {type(error).__name__}: {_one_line(error)}; mend "
                "the address, or give the credentials that its store looks for (for s3:// "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)."
            ) from None


def _travels(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[0] not in _STAYS_HERE and not any(part.startswith(".") for part in parts)


def _copies() -> Path:
    """Where the copies lie: ``KERASMED_RUNS``, or the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("KERASMED_RUNS") or Path(cache) / "kerasmed" / "runs").expanduser()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
