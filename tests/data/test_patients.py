"""Patients in the paths of files: found where the names repeat, and nowhere else."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from kerasmed.data.patients import find_patient_pattern


def files(form: Callable[[int, int], str], patients: int = 30, images: int = 4) -> list[str]:
    """The path of each image of each patient."""
    return [form(patient, image) for patient in range(patients) for image in range(images)]


def label(patient: int) -> str:
    return "ab"[patient % 2]


def found(paths: list[str]):
    return find_patient_pattern(paths, [path.split("/")[0] for path in paths])


NAMED = {
    "chest X-rays": (lambda p, i: f"a/person{p}_{('virus', 'bacteria')[p % 2]}_{9 * p + i}.jpeg",
                     r"(person\d+)[^/]*$"),
    "number and running number": (lambda p, i: f"{label(p)}/{p:08d}_{i:03d}.png",
                                  r"(\d+)[^/]*$"),
    "a cohort before the patient": (lambda p, i: f"{label(p)}/OAS1_{p:04d}_MR1_mpr-1_{i}.jpg",
                                    r"(OAS1_\d+)[^/]*$"),
    "a subtype and a year before": (
        lambda p, i: f"{label(p)}/SOB_{'BM'[p % 2]}_{'AFPT'[p % 4]}-14-{2200 + p}AB-40-{i}.png",
        r"(SOB_[A-Za-z]+_[A-Za-z]+-14-\d+)[^/]*$"),
    "no separators": (lambda p, i: f"{label(p)}/p{p}s{i}.png", r"(p\d+)[^/]*$"),
    "surnames": (lambda p, i: f"{label(p)}/{chr(97 + p // 26)}{chr(97 + p % 26)} {i}.png",
                 r"([A-Za-z]+)[^/]*$"),
    "special characters": (lambda p, i: f"{label(p)}/case ({p}) [{i}].nii.gz",
                           r"(case \(\d+)[^/]*$"),
    "folders": (lambda p, i: f"{label(p)}/patient {p}/{i}.png", "([^/]+)/[^/]+$"),
    "folders of scans": (lambda p, i: f"{label(p)}/{p}/scan{i % 2}/{i}.png",
                         "([^/]+)/[^/]+/[^/]+$"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_pattern_of_patients_who_are_named(name):
    form, pattern = NAMED[name]
    paths = files(form)

    patients = found(paths)

    assert patients.pattern == pattern
    assert (patients.patients, patients.named, patients.files) == (30, 120, 120)
    names = [re.search(pattern, path)[1] for path in paths]
    assert len(set(names)) == 30
    assert all(names[4 * p : 4 * p + 4] == 4 * [names[4 * p]] for p in range(30))
    assert len(patients.examples) == 3
    for patient, examples in patients.examples:
        assert [re.search(pattern, path)[1] for path in examples] == [patient, patient]


RANDOM = np.random.default_rng(0)
UNNAMED = {
    "running numbers": lambda p, i: f"{label(p)}/{4 * p + i}.png",
    "class and running number": lambda p, i: f"{label(p)}/WBC-{label(p)}-{4 * p + i}.jpg",
    "running number in parentheses": lambda p, i: f"{label(p)}/Covid ({4 * p + i}).png",
    "random numbers": lambda p, i: f"{label(p)}/BA_{RANDOM.integers(10**6)}.jpg",
    "hashes": lambda p, i: f"{label(p)}/{RANDOM.bytes(8).hex()}.png",
    "short hashes": lambda p, i: f"{label(p)}/{RANDOM.bytes(3).hex()}.png",
    "each its own": lambda p, i: f"{label(p)}/IM-{4 * p + i:04d}-0001.jpeg",
    "dates": lambda p, i: f"{label(p)}/IMG_201506{1 + p % 28:02d}_{4 * p + i}.jpg",
    "dates with dashes": lambda p, i: f"{label(p)}/2015-{1 + p % 12:02d}-01 {4 * p + i}.jpg",
    "few views": lambda p, i: f"{label(p)}/{'LR'[i % 2]}_{4 * p + i}.jpg",
    "folders of magnifications": lambda p, i: f"{label(p)}/{i}X/{p}.png",
    "other scripts": lambda p, i: f"{label(p)}/ébène{4 * p + i}.png",
}  # fmt: skip


@pytest.mark.parametrize("name", UNNAMED)
def test_no_pattern_without_patients(name):
    assert found(files(UNNAMED[name])) is None


def test_files_without_a_patient_are_patients_of_their_own():
    paths = files(lambda p, i: f"ill/person{p}_bacteria_{9 * p + i}.jpeg")
    paths += [f"well/IM-{i:04d}-0001.jpeg" for i in range(40)]
    paths += [f"well/NORMAL2-IM-{i:04d}-0001.jpeg" for i in range(40)]

    patients = found(paths)

    assert patients.pattern == r"(person\d+|[^/]+$)[^/]*$"
    assert (patients.patients, patients.named, patients.files) == (30, 120, 200)
    names = [re.search(patients.pattern, path)[1] for path in paths]
    assert names[120:] == [path.split("/")[1] for path in paths[120:]]


def test_forms_of_several_kinds_are_joined():
    paths = files(lambda p, i: f"ill/person{p}_bacteria_{9 * p + i}.jpeg")
    paths += files(lambda p, i: f"well/IM-{p:04d}-0001-{i:04d}.jpeg")
    paths += [f"well/IM-{i:04d}-0001.jpeg" for i in range(40, 50)]

    patients = found(paths)

    assert patients.pattern == r"(person\d+|IM-\d+)[^/]*$"
    assert (patients.patients, patients.named) == (70, 250)


def test_patients_of_several_classes_are_counted():
    paths = files(lambda p, i: f"{'ab'[i % 2]}/patient{p}_{i}.png")

    assert found(paths).in_several_classes == 30


def test_a_pattern_for_few_of_the_files_is_left_out():
    paths = files(lambda p, i: f"a/person{p}_{i}.png", patients=10)
    paths += [f"b/{i}.png" for i in range(200)]

    assert found(paths) is None


def test_no_files_have_no_pattern():
    assert find_patient_pattern([], []) is None
