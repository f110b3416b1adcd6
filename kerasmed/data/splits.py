"""The split of a set into roles, by group and class, written once and read by every stage."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from kerasmed.data.config import SplitConfig
from kerasmed.data.image_file import ImageFile, numbered_name
from kerasmed.errors import DataError, StageError
from kerasmed.files import read_json, write_json
from kerasmed.fingerprint import changed, differences
from kerasmed.result_types import Sha256, Whole

Role = Literal["train", "validation", "test", "reserve"]

# `train` trains the diffusion model and the CNNs of the regimes real and both. `validation`, a
# tenth of it, stops and calibrates trainings. Every CNN is tested on `test` and nothing else.
# Fidelity and privacy are measured against `reserve`, which also joins real_all.
ROLES: tuple[Role, ...] = ("train", "validation", "test", "reserve")

Split = dict[str, np.ndarray]

SplitEntry = TypedDict(
    "SplitEntry",
    {
        "path": Annotated[
            str, Field(description="Path of the file, relative to the run folder if it is inside.")
        ],
        "frame": NotRequired[
            Annotated[Whole, Field(description="Number of the slice, frame or row in the file.")]
        ],
        "sha256": Annotated[Sha256, Field(description="Hash of the file, or of the row's pixels.")],
        "class": Annotated[str, Field(description="Name of the class.")],
        "group": Annotated[
            str,
            Field(description="Equal for images that stay together: copies, a patient's, a run's."),
        ],
        "role": Annotated[Role, Field(description="What the image is used for.")],
    },
)


class SplitFile(TypedDict):
    """Class, group and role of every real image (``split.json``)."""

    files: list[SplitEntry]
    """One entry for each image."""


def make_split(
    labels: np.ndarray,
    groups: list[str],
    class_names: tuple[str, ...],
    settings: SplitConfig,
    seed: int,
    official_test: np.ndarray | None = None,
) -> Split:
    """Positions of each role's images; a group never crosses roles.

    Groups are sorted by a hash of (seed, group). `test` is filled from the front, `validation` and
    then `train` from the back, and `reserve` is the rest. So added files shift few groups, and none
    from `test` to `train`. A role takes a group that brings it nearer to its wanted size, over all
    classes together.

    Args:
        labels: int (n,), indices into ``class_names``.
        groups: the group of each image.
        class_names: for messages.
        settings: the fraction of each role.
        seed: the study's seed.
        official_test: positions of the images that a set's publishers tested on. They and their
            groups are the role `test`, whatever its fraction.

    Returns:
        int64 positions, sorted, for each of ROLES.

    Raises:
        DataError: a class has no image, or too few groups for every role to get one.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), len(class_names)), dtype=np.int64)
    np.add.at(counts, (group_of, labels), 1)
    if lacking := [class_names[label] for label in np.flatnonzero(counts.sum(axis=0) == 0)]:
        raise DataError(
            f"Split: expected images of every class, received none of {lacking}; add images, or "
            "remove the class."
        )
    keys = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names]
    order = sorted(range(len(names)), key=keys.__getitem__)
    wanted = _wanted_counts(counts.sum(axis=0), settings)
    role_of = dict.fromkeys(order, "reserve")
    groups_left = (counts > 0).sum(axis=0)
    roles_to_fill = ["test", "validation", "train"]
    if official_test is not None:
        roles_to_fill.remove("test")
        for group in np.unique(group_of[official_test]).tolist():
            role_of[group] = "test"
            groups_left[counts[group] > 0] -= 1
    for later, role in zip(range(len(roles_to_fill), 0, -1), roles_to_fill, strict=True):
        free = [group for group in order if role_of[group] == "reserve"]
        direction = free if role == "test" else free[::-1]
        taken = _fill(direction, counts, wanted[role], groups_left, later)
        role_of.update(dict.fromkeys(taken, role))
        if role == "validation":  # `train` makes up for its surplus or deficit
            more = wanted[role] - counts[taken].sum(axis=0)
            wanted["train"] = np.maximum(1, wanted["train"] + more)
    roles: Split = {
        role: np.array([i for i, group in enumerate(group_of) if role_of[group] == role], np.int64)
        for role in ROLES
    }
    _check_roles(roles, labels, counts, class_names)
    return roles


def check_official_test(labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Refuse official test images that lack a class.

    Args:
        labels: of the official test images.
        class_names: all classes.

    Raises:
        DataError: naming the classes that they lack.
    """
    lacking = [name for label, name in enumerate(class_names) if label not in labels]
    if lacking:
        raise DataError(
            "data.official_split: keep: expected test images of every class in the official test "
            f"set, received none of {lacking}; set it to merge."
        )


def _wanted_counts(totals: np.ndarray, settings: SplitConfig) -> dict[str, np.ndarray]:
    """The wanted number of images of each role but `reserve`, by class."""
    learning = np.rint(totals * settings.train)
    validation = np.maximum(1, np.rint(learning * settings.validation))
    return {
        "test": np.maximum(1, np.rint(totals * settings.test)),
        "validation": validation,
        "train": np.maximum(1, learning - validation),
    }


def _fill(
    order: list[int], counts: np.ndarray, wanted: np.ndarray, groups_left: np.ndarray, later: int
) -> list[int]:
    """The groups that one role takes, in the given order.

    Args:
        order: groups without a role.
        counts: number of images by group and class.
        wanted: number of images of each class that the role should get.
        groups_left: number of groups of each class without a role; reduced by the groups taken.
        later: number of later roles, each of which needs a group of every class.
    """
    taken: dict[int, None] = {}
    missing = wanted.astype(float)

    def is_free(group: int) -> bool:
        return group not in taken and bool((groups_left[counts[group] > 0] > later).all())

    def take(group: int) -> None:
        nonlocal missing
        taken[group] = None
        missing = missing - counts[group]
        groups_left[counts[group] > 0] -= 1

    closed = np.zeros(len(wanted), dtype=bool)
    for group in order:
        in_group = counts[group] > 0
        if closed[in_group].any() or not is_free(group):
            continue
        nearer = (((missing - counts[group]) ** 2 - missing**2) / wanted**2).sum() < 0
        if nearer:
            take(group)
        elif (counts[group] <= wanted).all():
            # Searching on for smaller groups would make the role depend on groups far away.
            closed |= in_group & (counts[group] >= 2 * missing)
    for label in np.flatnonzero(missing == wanted):  # every group was too large
        free = [group for group in order if counts[group, label] and is_free(group)]
        if free and missing[label] == wanted[label]:  # no group of another class filled it
            take(min(free, key=lambda group: abs(np.log(counts[group, label] / wanted[label]))))
    return list(taken)


def _check_roles(
    roles: Split, labels: np.ndarray, counts: np.ndarray, class_names: tuple[str, ...]
) -> None:
    for role, positions in roles.items():
        class_counts = np.bincount(labels[positions], minlength=len(class_names))
        if not class_counts.all():
            label = int(class_counts.argmin())
            sizes = sorted(counts[counts[:, label] > 0, label].tolist(), reverse=True)
            raise DataError(
                f"Class {class_names[label]!r} has {len(sizes)} groups of images that must stay "
                f"together (the largest of {sizes[0]}), too few to put one into each of the "
                f"roles {ROLES}: {role!r} got none. Add images, remove the class, or loosen "
                "split.group_by, split.run_length or split.near_duplicate_bits."
            )


def write_split(path: Path, files: Sequence[ImageFile], groups: list[str], split: Split) -> None:
    """Write ``split.json``: path, frame, sha256, class, group and role of every image."""
    role_of = {int(position): role for role, at in split.items() for position in at}
    base = Path(_absolute(path.parent))
    entries = [
        {
            "path": _portable(file.path, base),
            **({} if file.frame is None else {"frame": file.frame}),
            "sha256": file.sha256,
            "class": file.class_name,
            "group": group,
            "role": role_of[position],
        }
        for position, (file, group) in enumerate(zip(files, groups, strict=True))
    ]
    write_json(path, {"files": entries})


def _portable(path: Path, base: Path) -> str:
    """The path relative to the run folder if it is inside, otherwise absolute."""
    path = Path(_absolute(path))
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def _absolute(path: Path) -> str:
    """The absolute path without ``..``; links are kept, since two links are two files."""
    return os.path.abspath(path)  # noqa: PTH100 (Path.absolute keeps "..")


_KEYS = ("path", "sha256", "class", "group", "role")


def _read_entries(path: Path) -> list[dict[str, Any]]:
    """The entry of each image in ``split.json``, which a user may have edited."""
    content = read_json(path, "kerasmed data split")
    entries = content.get("files") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        entries = [content]
    for entry in entries:
        values = entry if isinstance(entry, dict) else {}
        is_text = all(isinstance(values.get(key), str) for key in _KEYS)
        if values.get("role") not in ROLES or not is_text:
            raise StageError(
                f"{path}: expected {', '.join(_KEYS)} for each image and one of the roles "
                f"{', '.join(ROLES)}, received {str(entry)[:200]}; correct the file, or make a "
                "new split with another --out."
            )
    return entries


def _check_apart(entries: list[dict[str, Any]], path: Path) -> None:
    """Refuse an edited split that puts equal files or one group into two roles."""
    for key, meaning in (("sha256", "the same file"), ("group", "one group")):
        first: dict[str, dict[str, Any]] = {}
        for entry in entries:
            earlier = first.setdefault(entry[key], entry)
            if earlier["role"] != entry["role"]:
                raise StageError(
                    f"{path}: {earlier['path']} has the role {earlier['role']!r} and "
                    f"{entry['path']} the role {entry['role']!r}, but they are {meaning}: expected "
                    "one role for both; correct the file, or make a new split with another --out."
                )


def read_split(path: Path, files: Sequence[ImageFile]) -> tuple[Split, list[str]]:
    """Positions of each role's images, and the group of each image, from ``split.json``.

    Raises:
        StageError: the files on disk are not those that were split, or a group or file has two
            roles, such as a test image that is also a training image.
    """
    entries = _read_entries(path)
    _check_apart(entries, path)
    base = Path(_absolute(path.parent))
    entry_of = {_name(base / entry["path"], entry.get("frame")): entry for entry in entries}
    names = [_name(file.path, file.frame) for file in files]
    split = {name: f"{entry['class']} {entry['sha256']}" for name, entry in entry_of.items()}
    present = {
        name: f"{file.class_name} {file.sha256}" for name, file in zip(names, files, strict=True)
    }
    for difference in differences(split, present):
        raise changed(str(path), difference, "rerun `kerasmed data split CONFIG`")
    roles: Split = {
        role: np.array(
            [at for at, name in enumerate(names) if entry_of[name]["role"] == role], np.int64
        )
        for role in ROLES
    }
    return roles, [entry_of[name]["group"] for name in names]


def _name(path: Path, frame: int | None) -> str:
    return numbered_name(_absolute(path), frame)
