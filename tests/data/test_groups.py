"""What belongs together, by every kind of link and through chains of them."""

from pathlib import Path

import numpy as np
import pytest

from kerasmed.data.config import SplitConfig
from kerasmed.data.groups import group_images, neighbour_runs
from kerasmed.data.image_file import ImageFile
from kerasmed.errors import DataError

ROOT = Path("/data")
NONE = np.zeros((0, 2), dtype=np.int64)
BY_PATIENT = SplitConfig()
NEIGHBOURS = SplitConfig(group_by="neighbours", run_length=10)


def by_pattern(pattern: str) -> SplitConfig:
    return SplitConfig(group_by="pattern", pattern=pattern)


def image(name: str, sha256: str | None = None, **options) -> ImageFile:
    """An image of the class that its folder names; its hash is its name if none is given."""
    path = ROOT / name
    frame = f"#{options['frame']}" if "frame" in options else ""
    return ImageFile(path, sha256 or path.stem + frame, path.parent.name, **options)


def group(files: list[ImageFile], pairs=NONE, settings=BY_PATIENT, root=ROOT) -> list[str]:
    return group_images(tuple(files), np.array(pairs, dtype=np.int64), settings, root)


def partition(names: list[str]) -> set[frozenset[int]]:
    return {frozenset(i for i, name in enumerate(names) if name == one) for one in names}


def test_images_that_nothing_links_stand_alone():
    files = [image("a/3.png"), image("a/1.png"), image("b/2.png")]

    assert group(files) == ["3", "1", "2"]


def test_byte_identical_files_belong_together_across_classes_too():
    files = [image("a/1.png", "x"), image("b/2.png", "y"), image("b/3.png", "x")]

    assert group(files) == ["x", "y", "x"]


def test_duplicates_belong_together_and_have_the_least_hash_as_name():
    files = [image(f"a/{name}.png") for name in "dcba"]

    assert group(files, [[0, 2], [1, 3]]) == ["b", "a", "b", "a"]


def test_name_of_a_group_does_not_depend_on_order():
    files = [image(f"a/{name}.png") for name in "dcba"]

    assert group(files[::-1], [[1, 3], [0, 2]]) == ["a", "b", "a", "b"]


def test_name_of_a_group_does_not_depend_on_unrelated_files():
    files = [image(f"a/{name}.png") for name in "dcba"]
    more = [image("a/0.png"), *files, image("b/e.png", "00")]

    assert group(more, [[1, 3], [2, 4]])[1:5] == group(files, [[0, 2], [1, 3]])


def test_patient_links_images_of_several_classes():
    files = [image("a/1.png", patient="p"), image("b/2.png", patient="p"), image("b/3.png")]

    assert group(files) == ["1", "1", "3"]


def test_unnamed_patient_links_nothing():
    files = [image("a/1.png", patient=None), image("a/2.png", patient=None)]

    assert group(files) == ["1", "2"]


def test_parts_of_one_file_belong_together():
    files = [image("a/1.nii", frame=frame) for frame in (0, 1)] + [image("a/2.nii", frame=0)]

    assert group(files) == ["1#0", "1#0", "2#0"]


def test_rows_of_an_archive_do_not_belong_together():
    files = [ImageFile(ROOT / "set.npz", str(frame), "0", frame=frame) for frame in range(3)]

    assert group(files) == ["0", "1", "2"]


def test_copies_of_a_file_of_several_parts_belong_together():
    first = [image("a/1.dcm", frame=frame) for frame in (0, 1)]
    copy = [image("b/2.dcm", f"1#{frame}", frame=frame) for frame in (0, 1)]

    assert set(group(first + copy)) == {"1#0"}


def test_belonging_passes_on_through_every_kind_of_link():
    files = [
        image("a/9.png"),  # looks like 8
        image("a/8.png", "x"),  # looks like 9, same bytes as 7
        image("b/7.png", "x", patient="p"),  # same bytes as 8, same patient as 6
        image("b/6.nii", frame=0, patient="p"),  # same patient as 7, same file as the next
        image("b/6.nii", frame=1),
        image("a/5.png"),
    ]

    assert group(files, [[0, 1]]) == ["6#0"] * 5 + ["5"]


def test_chain_of_duplicates_is_one_group_though_its_ends_differ():
    files = [image(f"a/{i:03d}.png") for i in range(200)]
    chain = [[i, i + 1] for i in range(0, 150)]

    assert group(files, chain) == ["000"] * 151 + [f"{i:03d}" for i in range(151, 200)]


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_those_of_a_plain_search(seed):
    rng = np.random.default_rng(seed)
    count = 60
    patients = rng.integers(40, size=count)
    files = [
        image(
            f"a/{i:02d}.png",
            f"{rng.integers(50):02d}",
            patient=f"p{patients[i]}" if patients[i] < 20 else None,
        )
        for i in range(count)
    ]
    pairs = np.sort(rng.integers(count, size=(10, 2)), axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    pairs_by_hand = {tuple(pair) for pair in pairs.tolist()}
    together = list(range(count))
    for _ in range(count):  # each image takes the least number of what it is linked to
        for i, one in enumerate(files):
            for j, other in enumerate(files):
                same_patient = one.patient is not None and one.patient == other.patient
                if one.sha256 == other.sha256 or same_patient or (i, j) in pairs_by_hand:
                    together[i] = together[j] = min(together[i], together[j])

    names = group(files, pairs)

    assert partition(names) == partition([str(number) for number in together])
    for positions in partition(names):
        assert {names[i] for i in positions} == {min(files[i].sha256 for i in positions)}


def test_pattern_names_the_patient_in_the_path():
    files = [image(f"a/P{p}_slice{i}.png") for p in (1, 2) for i in (1, 2)]
    files.append(image("b/P1_slice9.png"))

    names = group(files, settings=by_pattern(r"P(\d+)_"))

    assert partition(names) == {frozenset({0, 1, 4}), frozenset({2, 3})}


def test_pattern_sees_the_folders_below_the_source_and_none_above():
    files = [image(f"a/anna/{i}.png", f"a{i}") for i in (1, 2)]
    files += [image("a/berta/1.png", "b1")]

    names = group(files, settings=by_pattern(r"^a/(\w+)/"))

    assert partition(names) == {frozenset({0, 1}), frozenset({2})}
    with pytest.raises(DataError, match=r"finds no patient in 'a/anna/1\.png'"):
        group(files, settings=by_pattern(r"data/(\w+)/"))


def test_pattern_keeps_copies_of_other_patients_together_too():
    files = [image("a/P1_1.png", "x"), image("a/P1_2.png"), image("a/P2_1.png", "x")]

    assert len(set(group(files, settings=by_pattern(r"(P\d)")))) == 1


def test_pattern_that_finds_nobody_in_a_path_is_refused_by_name():
    files = [image("a/P1.png"), image("b/other.png")]

    with pytest.raises(
        DataError, match=r"split\.pattern 'P.*' finds no patient in 'b/other\.png'.*correct it"
    ):
        group(files, settings=by_pattern(r"P(\d)"))


def test_pattern_whose_group_takes_no_part_is_refused():
    with pytest.raises(DataError, match=r"finds no patient in 'a/x1\.png'"):
        group([image("a/P1.png"), image("a/x1.png")], settings=by_pattern(r"(?:P(\d)|x)"))


def test_pattern_that_finds_an_empty_name_is_refused():
    with pytest.raises(DataError, match=r"finds no patient in 'a/x1\.png'"):
        group([image("a/x1.png"), image("a/y2.png")], settings=by_pattern(r"(\d*)"))


def runs(names: list[str], run_length: int = 10) -> set[frozenset[int]]:
    return partition(neighbour_runs(tuple(image(name) for name in names), run_length))


def test_neighbours_by_the_last_number_in_the_name():
    # By hand, in runs of ten: 8 and 9; 10 and 19; 20.
    names = [f"a/scan2_{i}.png" for i in (8, 9, 10, 19, 20)]

    assert runs(names) == {frozenset({0, 1}), frozenset({2, 3}), frozenset({4})}


def test_neighbours_are_natural_numbers_and_not_text():
    names = [f"a/{i}.png" for i in (1, 2, 10, 11, 100)]

    assert runs(names) == {frozenset({0, 1}), frozenset({2, 3}), frozenset({4})}


def test_zeros_before_a_number_change_nothing():
    assert runs(["a/s_007.png", "a/s_8.png", "a/s_0012.png"]) == {frozenset({0, 1}), frozenset({2})}


def test_text_behind_the_number_parts_series():
    names = ["a/7 left.png", "a/8 left.png", "a/7 right.png"]

    assert runs(names) == {frozenset({0, 1}), frozenset({2})}


def test_only_the_last_of_several_numbers_counts():
    names = ["a/7_t1.png", "a/7_t2.png", "a/8_t1.png"]

    assert runs(names) == {frozenset({0, 1}), frozenset({2})}


def test_series_of_several_names_folders_and_classes_stay_apart():
    names = ["a/x_1.png", "a/x_2.png", "a/y_1.png", "b/x_1.png", "a/sub/x_1.png"]

    assert runs(names) == {frozenset({0, 1}), *(frozenset({i}) for i in (2, 3, 4))}


def test_neighbours_of_one_folder_stay_together_whatever_their_classes():
    files = tuple(
        ImageFile(ROOT / f"scans/{i}.png", str(i), "tumour" if 3 < i < 7 else "clear")
        for i in range(20)
    )

    assert partition(neighbour_runs(files, 10)) == {
        frozenset(range(10)),
        frozenset(range(10, 20)),
    }


def test_names_without_a_number_have_no_neighbour():
    assert len(runs(["a/left.png", "a/right.png", "b/left.png"])) == 3


def test_run_length_is_how_many_numbers_a_run_has():
    names = [f"a/{i}.png" for i in range(60)]

    assert [len(run) for run in runs(names, 30)] == [30, 30]
    assert sorted(len(run) for run in runs(names, 25)) == [10, 25, 25]


def test_file_that_is_added_moves_no_other_to_another_run():
    names = [f"a/{i}.png" for i in range(0, 200, 3)]
    before = neighbour_runs(tuple(image(name) for name in names), 10)
    more = [*names, "a/0001.png", "a/100.png", "a/other_1.png", "b/5.png"]

    after = neighbour_runs(tuple(image(name) for name in sorted(more)), 10)

    run_of = dict(zip(sorted(more), after, strict=True))
    assert [run_of[name] for name in names] == before


def test_parts_of_a_file_are_neighbours_by_their_number():
    # Rows 0 to 24 of an archive, of one class: 0-9, 10-19, 20-24.
    files = tuple(ImageFile(ROOT / "set.npz", str(frame), "0", frame=frame) for frame in range(25))

    assert sorted(len(run) for run in partition(neighbour_runs(files, 10))) == [5, 10, 10]


def test_rows_of_an_archive_are_neighbours_whatever_their_classes():
    files = tuple(ImageFile(ROOT / "set.npz", str(i), str(i % 2), frame=i) for i in range(15))

    assert sorted(len(run) for run in partition(neighbour_runs(files, 10))) == [5, 10]


def test_files_named_by_numbers_and_dots_are_neighbours_by_the_last_number():
    assert runs([f"a/1.2.840.7.{i}" for i in (1, 2, 15)]) == {frozenset({0, 1}), frozenset({2})}


def test_groups_by_neighbours_hold_copies_and_patients_too():
    files = [image(f"a/{i:02d}.png") for i in (1, 2, 11, 12, 21, 31)]
    files[5] = image("a/31.png", patient="p")
    files.append(image("b/99.png", patient="p"))

    names = group(files, [[1, 2]], NEIGHBOURS)

    assert names == ["01", "01", "01", "01", "21", "31", "31"]


def test_other_ways_of_grouping_ignore_neighbours():
    files = [image(f"a/P{i}.png") for i in (1, 2)]

    assert group(files) == ["P1", "P2"]
    assert group(files, settings=by_pattern(r"(P\d)")) == ["P1", "P2"]
