"""What a receiver's check finds in a release."""

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kerasmed.cli.main import main
from kerasmed.data.marks import mark_of, write_marked_png
from kerasmed.errors import StageError
from kerasmed.files import sha256_of
from kerasmed.study.release.check import check_release
from kerasmed.study.release.write import release
from kerasmed.study.run_folder import RunFolder


@pytest.fixture(scope="module")
def released(tiny_run, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("released")
    for image_format in ("png", "dicom"):
        release(RunFolder(tiny_run), folder / image_format, image_format)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def copy(released, tmp_path):
    return lambda image_format="png": Path(
        shutil.copytree(released[image_format], tmp_path / image_format)
    )


def first(folder: Path) -> Path:
    return sorted((folder / "images").rglob("*.*"))[0]


def sum_again(folder: Path) -> None:
    """Checksums that fit, as somebody would write who hides a change."""
    lines = [
        f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "SHA256SUMS"
    ]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).copy()


@pytest.mark.parametrize("image_format", ["png", "dicom"])
def test_release_as_it_was_written_is_in_order(released, image_format, capsys):
    assert check_release(released[image_format]) == []
    assert main(["release", "--check", str(released[image_format])]) == 0
    assert "are in order" in capsys.readouterr().out


def test_changed_pixel_is_found(copy):
    folder = copy()
    path = first(folder)
    mark, pixels = mark_of(path), pixels_of(path)
    pixels[0, 0, 0] ^= 1
    write_marked_png(path, pixels, mark)
    name = path.relative_to(folder).as_posix()
    assert check_release(folder) == [f"{name}: changed since the release"]


def test_missing_and_added_files_are_found(copy):
    folder = copy()
    path = first(folder)
    name = path.relative_to(folder).as_posix()
    path.unlink()
    (folder / "notes.txt").write_text("hello")
    assert check_release(folder) == [
        f"{name}: listed in SHA256SUMS and missing",
        "notes.txt: not listed in SHA256SUMS",
        f"{name}: in labels.csv, and missing",
    ]


def unmark(path: Path) -> None:
    Image.fromarray(pixels_of(path)).save(path)


def name_a_patient(path: Path) -> None:
    mark, info = mark_of(path), PngInfo()
    write_marked_png(path, pixels_of(path), mark)
    with Image.open(path) as image:
        for key in ("XML:com.adobe.xmp", "Software", "DigitalSourceType", "SyntheticSet"):
            info.add_itxt(key, image.info[key])
        info.add_text("SyntheticIndex", mark.number)
        info.add_text("Patient", "Jane Doe")
        image.load()
        image.save(path, pnginfo=info)


def add_exif(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
        exif = image.getexif()
        exif[0x010F] = "Scanner of Ward 3"
        info = PngInfo()
        for key, value in image.info.items():
            info.add_itxt(str(key), str(value))
        image.save(path, pnginfo=info, exif=exif)


def number_twice(path: Path) -> None:
    other = sorted(path.parent.iterdir())[1]
    write_marked_png(path, pixels_of(path), mark_of(other))


def of_another_set(path: Path) -> None:
    write_marked_png(path, pixels_of(path), mark_of(path)._replace(set_id="0" * 16))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (unmark, "not marked as synthetic"),
        (name_a_patient, "holds metadata that a release does not write: Patient"),
        (add_exif, "holds metadata that a release does not write: EXIF"),
        (number_twice, "has the number of"),
        (of_another_set, "marked as of the set 0000000000000000, expected"),
        (cut, "not readable"),
    ],
)
def test_image_that_was_tampered_with_is_found_though_the_sums_fit(copy, act, problem):
    folder = copy()
    act(first(folder))
    sum_again(folder)
    (line,) = check_release(folder)
    assert problem in line


@pytest.mark.parametrize(
    ("element", "value", "problem"),
    [
        ("PatientName", "Doe^Jane", "does not write: PatientName"),
        ("PatientBirthDate", "19700101", "does not write: PatientBirthDate"),
        ("StudyDescription", "Jane Doe 1970", "does not write: StudyDescription"),
        ("InstitutionName", "Ward 3", "does not write: InstitutionName"),
        ("SyntheticData", "NO", "not marked as synthetic"),
    ],
)
def test_dicom_that_was_tampered_with_is_found(copy, element, value, problem):
    folder = copy("dicom")
    dataset = pydicom.dcmread(first(folder))
    setattr(dataset, element, value)
    dataset.save_as(first(folder))
    sum_again(folder)
    (line,) = check_release(folder)
    assert problem in line


@pytest.mark.parametrize(
    "path", ["/home/jane/scans", "C:\\Users\\jane", "file://x", "\\\\server\\ward"]
)
def test_planted_path_is_found(copy, path):
    folder = copy()
    card = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps({**card, "made_in": path}))
    (folder / "CLAIM.md").write_text((folder / "CLAIM.md").read_text() + f"\nSee {path}.")
    sum_again(folder)
    lines = check_release(folder)
    assert any(line.startswith("CLAIM.md: names a path") for line in lines)
    if "/" in path:
        assert any(line.startswith("provenance.json: names a path") for line in lines)


def test_nested_and_missing_elements_of_dicom_are_found(copy):
    folder = copy("dicom")
    one, two = sorted((folder / "images").rglob("*.dcm"))[:2]
    dataset = pydicom.dcmread(one)
    dataset.ContributingEquipmentSequence[0].InstitutionName = "Ward 3"
    dataset.save_as(one)
    dataset = pydicom.dcmread(two)
    del dataset.PatientID
    dataset.save_as(two)
    sum_again(folder)
    lines = check_release(folder)
    assert any("does not write: ContributingEquipmentSequence" in line for line in lines)
    assert any(line.startswith(two.relative_to(folder).as_posix()) for line in lines)


def test_changed_text_of_a_mark_and_foreign_files_are_found(copy):
    folder = copy()
    path = first(folder)
    mark, info = mark_of(path), PngInfo()
    with Image.open(path) as image:
        info.add_itxt(
            "XML:com.adobe.xmp", image.info["XML:com.adobe.xmp"].replace("rdf:about", "x")
        )
        for key in ("Software", "DigitalSourceType", "SyntheticSet", "SyntheticIndex"):
            info.add_text(key, image.info[key])
        image.load()
        image.save(path, pnginfo=info)
    assert mark_of(path) == mark
    (folder / "images" / ".DS_Store").write_bytes(b"\xff")
    (folder / "labels.csv").write_bytes((folder / "labels.csv").read_bytes() + b"\xff\xfe\n")
    sum_again(folder)
    lines = check_release(folder)
    assert any("does not write: XML:com.adobe.xmp" in line for line in lines)
    assert "images/.DS_Store: not an image that a release writes" in lines


def test_missing_and_broken_cards_are_found(copy):
    folder = copy()
    (folder / "SCORECARD.md").unlink()
    (folder / "croissant.json").write_text("{")
    sum_again(folder)
    lines = check_release(folder)
    assert lines[:2] == ["SCORECARD.md: missing", "croissant.json: not readable as JSON"]


def test_problems_end_with_exit_code_2(copy, capsys):
    folder = copy()
    first(folder).unlink()
    assert main(["release", "--check", str(folder)]) == 2
    printed = capsys.readouterr()
    assert "listed in SHA256SUMS and missing" in printed.out
    assert "2 problems; ask the sender" in printed.err


def test_folder_that_is_no_release_is_refused(tmp_path):
    with pytest.raises(StageError, match="expected a folder that `kerasmed release` wrote"):
        check_release(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["release", "run"], "takes RUN and DIR, or --check DIR"),
        (["release", "run", "--check", "x"], "--check takes one folder and nothing else"),
        (["release", "--format", "dicom", "--check", "x"], "--check takes one folder and nothing"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
