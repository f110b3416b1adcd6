"""The split of a set into roles, by group and by class, written once and read by every stage."""

import hashlib
import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from kerasmed.config import SplitConfig
from kerasmed.data.image_set import ImageSet
from kerasmed.errors import DataError, StageError
from kerasmed.files import read_json, write_json

# `diffusion` trains the diffusion model and the CNNs of the regimes real and both; `validation` is
# the tenth of that share that stops and calibrates them; `train` is held out for fidelity and the
# audit, and joins real_all; `test` is what every CNN is tested on, and nothing else.
ROLES = ("diffusion", "validation", "train", "test")

Split = dict[str, np.ndarray]


def groups_of(image_set: ImageSet) -> list[str]:
    """The group of each image; byte-identical files share one (the SHA-256 of their bytes)."""
    return [file.sha256 for file in image_set.files]


def make_split(image_set: ImageSet, settings: SplitConfig, seed: int) -> Split:
    """Positions of each role's images.

    Within a class, groups are taken in the order of a hash of (seed, group), so that the split
    repeats and the order of the files does not matter. A group never crosses roles; one that has
    images of two classes goes where the first of them puts it.

    Args:
        image_set: the images.
        settings: the shares.
        seed: the study's seed.

    Returns:
        int64 positions, sorted, for each of ROLES.

    Raises:
        DataError: a class has too few groups for every role to get one.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for position, group in enumerate(groups_of(image_set)):
        members[group].append(position)
    roles: dict[str, list[int]] = {role: [] for role in ROLES}
    for label, class_name in enumerate(image_set.class_names):
        groups = [group for group, at in members.items() if min(image_set.labels[at]) == label]
        groups.sort(key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest())
        total = sum(len(members[group]) for group in groups)
        wanted = _wanted_counts(total, settings)
        if len(groups) < len(ROLES):
            raise DataError(
                f"Class {class_name!r} has {len(groups)} distinct images: expected at least "
                f"{len(ROLES)}, one for each role {ROLES}; add images or remove the class."
            )
        for role, group in zip(_fill(groups, members, wanted), groups, strict=True):
            roles[role].extend(members[group])
    return {role: np.array(sorted(positions), dtype=np.int64) for role, positions in roles.items()}


def _wanted_counts(total: int, settings: SplitConfig) -> dict[str, int]:
    share = round(total * settings.diffusion)
    validation = max(1, round(share * settings.validation))
    return {
        "test": max(1, round(total * settings.test)),
        "validation": validation,
        "diffusion": max(1, share - validation),
    }


def _fill(groups: list[str], members: dict[str, list[int]], wanted: dict[str, int]) -> list[str]:
    """The role of each group: roles are filled in turn, each left at least one group."""
    assigned: list[str] = []
    order = list(wanted)
    filled = 0
    for position, group in enumerate(groups):
        groups_left = len(groups) - position
        if order and (filled >= wanted[order[0]] or (filled and groups_left <= len(order))):
            order.pop(0)
            filled = 0
        assigned.append(order[0] if order else "train")
        filled += len(members[group])
    return assigned


def write_split(path: Path, image_set: ImageSet, split: Split) -> None:
    """Write ``split.json``: path, sha256, class, group and role of every file."""
    role_of = {int(position): role for role, at in split.items() for position in at}
    base = _absolute(path.parent)
    files = [
        {
            "path": _portable(file.path, base),
            "sha256": file.sha256,
            "class": file.class_name,
            "group": group,
            "role": role_of[position],
        }
        for position, (file, group) in enumerate(
            zip(image_set.files, groups_of(image_set), strict=True)
        )
    ]
    write_json(path, {"files": files})


def _portable(path: Path, base: Path) -> str:
    """Relative to the run folder for what the run made, else absolute."""
    path = _absolute(path)
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def _absolute(path: Path) -> Path:
    """Absolute and without ``..``, but with links as they are: two links are two files."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (Path.absolute keeps "..")


def read_split(path: Path, image_set: ImageSet) -> Split:
    """Positions of each role's images, from ``split.json``.

    Raises:
        StageError: the files on disk are no longer those that were split.
    """
    entries = read_json(path, "kerasmed data split")["files"]
    base = _absolute(path.parent)
    expected = {_absolute(base / entry["path"]): entry for entry in entries}
    roles: dict[str, list[int]] = {role: [] for role in ROLES}
    for position, file in enumerate(image_set.files):
        entry = expected.pop(_absolute(file.path), None)
        if entry is None or entry["sha256"] != file.sha256:
            problem = "is new" if entry is None else "has changed"
            raise StageError(
                f"{file.path} {problem} since {path} was written: expected the files that were "
                "split; put them back, or start a new run folder with --out."
            )
        roles[entry["role"]].append(position)
    if expected:
        missing = next(iter(expected))
        raise StageError(
            f"{missing} is gone since {path} was written ({len(expected)} missing): expected the "
            "files that were split; put them back, or start a new run folder with --out."
        )
    return {role: np.array(positions, dtype=np.int64) for role, positions in roles.items()}
