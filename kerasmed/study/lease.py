"""A lease on an address in an object store, so that one process at a time writes there."""

import json
import os
import platform
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from kerasmed.errors import StageError

RENEW_EVERY_S = 60.0
_ENDS_AFTER_S = 300.0
_NAME = ".lock"


class Lease:
    """The right of one process to write to an address, kept in a file there.

    Args:
        fs: the fsspec file system of the address.
        path: path of the address in this file system.
        address: the address, for messages.
        local: the local copy, for messages.
    """

    def __init__(self, fs: Any, path: str, address: str, local: Path):
        self._fs, self._path = fs, f"{path}/{_NAME}"
        self._address, self._local = address, local
        self._token = secrets.token_hex(8)  # process numbers are not unique in containers

    def take(self) -> None:
        """Take the lease.

        Raises:
            StageError: another process holds it.
        """
        try:
            self._write("create")
            return
        except FileExistsError:
            lease = self._read()
        silent_s = time.time() - lease["at"]
        if silent_s < _ENDS_AFTER_S:
            raise StageError(
                f"{lease['holder']} writes to {self._address}, last {silent_s:.0f} s ago: expected "
                "a run folder for this process only; wait for it, or choose another --out. If it "
                f"was killed, wait {_ENDS_AFTER_S - silent_s:.0f} s."
            )
        self._write("overwrite")

    def check(self) -> None:
        """Refuse to write if another process has taken the lease after this one was silent.

        Raises:
            StageError: naming the other process.
        """
        try:
            lease = self._read()
        except FileNotFoundError:  # somebody deleted the file
            self._write("create")
            return
        if lease.get("token") != self._token:
            raise StageError(
                f"{lease['holder']} has taken {self._address}, because this process did not renew "
                f"its lease there for {_ENDS_AFTER_S:.0f} s: expected to hold it until the end. "
                f"What was written since then is in {self._local}."
            )

    def renew(self) -> None:
        """Check the lease and extend it.

        Raises:
            StageError: another process has taken it.
        """
        self.check()
        self._write("overwrite")

    def give_back(self) -> None:
        """Remove the lease, unless another process has taken it."""
        with suppress(FileNotFoundError):
            if self._read().get("token") == self._token:
                self._fs.rm_file(self._path)

    def _read(self) -> dict[str, Any]:
        self._fs.invalidate_cache()
        return json.loads(self._fs.cat_file(self._path))

    def _write(self, mode: str) -> None:
        holder = f"Process {os.getpid()} on {platform.node()}"
        lease = {"holder": holder, "token": self._token, "at": time.time()}
        self._fs.pipe_file(self._path, json.dumps(lease).encode(), mode=mode)
