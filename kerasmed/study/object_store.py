"""A run folder in an object store: a local copy that is fetched, worked in, and written back.

The stages work on local files as they always do. Needs the extra `remote`; fsspec does the rest.
"""

import hashlib
import json
import os
import platform
import secrets
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

# Neither real images, which may not leave the machine, nor what belongs to this machine alone.
_STAYS_HERE = ("cache",)
# What vouches for other files: written after these, as it was before these were listed, and removed
# before them. The last of all vouches for whole stages.
_RECORDS = ("training.json", "export.json", "manifest.json", "run.json")
_LEASE = ".lock"
_PUSH_EVERY_S = 60.0
_RENEW_EVERY_S = 60.0
_LEASE_ENDS_S = 300.0
_NOTE_EVERY_S = 1.0
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
        if self.address.endswith(":"):
            raise StageError(
                f"--out {address}: expected an address such as s3://BUCKET/PATH, received none "
                "behind its kind; add it."
            )
        self._token = secrets.token_hex(8)  # process numbers are not unique in containers
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
        with ExitStack() as stack:
            stack.callback(self._give_lease_back)
            stack.enter_context(_repeated(_RENEW_EVERY_S, self._renew_lease, self._say_later))
            self.fetch()
            stack.callback(self._push_last)
            stack.enter_context(_repeated(_PUSH_EVERY_S, self._push, self._say_later))
            yield

    def fetch(self) -> None:
        """Bring what has changed at the address; what has not been written back yet stays.

        Raises:
            StageError: the address cannot be reached, or a file has changed on both sides.
        """
        make_folder(self.local)
        here = self._local_files()
        # A copy that is gone as a whole was not emptied file by file.
        synced = self._read_index() if here else {}
        with self._reported("read"):
            there = self._versions()
        for name in here.keys() & synced.keys() - there.keys():
            (self.local / name).unlink()
        wanted = [
            name
            for name, version in there.items()
            if name not in synced or synced[name][2] != version
        ]

        def fetch_one(name: str) -> None:
            path = self.local / name
            with written_aside(path) as temporary:
                self._fs.get_file(self._at(name), str(temporary))
                touched = name in here and synced.get(name, [])[:2] != here[name]
                if touched and sha256_of(path) != sha256_of(temporary):
                    raise StageError(
                        f"{name} has changed both in {self.local} and at {self.address}: expected "
                        "one of the two to be as it was; move that folder away to go on from the "
                        "address, or take another --out."
                    )

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
        self._check_lease()
        synced, records = self._read_index(), self._read_records()
        # The records as they were before anything else: what they vouch for may change meanwhile.
        here = self._local_files()
        here |= {name: state for name, (state, _) in records.items() if name in here}
        changed = [name for name, state in here.items() if synced.get(name, [])[:2] != state]
        removed = [name for name in synced if name not in here]
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
                # At once, so that a file that changes after it was written is known to be newer.
                synced[name] = [*here[name], version]
                if time.monotonic() - noted > _NOTE_EVERY_S:
                    self._write_index(synced)
                    noted = time.monotonic()

        def remove(name: str) -> None:
            with suppress(FileNotFoundError):  # by a push that was killed before it noted it
                self._fs.rm_file(self._at(name))
            synced.pop(name)

        try:
            self._each(remove, [name for name in removed if _rank(name)])
            for rank in range(len(_RECORDS) + 1):
                self._each(push_one, [name for name in changed if _rank(name) == rank])
            self._each(remove, [name for name in removed if not _rank(name)])
            there = self._versions()
            for name in changed:
                if name in synced and name in there:
                    synced[name][2] = there[name]
        finally:
            self._write_index(synced)

    def _push_last(self) -> None:
        with self._reported(f"write what lies in {self.local} to"):
            self._push()

    def _say_later(self, error: Exception) -> None:
        say(f"{self.address}: not written to just now ({_one_line(error)}); tried again.")

    def _read_records(self) -> dict[str, tuple[list[int], bytes]]:
        """State and content of each file that vouches for others."""
        found = {}
        for name, state in self._local_files().items():
            if _rank(name):
                with suppress(FileNotFoundError):
                    found[name] = (state, (self.local / name).read_bytes())
        return found

    def _take_lease(self) -> None:
        try:
            self._write_lease("create")
            return
        except FileExistsError:
            holder = self._read_lease()
        silent_s = time.time() - holder["at"]
        if silent_s < _LEASE_ENDS_S:
            raise StageError(
                f"{holder['holder']} writes to {self.address}, {silent_s:.0f} s ago for the last "
                "time: expected a run folder for this process alone; wait for it, or take another "
                f"--out. If it was killed, wait {_LEASE_ENDS_S - silent_s:.0f} s."
            )
        self._write_lease("overwrite")

    def _read_lease(self) -> dict[str, Any]:
        self._fs.invalidate_cache()
        return json.loads(self._fs.cat_file(self._at(_LEASE)))

    def _write_lease(self, mode: str) -> None:
        holder = f"Process {os.getpid()} on {platform.node()}"
        lease = {"holder": holder, "token": self._token, "at": time.time()}
        self._fs.pipe_file(self._at(_LEASE), json.dumps(lease).encode(), mode=mode)

    def _check_lease(self) -> None:
        """Refuse to write where another process, after long silence of this one, now does.

        Raises:
            StageError: naming the other.
        """
        try:
            lease = self._read_lease()
        except FileNotFoundError:  # somebody tidied up
            self._write_lease("create")
            return
        if lease.get("token") != self._token:
            raise StageError(
                f"{lease['holder']} has taken {self.address}, since this process was silent there "
                f"for {_LEASE_ENDS_S:.0f} s: expected to hold it until the end; what was made "
                f"since then lies in {self.local}."
            )

    def _renew_lease(self) -> None:
        self._check_lease()
        self._write_lease("overwrite")

    def _give_lease_back(self) -> None:
        with self._reported("write"), suppress(FileNotFoundError):
            if self._read_lease().get("token") == self._token:
                self._fs.rm_file(self._at(_LEASE))

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _versions(self) -> dict[str, str]:
        """Names below the address, and what tells their versions apart."""
        self._fs.invalidate_cache()
        found = self._fs.find(self._path, detail=True)
        versions = {}
        for path, info in found.items():
            name = str(PurePosixPath(path).relative_to(PurePosixPath(self._path)))
            # The consoles of stores make an empty object for a folder, its name with a slash.
            is_folder = path.endswith("/") or info["type"] != "file" or name == "."
            if not is_folder and _travels(name):
                versions[name] = _version_of(info)
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


def _version_of(info: dict[str, Any]) -> str:
    known = [str(info[key]) for key in _VERSION_KEYS if info.get(key)]
    return f"{info['size']} {known[0] if known else ''}"


def _rank(name: str) -> int:
    """0 of a file that vouches for no other; else when it is written, after all such."""
    last = PurePosixPath(name).name
    return _RECORDS.index(last) + 1 if last in _RECORDS else 0


@contextmanager
def _repeated(
    every_s: float, work: Callable[[], None], failed: Callable[[Exception], None]
) -> Iterator[None]:
    """Work that a thread does again and again until the block ends, whatever fails meanwhile."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            try:
                work()
            except Exception as error:  # the next time may do better
                failed(error)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _travels(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[0] not in _STAYS_HERE and not any(part.startswith(".") for part in parts)


def _copies() -> Path:
    """Where the copies lie: ``KERASMED_RUNS``, or the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("KERASMED_RUNS") or Path(cache) / "kerasmed" / "runs").expanduser()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
