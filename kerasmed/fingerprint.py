"""Whether a result is still current: what it was made from, then and now."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from typing_extensions import TypedDict

from kerasmed.errors import StageError

_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_SHOWN = 12  # hexadecimal digits of a hash in a message


class FingerprintRecord(TypedDict):
    """What a result was made from; to be compared for equality, not interpreted."""

    version: int
    """Format of the result."""
    settings: dict[str, Any]
    """The settings that decide the result."""
    inputs: dict[str, str]
    """SHA-256, or another mark, of each file and set of images that was used."""


@dataclass(frozen=True)
class Fingerprint:
    """What a result is made from. It is stored with the result, and compared before it is reused.

    Attributes:
        settings: the settings that matter, by their keys; sections are nested.
        inputs: SHA-256 or another mark of each file or set of images, by a name for messages.
        version: format of the result. Raise it where the same settings and inputs give another one.

    Example:
        >>> old = Fingerprint({"seed": 0}, {"split.json": "a1"})
        >>> new = Fingerprint({"seed": 1}, {"split.json": "a1"})
        >>> new.differences(old.as_record())
        [Difference(key='seed', before=0, now=1)]
    """

    settings: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    version: int = 1

    def as_record(self) -> FingerprintRecord:
        """The fingerprint as JSON holds it."""
        record = {"version": self.version, "settings": self.settings, "inputs": self.inputs}
        return json.loads(json.dumps(record))

    def digest(self) -> str:
        """SHA-256 of everything in it."""
        return hashlib.sha256(json.dumps(self.as_record(), sort_keys=True).encode()).hexdigest()

    def matches(self, record: Any) -> bool:
        """Whether a record, or whatever a damaged file holds in its place, is the same."""
        return record == self.as_record()

    def differences(self, record: dict[str, Any]) -> list["Difference"]:
        """What differs between the recorded fingerprint and this one."""
        now = self.as_record()
        return [
            *differences(record.get("version"), now["version"], "format"),
            *differences(record.get("settings", {}), now["settings"]),
            *differences(record.get("inputs", {}), now["inputs"]),
        ]

    def check(self, record: dict[str, Any], what: str, remedy: str) -> None:
        """Refuse a result that was made from something else.

        Args:
            record: the fingerprint that was stored with the result.
            what: the result, for the message.
            remedy: what else a user can do than restore the former value.

        Raises:
            StageError: naming the first difference.
        """
        for difference in self.differences(record):
            raise changed(what, difference, remedy)


class Difference(NamedTuple):
    """A setting or an input that differs.

    Attributes:
        key: key of the setting, or name of the input.
        before: the recorded value, None if there was none.
        now: the present value, None if there is none.
    """

    key: str
    before: Any
    now: Any


def differences(before: Any, now: Any, key: str = "") -> list[Difference]:
    """What differs between two JSON values, by dotted keys in alphabetical order."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [Difference(key, before, now)]
    found = []
    for name in sorted(before.keys() | now.keys()):
        inner = f"{key}.{name}" if key else name
        found += differences(before.get(name), now.get(name), inner)
    return found


def changed(what: str, difference: Difference, remedy: str) -> StageError:
    """The error about a result that was made from something else, see ``Fingerprint.check``."""
    before, now = _shown(difference.before), _shown(difference.now)
    return StageError(
        f"{what}: `{difference.key}` was {before} when this was made and is {now} now. Restore "
        f"{before}, choose another --out, or {remedy}."
    )


def _shown(value: Any) -> str:
    return _HASH.sub(lambda found: found[0][:_SHOWN], "absent" if value is None else str(value))
