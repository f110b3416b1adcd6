"""The split: complete, proportionate, leak-free, repeatable, and steady when files are added."""

import itertools
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.data.config import SplitConfig
from kerasmed.data.groups import group_images
from kerasmed.data.image_file import ImageFile
from kerasmed.data.image_set import ImageSet
from kerasmed.data.splits import ROLES, make_split, read_split, write_split
from kerasmed.errors import DataError, StageError

DEFAULTS = SplitConfig()
MANY = [SplitConfig(), SplitConfig(train=0.4, validation=0.3, test=0.35)]
NONE = np.zeros((0, 2), dtype=np.int64)

# What is to be split: labels, groups and names of classes.
Structure = tuple[np.ndarray, list[str], tuple[str, ...]]


def structure(counts: np.ndarray) -> Structure:
    """Images of each class by group: int (groups, classes)."""
    labels, groups = [], []
    for group, row in enumerate(counts.tolist()):
        for label, count in enumerate(row):
            labels += [label] * count
            groups += [f"group {group}"] * count
    return np.array(labels, dtype=np.int32), groups, tuple("abcdef"[: counts.shape[1]])


def of_one_class(sizes: list[list[int]]) -> np.ndarray:
    """Counts of groups that hold one class each, by class."""
    rows = [(label, size) for label, row in enumerate(sizes) for size in row]
    counts = np.zeros((len(rows), len(sizes)), dtype=np.int64)
    for group, (label, size) in enumerate(rows):
        counts[group, label] = size
    return counts


def random_sizes(rng: np.random.Generator, least: int = 4, most: int = 60) -> list[list[int]]:
    """Sizes of the groups of two to four classes: all one, even, or mostly small."""
    classes = int(rng.integers(2, 5))
    draws = (
        lambda n: np.ones(n, dtype=int),
        lambda n: rng.integers(1, 12, n),
        lambda n: rng.geometric(0.2, n),
    )
    return [draws[rng.integers(3)](rng.integers(least, most)).tolist() for _ in range(classes)]


def random_counts(seed: int) -> np.ndarray:
    """Groups of one class each, or some of several, or all of several."""
    rng = np.random.default_rng(seed)
    kind = seed % 3
    if kind == 2:
        shape = (int(rng.integers(60, 120)), int(rng.integers(2, 4)))
        return np.maximum(rng.integers(0, 9, shape), np.eye(shape[1], dtype=int)[0])
    counts = of_one_class(random_sizes(rng, least=8))
    if kind == 1:
        for group in rng.choice(len(counts), len(counts) // 8, replace=False):
            counts[group, rng.integers(counts.shape[1])] += 1
    return counts


def asked(totals: np.ndarray, settings: SplitConfig) -> dict[str, np.ndarray]:
    """Images of each class that every role should get."""
    both = totals * settings.train
    return {
        "train": both * (1 - settings.validation),
        "validation": both * settings.validation,
        "reserve": totals * (1 - settings.train - settings.test),
        "test": totals * settings.test,
    }


def sizes_of(split, labels: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    return {role: np.bincount(labels[at], minlength=classes) for role, at in split.items()}


def roles_of_groups(split, groups: list[str]) -> dict[str, str]:
    """The one role of each group."""
    roles: dict[str, set[str]] = {}
    for role, positions in split.items():
        for position in positions:
            roles.setdefault(groups[position], set()).add(role)
    assert all(len(group_roles) == 1 for group_roles in roles.values())
    return {group: group_roles.pop() for group, group_roles in roles.items()}


def distinct(*counts: int) -> Structure:
    """Every image a group of its own."""
    return structure(of_one_class([[1] * count for count in counts]))


@pytest.mark.parametrize("seed", range(30))
def test_every_image_has_one_role_and_every_group_too(seed):
    labels, groups, names = structure(random_counts(seed))

    split = make_split(labels, groups, names, MANY[seed % 2], seed)

    assert tuple(split) == ROLES
    assert sorted(np.concatenate(list(split.values()))) == list(range(len(labels)))
    for positions in split.values():
        assert positions.dtype == np.int64
        assert (np.diff(positions) > 0).all()
    assert roles_of_groups(split, groups).keys() == set(groups)


@pytest.mark.parametrize("seed", range(30))
def test_every_role_gets_something_of_every_class(seed):
    labels, groups, names = structure(random_counts(seed))

    split = make_split(labels, groups, names, MANY[seed % 2], seed)

    for sizes in sizes_of(split, labels, len(names)).values():
        assert sizes.all()


def test_shares_by_hand():
    # Of 100: 20 test; 20 train, a tenth of which validates; the rest is reserve.
    labels, groups, names = distinct(100, 100)

    split = make_split(labels, groups, names, DEFAULTS, seed=0)

    sizes = {role: len(positions) for role, positions in split.items()}
    assert sizes == {"train": 36, "validation": 4, "test": 40, "reserve": 120}


def test_shares_by_hand_in_groups_of_five():
    # Of 20 groups: 4 test; 2 images are asked to validate: one group, since none would miss them.
    labels, groups, names = structure(of_one_class([[5] * 20, [5] * 20]))

    split = make_split(labels, groups, names, DEFAULTS, seed=0)

    assert sizes_of(split, labels, 2)["test"].tolist() == [20, 20]
    assert sizes_of(split, labels, 2)["validation"].tolist() == [5, 5]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("train", "validation", "test"), [(0.2, 0.1, 0.2), (0.4, 0.3, 0.35)])
def test_every_class_has_the_shares_asked_for(seed, train, validation, test):
    counts = (211, 47, 90)
    labels, groups, names = distinct(*counts)
    settings = SplitConfig(train=train, validation=validation, test=test)

    sizes = sizes_of(make_split(labels, groups, names, settings, seed), labels, 3)

    for label, count in enumerate(counts):
        size = {role: sizes[role][label] for role in ROLES}
        assert abs(size["test"] - count * test) <= 1
        assert abs(size["train"] + size["validation"] - count * train) <= 1
        assert abs(size["validation"] - count * train * validation) <= 1


def misses(counts: np.ndarray, settings: SplitConfig, seed: int, roles: tuple[str, ...]) -> list:
    """What a role misses by more than the largest group of the class, or than one image."""
    labels, groups, names = structure(counts)
    sizes = sizes_of(make_split(labels, groups, names, settings, seed), labels, len(names))
    wanted = asked(counts.sum(axis=0), settings)
    largest = counts.max(axis=0)
    return [
        (seed, role, label)
        for role in roles
        for label in range(len(names))
        # Rounding what was asked for adds less than one image.
        if abs(sizes[role][label] - wanted[role][label]) >= largest[label] + 1
    ]


@pytest.mark.parametrize("settings", MANY)
def test_roles_miss_by_one_group_at_most(settings):
    for seed in range(60):
        counts = of_one_class(random_sizes(np.random.default_rng(seed)))
        assert not misses(counts, settings, seed, ("train", "validation", "test"))


def test_a_giant_group_is_missed_by_itself_at_most():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sizes = random_sizes(rng)
        for row in sizes:
            row[0] = sum(row)
        assert not misses(of_one_class(sizes), DEFAULTS, seed, ("train", "validation", "test"))


def test_train_misses_by_one_group_at_most():
    missed = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        sizes = [rng.integers(1, rng.integers(2, 60), rng.integers(20, 40)) for _ in range(2)]
        missed += misses(of_one_class(sizes), MANY[seed % 2], seed, ("reserve",))
    assert not missed


def test_what_can_be_split_is_not_refused():
    wrongly_refused = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        counts = np.zeros((int(rng.integers(4, 7)), 2), dtype=np.int64)
        for row in counts:
            row[rng.integers(2)] = rng.integers(1, 6)
        counts[rng.choice(len(counts), 2, replace=False)] = rng.integers(1, 6, (2, 2))
        try:
            make_split(*structure(counts), DEFAULTS, seed)
        except DataError:
            if can_be_split(counts):
                wrongly_refused.append(counts.tolist())
    assert not wrongly_refused


def test_roles_of_patients_of_several_classes_miss_by_two_patients_at_most():
    missed = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(60, 120)), int(rng.integers(2, 4)))
        counts = rng.poisson(rng.uniform(1, 6, shape[1]), shape)
        counts[counts.sum(axis=1) == 0, 0] = 1
        largest = np.full(shape[1], counts.sum(axis=1).max())  # the whole patient
        labels, groups, names = structure(counts)
        sizes = sizes_of(make_split(labels, groups, names, DEFAULTS, seed), labels, len(names))
        wanted = asked(counts.sum(axis=0), DEFAULTS)
        missed += [
            (seed, role, abs(sizes[role] - wanted[role]).tolist())
            for role in ("train", "validation", "test")
            if (abs(sizes[role] - wanted[role]) >= 2 * largest + 1).any()
        ]
    assert not missed


@pytest.mark.parametrize("seed", range(20))
def test_every_role_gets_a_group_of_every_class_however_few(seed):
    rng = np.random.default_rng(seed)
    sizes = [rng.integers(1, 9, rng.integers(4, 7)).tolist() for _ in range(2)]
    labels, groups, names = structure(of_one_class(sizes))

    split = make_split(labels, groups, names, SplitConfig(train=0.5, test=0.45), seed)

    for positions in split.values():
        assert set(labels[positions]) == {0, 1}


def test_four_groups_are_one_for_each_role():
    labels, groups, names = structure(of_one_class([[1, 50, 3, 9], [1] * 40]))

    split = make_split(labels, groups, names, DEFAULTS, seed=0)

    roles = roles_of_groups(split, groups)
    assert {roles[f"group {i}"] for i in range(4)} == set(ROLES)


def test_group_of_two_classes_stays_in_one_role():
    counts = np.array([[1, 0]] * 20 + [[1, 1]] * 20 + [[0, 1]] * 20)
    labels, groups, names = structure(counts)

    split = make_split(labels, groups, names, DEFAULTS, seed=0)

    assert len(roles_of_groups(split, groups)) == 60
    sizes = sizes_of(split, labels, 2)
    assert all(abs(sizes["test"] - 8) <= 1)


def test_same_seed_same_split():
    labels, groups, names = structure(random_counts(1))

    first, second = (make_split(labels, groups, names, DEFAULTS, seed=3) for _ in range(2))

    for role in ROLES:
        np.testing.assert_array_equal(first[role], second[role])


def test_other_seed_other_split():
    labels, groups, names = distinct(50, 50)

    tests = {tuple(make_split(labels, groups, names, DEFAULTS, seed)["test"]) for seed in range(5)}

    assert len(tests) == 5


@pytest.mark.parametrize("seed", range(12))
def test_order_of_files_changes_nothing(seed):
    labels, groups, names = structure(random_counts(seed))
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = [groups[i] for i in order]

    first = make_split(labels, groups, names, DEFAULTS, seed=1)
    second = make_split(labels[order], shuffled, names, DEFAULTS, seed=1)

    assert roles_of_groups(second, shuffled) == roles_of_groups(first, groups)


def test_names_of_classes_change_nothing():
    labels, groups, _ = structure(random_counts(0))
    named = [tuple(f"{prefix}{i}" for i in range(labels.max() + 1)) for prefix in "xy"]

    first, second = (make_split(labels, groups, names, DEFAULTS, seed=1) for names in named)

    for role in ROLES:
        np.testing.assert_array_equal(first[role], second[role])


def moves(
    sizes: list[list[int]], added: list[list[int]], settings: SplitConfig, seed: int
) -> tuple[int, int, list[tuple[str, str]]]:
    """Groups in all, how many change roles when others are added, and changes of sides."""
    before = structure(of_one_class(sizes))
    labels, groups, names = structure(of_one_class(added))
    after = (
        np.concatenate([before[0], labels]),
        before[1] + [f"new {group}" for group in groups],
        names,
    )
    old = roles_of_groups(make_split(*before, settings, seed), before[1])
    new = roles_of_groups(make_split(*after, settings, seed), after[1])
    changed = [(old[group], new[group]) for group in old if old[group] != new[group]]
    crossed = [pair for pair in changed if "test" in pair and "reserve" not in pair]
    return len(old), len(changed), crossed


@pytest.mark.parametrize("settings", [DEFAULTS, SplitConfig(train=0.4, test=0.3)])
@pytest.mark.parametrize("kind", ["single images", "pairs and triples", "mostly small"])
def test_unrelated_files_move_few_groups_and_none_between_test_and_training(kind, settings):
    draw = {
        "single images": lambda rng, count: [1] * count,
        "pairs and triples": lambda rng, count: rng.integers(1, 4, count).tolist(),
        "mostly small": lambda rng, count: rng.geometric(0.25, count).tolist(),
    }[kind]
    for seed in range(15):
        rng = np.random.default_rng(seed)
        sizes = [draw(rng, 100) for _ in range(2)]
        added = [draw(rng, 5) for _ in range(2)]

        count, moved, crossed = moves(sizes, added, settings, seed)

        assert not crossed
        assert moved <= count / 10


def test_unrelated_file_of_one_class_moves_no_other_class():
    sizes = [[1] * 100, [1] * 100]
    labels, groups, names = structure(of_one_class(sizes))
    more = np.append(labels, [0] * 5).astype(np.int32)
    split = make_split(labels, groups, names, DEFAULTS, seed=0)

    again = make_split(more, groups + [f"new {i}" for i in range(5)], names, DEFAULTS, seed=0)

    for role in ROLES:
        other = split[role][labels[split[role]] == 1]
        np.testing.assert_array_equal(again[role][more[again[role]] == 1], other)


def test_unrelated_files_move_no_group_between_test_and_training_where_few_groups_are_small():
    crossings = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        # Runs of twenty neighbours and a few stray images.
        draw = [rng.choice([1, 2, 20], count, p=[0.1, 0.2, 0.7]).tolist() for count in (60, 60)]
        added = [rng.choice([1, 2, 20], 3, p=[0.1, 0.2, 0.7]).tolist() for _ in range(2)]
        crossings += moves(draw, added, SplitConfig(train=0.4, test=0.3), seed)[2]
    assert not crossings


def refusal(*arguments) -> str:
    with pytest.raises(DataError) as caught:
        make_split(*arguments)
    return str(caught.value)


def test_too_few_images_are_refused_naming_class_and_role():
    message = refusal(*distinct(20, 3), DEFAULTS, 0)

    assert "Class 'b' has 3 groups of images that must stay together (the largest of 1)" in (
        message
    )
    assert "'test' got none" in message
    assert "Add images, remove the class, or loosen split.group_by" in message


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_copies_do_not_count_as_images(groups):
    message = refusal(*structure(of_one_class([[1] * 20, [10] * groups])), DEFAULTS, 0)

    assert f"Class 'b' has {groups} groups" in message
    assert "the largest of 10" in message


def test_one_group_for_everything_is_refused():
    assert "Class 'a' has 1 groups" in refusal(*structure(np.array([[30, 30]])), DEFAULTS, 0)


def test_class_without_an_image_is_refused():
    labels, groups, names = distinct(20, 20)
    message = refusal(labels, groups, (*names, "z"), DEFAULTS, 0)
    assert "received none of ['z']; add images, or remove the class" in message


def test_shortest_class_is_the_one_that_is_named():
    assert "Class 'c' has 2 groups" in refusal(*distinct(20, 20, 2, 20), DEFAULTS, 0)


def can_be_split(counts: np.ndarray) -> bool:
    """Whether any choice of roles gives every role something of every class."""
    held = [frozenset(np.flatnonzero(row).tolist()) for row in counts]
    for roles in itertools.product(ROLES, repeat=len(held)):
        got = {(role, label) for role, labels in zip(roles, held, strict=True) for label in labels}
        if len(got) == len(ROLES) * counts.shape[1]:
            return True
    return False


def test_what_cannot_be_split_is_refused():
    refused = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        counts = rng.integers(0, 3, (int(rng.integers(4, 6)), 2)) * 2
        counts[0] = 1
        if not can_be_split(counts):
            assert "got none" in refusal(*structure(counts), DEFAULTS, seed)
            refused += 1
    assert refused > 50


def made_set(groups_by_class: dict[str, list[str]], directory: Path = Path("/data")) -> ImageSet:
    """A set of blank images whose files have the given hashes."""
    names = tuple(sorted(groups_by_class))
    files = tuple(
        ImageFile(directory / name / f"{i:04d}.png", group, name)
        for name in names
        for i, group in enumerate(groups_by_class[name])
    )
    labels = np.array([names.index(file.class_name) for file in files], dtype=np.int32)
    return ImageSet(np.zeros((len(files), 1, 1, 3), dtype=np.uint8), labels, names, files)


def ten_of_each(directory: Path = Path("/data"), counts: tuple[int, int] = (10, 10)) -> ImageSet:
    named = zip("ab", counts, strict=True)
    return made_set(
        {name: [f"{name}{i}" for i in range(count)] for name, count in named}, directory
    )


def grouped(image_set: ImageSet):
    """Groups by hash, and the split by them."""
    groups = group_images(image_set.files, NONE, DEFAULTS, Path("/data"))
    split = make_split(image_set.labels, groups, image_set.class_names, DEFAULTS, seed=0)
    return groups, split


def roles_by_name(image_set: ImageSet, split) -> dict[str, str]:
    return {image_set.files[i].name: role for role in ROLES for i in split[role]}


@pytest.fixture
def stored(tmp_path):
    """A run folder with a split over ten images of each class inside it."""
    image_set = ten_of_each(tmp_path / "run" / "images")
    groups, split = grouped(image_set)
    path = tmp_path / "run" / "split.json"
    write_split(path, image_set.files, groups, split)
    return path, image_set, split


def test_names_of_files_change_nothing():
    image_set = ten_of_each()
    renamed = replace(
        image_set, files=tuple(replace(f, path=Path(f"/z/{f.sha256}")) for f in image_set.files)
    )

    first, second = grouped(image_set)[1], grouped(renamed)[1]

    for role in ROLES:
        np.testing.assert_array_equal(first[role], second[role])


def test_file_under_two_classes_stays_in_one_role_whatever_the_order():
    groups = {name: [f"{name}{i}" for i in range(40)] for name in "ab"}
    groups["b"][:20] = groups["a"][:20]
    image_set = made_set(groups)
    backwards = image_set.subset(np.arange(80)[::-1])

    names, split = grouped(image_set)

    assert len(roles_of_groups(split, names)) == 60
    again = grouped(backwards)[1]
    assert roles_by_name(backwards, again) == roles_by_name(image_set, split)


def test_split_is_read_as_written(stored):
    path, image_set, split = stored

    again, _ = read_split(path, image_set.files)

    assert tuple(again) == ROLES
    for role in ROLES:
        np.testing.assert_array_equal(again[role], split[role])
        assert again[role].dtype == np.int64


def test_split_follows_the_files_not_their_positions(stored):
    path, image_set, split = stored
    reversed_set = image_set.subset(np.arange(20)[::-1])

    again, _ = read_split(path, reversed_set.files)

    assert roles_by_name(reversed_set, again) == roles_by_name(image_set, split)


def test_groups_are_read_as_written(stored):
    path, image_set, _ = stored

    assert read_split(path, image_set.files)[1] == [file.sha256 for file in image_set.files]


def test_split_file_says_all_of_a_file(stored):
    path, image_set, split = stored

    entries = json.loads(path.read_text())["files"]

    assert len(entries) == 20
    assert entries[11] == {
        "path": "images/b/0001.png",
        "sha256": "b1",
        "class": "b",
        "group": "b1",
        "role": roles_by_name(image_set, split)[image_set.files[11].name],
    }


def test_groups_of_several_files_are_written(tmp_path):
    image_set = ten_of_each(tmp_path / "images")
    pairs = np.array([[2 * i, 2 * i + 1] for i in range(10)])
    groups = group_images(image_set.files, pairs, DEFAULTS, tmp_path)
    split = make_split(image_set.labels, groups, image_set.class_names, DEFAULTS, seed=0)

    write_split(tmp_path / "split.json", image_set.files, groups, split)

    entries = json.loads((tmp_path / "split.json").read_text())["files"]
    assert [entry["group"] for entry in entries[:4]] == ["a0", "a0", "a2", "a2"]
    assert read_split(tmp_path / "split.json", image_set.files)[1] == groups
    assert all(entries[i]["role"] == entries[i + 1]["role"] for i in range(0, 20, 2))


def parts_of(name: str, directory: Path) -> ImageSet:
    """Two classes of ten images, all of them parts of one file."""
    image_set = ten_of_each(directory)
    files = tuple(
        replace(file, path=directory / name, frame=frame)
        for frame, file in enumerate(image_set.files)
    )
    return replace(image_set, files=files)


def test_parts_of_one_file_are_written_and_read_each(tmp_path):
    image_set = parts_of("set.npz", tmp_path / "run")
    groups, split = grouped(image_set)
    path = tmp_path / "run" / "split.json"
    write_split(path, image_set.files, groups, split)
    shuffled = image_set.subset(np.random.default_rng(0).permutation(20))

    entries = json.loads(path.read_text())["files"]

    assert [entry["frame"] for entry in entries] == list(range(20))
    assert {entry["path"] for entry in entries} == {"set.npz"}
    assert len(set(groups)) == 20
    again, _ = read_split(path, shuffled.files)
    assert roles_by_name(shuffled, again) == roles_by_name(image_set, split)


def test_part_that_is_new_or_gone_is_refused(tmp_path):
    image_set = parts_of("set.npz", tmp_path)
    path = tmp_path / "split.json"
    write_split(path, image_set.files, *grouped(image_set))
    files = (*image_set.files[:-1], replace(image_set.files[-1], frame=20))

    with pytest.raises(StageError, match=r"set\.npz#19` was b .* is absent now"):
        read_split(path, files)
    with pytest.raises(StageError, match=r"set\.npz#19` was .* is absent now"):
        read_split(path, image_set.subset(np.arange(19)).files)


def test_paths_outside_the_run_folder_are_absolute(tmp_path):
    image_set = ten_of_each(tmp_path / "elsewhere")
    path = tmp_path / "run" / "split.json"

    write_split(path, image_set.files, *grouped(image_set))

    assert json.loads(path.read_text())["files"][0]["path"] == str(
        tmp_path / "elsewhere" / "a" / "0000.png"
    )


def test_run_folder_may_move(stored, tmp_path):
    path, _, split = stored
    path.parent.rename(tmp_path / "moved")
    moved = ten_of_each(tmp_path / "moved" / "images")

    again, _ = read_split(tmp_path / "moved" / "split.json", moved.files)

    np.testing.assert_array_equal(again["test"], split["test"])


def test_changed_file_is_refused(stored):
    path, image_set, _ = stored
    changed = replace(image_set.files[3], sha256="other")
    files = (*image_set.files[:3], changed, *image_set.files[4:])

    with pytest.raises(StageError, match=r"split\.json: .*a/0003\.png` was .* is a other now"):
        read_split(path, files)


def test_file_that_changed_its_class_is_refused(stored):
    path, image_set, _ = stored
    changed = replace(image_set.files[3], class_name="b")  # as a table may say from now on
    files = (*image_set.files[:3], changed, *image_set.files[4:])

    with pytest.raises(StageError, match=r"a/0003\.png` was a .* is b "):
        read_split(path, files)


def test_new_file_is_refused(stored, tmp_path):
    path, _, _ = stored

    with pytest.raises(StageError, match=r"b/0010\.png` was absent .*choose another --out"):
        read_split(path, ten_of_each(tmp_path / "run" / "images", (10, 11)).files)


def test_missing_files_are_refused(stored):
    path, image_set, _ = stored

    with pytest.raises(StageError, match=r"b/0008\.png` was .* is absent now"):
        read_split(path, image_set.subset(np.arange(18)).files)


@pytest.mark.parametrize(("key", "meaning"), [("sha256", "the same file"), ("group", "one group")])
def test_test_image_that_is_also_in_training_is_refused_by_name(stored, key, meaning):
    path, image_set, _ = stored
    content = json.loads(path.read_text())
    first = {entry["role"]: entry for entry in content["files"]}
    first["test"][key] = first["train"][key]
    path.write_text(json.dumps(content))

    with pytest.raises(StageError, match=f"they are {meaning}: expected one role") as refused:
        read_split(path, image_set.files)
    assert all(first[role]["path"] in str(refused.value) for role in ("test", "train"))


def test_missing_split_names_its_command(tmp_path):
    with pytest.raises(StageError, match="`kerasmed data split`"):
        read_split(tmp_path / "split.json", ten_of_each().files)


def test_two_links_to_one_file_are_read_as_written(tmp_path):
    for name, i in itertools.product("ab", range(8)):
        path = tmp_path / "images" / name / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        target = tmp_path / f"{name}{i // 2}"
        target.touch()
        path.symlink_to(target)
    hashes = {name: [f"{name}{i // 2}" for i in range(8)] for name in "ab"}
    image_set = made_set(hashes, tmp_path / "images")
    groups, split = grouped(image_set)
    write_split(tmp_path / "run" / "split.json", image_set.files, groups, split)

    again, _ = read_split(tmp_path / "run" / "split.json", image_set.files)

    assert roles_by_name(image_set, again) == roles_by_name(image_set, split)


def test_split_is_the_same_at_two_image_sizes(tiny_config, image_folder, tmp_path):
    def split_at(size: int) -> list[dict]:
        out = ["--out", str(tmp_path / str(size)), "--set", f"data.image_size={size}"]
        assert main(["data", "split", str(tiny_config), "--data", str(image_folder), *out]) == 0
        return json.loads((tmp_path / str(size) / "split.json").read_text())["files"]

    assert split_at(16) == split_at(48)


@pytest.mark.realdata
def test_copies_in_a_real_set_never_cross_roles(tmp_path):
    source = Path(os.environ.get("KERASMED_DATA", "data")) / "brain-tumor-mri"
    if not source.is_dir():
        pytest.skip(f"no {source}; KERASMED_DATA names the folder above it")
    config = Path(__file__).parents[2] / "configs" / "brain_tumor_mri.yaml"
    run = tmp_path / "run"

    assert main(["data", "split", str(config), "--data", str(source), "--out", str(run)]) == 0

    files = json.loads((run / "split.json").read_text())["files"]
    groups = [entry["group"] for entry in files]
    roles = np.array([entry["role"] for entry in files])
    for group_and_role, count in Counter(zip(groups, roles, strict=True)).items():
        assert groups.count(group_and_role[0]) == count

    def picture(entry: dict) -> np.ndarray:
        with Image.open(entry["path"]) as image:
            grey = image.convert("L").resize((32, 32), Image.Resampling.BOX)
        pixels = np.asarray(grey, dtype=np.float32) - np.mean(grey, dtype=np.float32)
        return pixels / max(1.0, float(np.linalg.norm(pixels)))

    with ThreadPoolExecutor() as pool:
        pictures = np.stack(list(pool.map(picture, files)))
    flat = pictures.reshape(len(files), -1)
    copies = 0
    for turn, flip in itertools.product(range(4), (False, True)):
        turned = np.rot90(pictures[:, :, ::-1] if flip else pictures, turn, axes=(1, 2))
        turned = turned.reshape(len(files), -1)
        for start in range(0, len(files), 500):
            alike = flat[start : start + 500] @ turned.T > 0.995
            one, other = np.nonzero(alike)
            crossing = roles[one + start] != roles[other]
            assert not crossing.any(), files[one[crossing][0] + start]["path"]
            copies += int((one + start < other).sum())
    assert copies > 1000  # 2,021 without flips and turns, counted on 5,708 images


@pytest.mark.parametrize("change", [{"role": "Test"}, {"group": None}, {"sha256": None}])
def test_split_that_was_edited_wrongly_is_refused(stored, change):
    path, image_set, _ = stored
    content = json.loads(path.read_text())
    content["files"][3] |= change
    path.write_text(json.dumps(content))

    with pytest.raises(StageError, match=r"expected path, .* correct the file"):
        read_split(path, image_set.files)


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"files": {}}', '{"files": [1]}'])
def test_split_without_its_images_is_refused(stored, content):
    path, image_set, _ = stored
    path.write_text(content)

    with pytest.raises(StageError, match=r"expected path, .* correct the file"):
        read_split(path, image_set.files)
