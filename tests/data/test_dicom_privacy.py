"""Nothing in a DICOM header that identifies a patient reaches an output."""

import json
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from dicom_files import (
    FRAMES,
    IDENTITY,
    compressed,
    dataset_of,
    pictures,
    refusal,
    row_of,
    with_bytes,
    write_dicom,
)
from pydicom import uid

from kerasmed.cli.main import main
from kerasmed.data.config import DataConfig
from kerasmed.data.image_set import read_images
from kerasmed.data.measuring import read_measurements

SECRETS = ("SECRET", "19370405", "777777777")
NAMED = {
    "PatientName": "SECRET^NAME",
    "PatientBirthDate": "19370405",
    "InstitutionName": "SECRET HOSPITAL",
    "PatientAddress": "SECRET STREET",
}


def leaks(content: bytes) -> list[str]:
    """Secrets that are in it, also as NumPy stores text."""
    encodings = ("utf-8", "utf-16-le", "utf-32-le")
    return [word for word in SECRETS for code in encodings if word.encode(code) in content]


def leaks_below(folder: Path) -> dict[str, list[str]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    leaked = {str(path): leaks(path.read_bytes()) for path in files}
    return {path: words for path, words in leaked.items() if words}


def test_leaks_are_found():
    assert leaks(b"a SECRET") == ["SECRET"]
    assert leaks(np.array(["x 19370405"]).tobytes()) == ["19370405"]
    assert leaks(b"secret") == []


PATIENTS, EACH = 8, 2


def write_patients(folder: Path, with_id: bool = True) -> dict[str, int]:
    """Images of eight people in both classes, and whose each file is."""
    rng = np.random.default_rng(0)
    owners = {}
    for patient in range(PATIENTS):
        for class_name in ("sick", "well"):
            for number in range(EACH):
                pixels = rng.integers(0, 4096, (8, 8), dtype=np.uint16)
                dataset = dataset_of(pixels, **NAMED, StudyInstanceUID=f"1.777777777.{patient}")
                dataset.PatientID = f"SECRET {patient}" if with_id else "  "
                path = write_dicom(dataset, folder / class_name / f"1.2.{len(owners)}")
                owners[str(path)] = patient
                assert leaks(path.read_bytes()), number
    return owners


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("patients") / "set"
    return folder, write_patients(folder)


def split(folder: Path, out: Path, **data: Any) -> dict[str, Any]:
    """What `kerasmed data split` writes for a folder."""
    config = out.with_suffix(".yaml")
    values = {
        "name": "x",
        "data": {"source": "x", "image_size": 32, **data},
        "split": {"train": 0.4, "test": 0.2, "near_duplicate_bits": None},
    }
    config.write_text(yaml.safe_dump(values))
    assert main(["data", "split", str(config), "--data", str(folder), "--out", str(out)]) == 0
    return json.loads((out / "split.json").read_text())


@pytest.mark.parametrize("with_id", [True, False], ids=["PatientID", "StudyInstanceUID"])
def test_nobody_crosses_roles_or_is_named(tmp_path, capfd, with_id):
    owners = write_patients(tmp_path / "set", with_id)

    files = split(tmp_path / "set", tmp_path / "run")["files"]

    roles, groups = defaultdict(set), defaultdict(set)
    for file in files:
        roles[owners[file["path"]]].add(file["role"])
        groups[file["group"]].add(owners[file["path"]])
    assert len(files) == len(owners) == 32
    assert [len(roles[patient]) for patient in range(PATIENTS)] == [1] * PATIENTS
    assert sorted(map(list, groups.values())) == [[patient] for patient in range(PATIENTS)]
    assert leaks_below(tmp_path / "set")
    assert leaks_below(tmp_path / "run") == {}
    assert leaks("".join(capfd.readouterr()).encode()) == []


def test_nobody_is_named_in_the_caches(tmp_path, patients):
    folder, owners = patients
    data = DataConfig(source=folder, image_size=16, grey_range=(0, 4095))

    images = read_images(data, tmp_path / "run" / "images")
    measurements = read_measurements(data, tmp_path / "run" / "measurements")

    whose = [owners[str(file.path)] for file in images.files]
    for pseudonyms in ([file.patient for file in images.files], measurements.patients.tolist()):
        assert len(set(pseudonyms)) == len(set(zip(pseudonyms, whose, strict=True))) == PATIENTS
    assert leaks_below(tmp_path / "run") == {}


def test_patients_cannot_be_recognised_from_one_run_to_the_next(tmp_path, patients):
    data = DataConfig(source=patients[0], image_size=16, grey_range=(0, 4095))

    runs = [read_images(data, tmp_path / name) for name in ("one", "two")]

    first, second = ({str(file.patient) for file in run.files} for run in runs)
    assert len(first) == len(second) == PATIENTS
    assert not first & second


def test_images_of_nobody_are_not_put_together(tmp_path):
    for name in ("x", "y"):
        dataset = dataset_of(FRAMES[0] + ord(name), PatientID="", StudyInstanceUID="")
        write_dicom(dataset, tmp_path / "set" / name / "a.dcm")

    images = read_images(
        DataConfig(source=tmp_path / "set", grey_range=(0, 4095)), tmp_path / "cache"
    )

    assert [file.patient for file in images.files] == [None, None]


def test_patient_of_the_table_goes_before_that_of_the_header(tmp_path):
    rows = ["path,label,patient"]
    for number, name in enumerate(("x", "y", "y")):
        dataset = dataset_of(FRAMES[number], PatientID=f"SECRET {number}")
        write_dicom(dataset, tmp_path / "files" / f"{number}.dcm")
        rows.append(f"files/{number}.dcm,{name},{min(number, 1)}")
    (tmp_path / "set.csv").write_text("\n".join(rows))

    images = read_images(
        DataConfig(source=tmp_path / "set.csv", grey_range=(0, 4095)), tmp_path / "cache"
    )

    first, second, third = (file.patient for file in images.files)
    assert first != second == third


# What makes a file unreadable: elements that a value is written into, which pydicom would not
# write, and where the file is cut off.
BROKEN: dict[str, tuple[dict[str, Any], bytes]] = {
    "frames": ({"NumberOfFrames": "12345678"}, b"12345678"),
    "window": ({"WindowCenter": "12345678", "WindowWidth": 9}, b"12345678"),
    "slope": ({"RescaleSlope": "12345678", "RescaleIntercept": 0}, b"12345678"),
    "interpretation": ({"PhotometricInterpretation": "ABCDEFGH"}, b"ABCDEFGH"),
    "syntax": ({}, b"1.2.840.10008.1.2.1\0"),
}


def write_broken(path: Path, what: str) -> Path:
    dataset = dataset_of(np.ones((8, 8), np.uint16), **NAMED, PatientID="SECRET ID")
    if what == "cut":
        path = write_dicom(dataset, path)
        path.write_bytes(path.read_bytes()[:-9])
    elif what == "cut in the name":
        content = write_dicom(dataset, path).read_bytes()
        path.write_bytes(content[: content.index(b"^NAME") + 3])
    elif what == "no pixels":
        del dataset.PixelData
        write_dicom(dataset, path)
    elif what == "compression":
        write_dicom(compressed(dataset, uid.MPEG2MPML, b"SECRET"), path)
    elif what == "rubbish in JPEG":
        write_dicom(compressed(dataset, uid.JPEGBaseline8Bit, b"SECRET"), path)
    else:
        header, old = BROKEN[what]
        for name, value in header.items():
            setattr(dataset, name, value)
        with_bytes(write_dicom(dataset, path), old, b"SECRET".ljust(len(old)))
    return path


READ = ["frames", "window", "slope"]  # what decoding does not need
CASES = [*BROKEN, "cut", "cut in the name", "no pixels", "compression", "rubbish in JPEG"]


@pytest.mark.parametrize("what", [case for case in CASES if case != "syntax"])
def test_errors_and_notes_quote_nothing_of_the_header(tmp_path, capfd, what):
    path = write_broken(tmp_path / "a.dcm", what)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if what in READ:
            [picture] = pictures(path)
            message = " ".join(picture.notes)
        else:
            message = refusal(path)

    assert message or what == "frames"
    assert leaks(message.encode()) == []
    assert [leaks(str(warning.message).encode()) for warning in caught] == [[]] * len(caught)
    assert leaks("".join(capfd.readouterr()).encode()) == []


def test_unknown_syntax_is_not_quoted(tmp_path):
    assert leaks(refusal(write_broken(tmp_path / "a.dcm", "syntax")).encode()) == []


def test_skipped_files_are_listed_without_their_headers(tmp_path, capfd):
    write_patients(tmp_path / "set")
    cases = [case for case in CASES if case != "syntax"]
    for number, what in enumerate(cases):
        write_broken(tmp_path / "set" / "sick" / f"bad{number}.dcm", what)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split(tmp_path / "set", tmp_path / "run", on_bad_image="skip")

    skipped = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(b"bad0.dcm" in path.read_bytes() for path in skipped)
    assert leaks_below(tmp_path / "run") == {}
    assert leaks("".join(capfd.readouterr()).encode()) == []


def test_rules_broken_elsewhere_in_the_header_are_not_our_business(tmp_path, capfd):
    header = {"PatientAge": "043Y", "PatientWeight": "123456", "InstanceNumber": "654321", **NAMED}
    path = write_dicom(dataset_of([[0, 64, 255]], **header, **IDENTITY), tmp_path / "a.dcm")
    for old, new in (
        (b"043Y", b"SECR"),
        (b"123456", b"SECRET"),
        (b"654321", b"SECRET"),
        (b"19370405", b"SECRET99"),
    ):
        with_bytes(path, old, new)

    [picture] = pictures(path)

    assert row_of(picture) == [0, 64, 255]
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"ISO_IR 192", b"SECRET 192"), (b"SECRET^NAME", b"SECRET^\xff\xfeME")],
    ids=["character set", "name"],
)
def test_text_that_cannot_be_decoded_is_not_our_business(tmp_path, old, new):
    # pydicom would warn of each such file, and its warning of an unknown character set quotes it.
    header = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "SECRET^NAME", **IDENTITY}
    path = with_bytes(
        write_dicom(dataset_of([[0, 64, 255]], **header), tmp_path / "a.dcm"), old, new
    )

    [picture] = pictures(path)

    assert row_of(picture) == [0, 64, 255]


def test_only_the_patients_id_leaves_the_header(tmp_path):
    path = write_dicom(dataset_of([[1, 2]], **NAMED, PatientID=" SECRET 7 "), tmp_path / "a.dcm")

    [picture] = pictures(path)

    assert picture.patient == "SECRET 7"
    assert picture.kind == "DICOM MONOCHROME2 12 bits"
    assert picture.image.info == {}
