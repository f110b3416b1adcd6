"""The split: complete, proportionate, leak-free, repeatable."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kerasmed.config import SplitConfig
from kerasmed.data.image_set import ImageFile, ImageSet
from kerasmed.data.splits import ROLES, make_split, read_split, write_split
from kerasmed.errors import DataError, StageError

SHARES = SplitConfig()


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


def distinct(counts: dict[str, int], directory: Path = Path("/data")) -> ImageSet:
    groups = {name: [f"{name}{i}" for i in range(count)] for name, count in counts.items()}
    return made_set(groups, directory)


def roles_by_path(image_set: ImageSet, split) -> dict[Path, str]:
    return {image_set.files[i].path: role for role in ROLES for i in split[role]}


def test_every_image_has_exactly_one_role():
    image_set = distinct({"a": 103, "b": 57})

    split = make_split(image_set, SHARES, seed=0)

    assert tuple(split) == ROLES
    assert sorted(np.concatenate(list(split.values()))) == list(range(160))
    for positions in split.values():
        assert positions.dtype == np.int64
        assert (np.diff(positions) > 0).all()


def test_shares_by_hand():
    # Of 100: 20 test; 20 diffusion, a tenth of which validates; the rest trains.
    split = make_split(distinct({"a": 100, "b": 100}), SHARES, seed=0)

    sizes = {role: len(positions) for role, positions in split.items()}
    assert sizes == {"diffusion": 36, "validation": 4, "train": 120, "test": 40}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("diffusion", "validation", "test"), [(0.2, 0.1, 0.2), (0.4, 0.3, 0.35)])
def test_every_class_has_the_shares_asked_for(seed, diffusion, validation, test):
    counts = {"a": 211, "b": 47, "c": 90}
    image_set = distinct(counts)
    shares = SplitConfig(diffusion=diffusion, validation=validation, test=test)

    split = make_split(image_set, shares, seed)

    for label, count in enumerate(counts.values()):
        size = {role: int((image_set.labels[at] == label).sum()) for role, at in split.items()}
        assert abs(size["test"] - count * test) <= 1
        assert abs(size["diffusion"] + size["validation"] - count * diffusion) <= 1
        assert abs(size["validation"] - count * diffusion * validation) <= 1


@pytest.mark.parametrize("seed", range(30))
def test_identical_files_never_cross_roles_and_shares_miss_by_one_group_at_most(seed):
    rng = np.random.default_rng(seed)
    groups = {
        name: sorted(f"{name}{g}" for g in rng.integers(rng.integers(12, 60), size=120))
        for name in ("a", "b", "c")
    }
    image_set = made_set(groups)

    split = make_split(image_set, SHARES, seed)

    role_of = {i: role for role, positions in split.items() for i in positions}
    assert len(role_of) == len(image_set) == sum(len(at) for at in split.values())
    roles_of_group: dict[str, set[str]] = {}
    for i, file in enumerate(image_set.files):
        roles_of_group.setdefault(file.sha256, set()).add(role_of[i])
    assert all(len(roles) == 1 for roles in roles_of_group.values())
    for label, name in enumerate(image_set.class_names):
        largest = max(groups[name].count(group) for group in groups[name])
        tested = (image_set.labels[split["test"]] == label).sum()
        assert 24 <= tested < 24 + largest


@pytest.mark.parametrize("seed", range(20))
def test_every_role_gets_a_group_of_every_class_however_few(seed):
    rng = np.random.default_rng(seed)
    groups = {
        name: [f"{name}{g}" for g in range(rng.integers(4, 7)) for _ in range(rng.integers(1, 9))]
        for name in ("a", "b")
    }
    image_set = made_set(groups)

    split = make_split(image_set, SplitConfig(diffusion=0.5, test=0.45), seed)

    for positions in split.values():
        assert set(image_set.labels[positions]) == {0, 1}


def test_file_under_two_classes_stays_in_one_role():
    groups = {name: [f"{name}{i}" for i in range(40)] for name in ("a", "b")}
    groups["b"][:20] = groups["a"][:20]
    image_set = made_set(groups)

    split = make_split(image_set, SHARES, seed=0)

    seen = [{image_set.files[i].sha256 for i in positions} for positions in split.values()]
    assert sum(len(groups) for groups in seen) == len(set.union(*seen)) == 60


def test_same_seed_same_split():
    image_set = distinct({"a": 50, "b": 50})

    first, second = (make_split(image_set, SHARES, seed=3) for _ in range(2))

    for role in ROLES:
        np.testing.assert_array_equal(first[role], second[role])


def test_other_seed_other_split():
    image_set = distinct({"a": 50, "b": 50})

    tests = {tuple(make_split(image_set, SHARES, seed)["test"]) for seed in range(5)}

    assert len(tests) == 5


def test_order_of_files_changes_nothing():
    image_set = distinct({"a": 60, "b": 60})
    shuffled = image_set.subset(np.random.default_rng(0).permutation(120))

    first = roles_by_path(image_set, make_split(image_set, SHARES, seed=1))

    assert roles_by_path(shuffled, make_split(shuffled, SHARES, seed=1)) == first


def test_names_of_files_change_nothing():
    image_set = distinct({"a": 60, "b": 60})
    renamed = replace(
        image_set, files=tuple(replace(f, path=Path(f"/z/{f.sha256}")) for f in image_set.files)
    )

    first, second = (make_split(each, SHARES, seed=1) for each in (image_set, renamed))

    for role in ROLES:
        np.testing.assert_array_equal(first[role], second[role])


def test_too_few_images_are_refused():
    with pytest.raises(DataError, match=r"Class 'b' has 3 distinct images: expected at least 4"):
        make_split(distinct({"a": 20, "b": 3}), SHARES, seed=0)


def test_copies_do_not_count_as_images():
    image_set = made_set({"a": [f"a{i}" for i in range(20)], "b": ["b0", "b1", "b2"] * 10})

    with pytest.raises(DataError, match="Class 'b' has 3 distinct images"):
        make_split(image_set, SHARES, seed=0)


@pytest.fixture
def stored(tmp_path):
    """A run folder with a split over ten images of each class inside it."""
    image_set = distinct({"a": 10, "b": 10}, tmp_path / "run" / "images")
    split = make_split(image_set, SHARES, seed=0)
    path = tmp_path / "run" / "split.json"
    write_split(path, image_set, split)
    return path, image_set, split


def test_split_is_read_as_written(stored):
    path, image_set, split = stored

    again = read_split(path, image_set)

    assert tuple(again) == ROLES
    for role in ROLES:
        np.testing.assert_array_equal(again[role], split[role])
        assert again[role].dtype == np.int64


def test_split_follows_the_files_not_their_positions(stored):
    path, image_set, split = stored
    reversed_set = image_set.subset(np.arange(20)[::-1])

    again = read_split(path, reversed_set)

    assert roles_by_path(reversed_set, again) == roles_by_path(image_set, split)


def test_split_file_says_all_of_a_file(stored):
    path, image_set, split = stored

    entries = json.loads(path.read_text())["files"]

    assert len(entries) == 20
    assert entries[11] == {
        "path": "images/b/0001.png",
        "sha256": "b1",
        "class": "b",
        "group": "b1",
        "role": roles_by_path(image_set, split)[image_set.files[11].path],
    }


def test_paths_outside_the_run_folder_are_absolute(tmp_path):
    image_set = distinct({"a": 4, "b": 4}, tmp_path / "elsewhere")
    path = tmp_path / "run" / "split.json"

    write_split(path, image_set, make_split(image_set, SHARES, seed=0))

    assert json.loads(path.read_text())["files"][0]["path"] == str(
        tmp_path / "elsewhere" / "a" / "0000.png"
    )


def test_run_folder_may_move(stored, tmp_path):
    path, _, split = stored
    path.parent.rename(tmp_path / "moved")
    moved = distinct({"a": 10, "b": 10}, tmp_path / "moved" / "images")

    again = read_split(tmp_path / "moved" / "split.json", moved)

    np.testing.assert_array_equal(again["test"], split["test"])


def test_changed_file_is_refused(stored):
    path, image_set, _ = stored
    changed = replace(image_set.files[3], sha256="other")
    files = (*image_set.files[:3], changed, *image_set.files[4:])

    with pytest.raises(StageError, match=r"a/0003\.png has changed since .*split\.json"):
        read_split(path, replace(image_set, files=files))


def test_new_file_is_refused(stored, tmp_path):
    path, _, _ = stored

    with pytest.raises(StageError, match=r"b/0010\.png is new since .*start a new run folder"):
        read_split(path, distinct({"a": 10, "b": 11}, tmp_path / "run" / "images"))


def test_missing_files_are_refused(stored):
    path, image_set, _ = stored

    with pytest.raises(StageError, match=r"b/0008\.png is gone since .*\(2 missing\)"):
        read_split(path, image_set.subset(np.arange(18)))


def test_missing_split_names_its_command(tmp_path):
    with pytest.raises(StageError, match="`kerasmed data split`"):
        read_split(tmp_path / "split.json", distinct({"a": 4, "b": 4}))


def test_two_links_to_one_file_are_read_as_written(tmp_path):
    names = [(name, i) for name in "ab" for i in range(8)]
    for name, i in names:
        path = tmp_path / "images" / name / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        target = tmp_path / f"{name}{i // 2}"
        target.touch()
        path.symlink_to(target)
    groups = {name: [f"{name}{i // 2}" for i in range(8)] for name in "ab"}
    image_set = made_set(groups, tmp_path / "images")
    split = make_split(image_set, SHARES, seed=0)
    write_split(tmp_path / "run" / "split.json", image_set, split)

    again = read_split(tmp_path / "run" / "split.json", image_set)

    assert roles_by_path(image_set, again) == roles_by_path(image_set, split)


def test_order_of_files_changes_nothing_for_a_file_under_two_classes():
    groups = {name: [f"{name}{i}" for i in range(40)] for name in ("a", "b")}
    groups["b"][:20] = groups["a"][:20]
    image_set = made_set(groups)
    backwards = image_set.subset(np.arange(80)[::-1])

    first = roles_by_path(image_set, make_split(image_set, SHARES, seed=0))

    assert roles_by_path(backwards, make_split(backwards, SHARES, seed=0)) == first
