"""What `data check` and `data split` say of a set before anything learns from it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.data.config import DataConfig, SplitConfig
from kerasmed.data.image_set import read_images
from kerasmed.data.measuring import read_measurements
from kerasmed.data.remarks import remarks

RNG = np.random.default_rng(0)
EACH = 12


def noise(most: int = 255, dtype: Any = np.uint8) -> np.ndarray:
    return RNG.integers(0, most + 1, (32, 32)).astype(dtype)


def write(folder: Path, image: Any, per_class: int = EACH) -> Path:
    """A set of two classes; ``image()`` draws an image."""
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(image()).save(folder / name / f"{i}.png")
    return folder


def remarks_on(
    source: Path, cache: Path, split: SplitConfig | None = None, **settings: Any
) -> list[str]:
    data = DataConfig(source=source, image_size=16, **settings)
    measurements = read_measurements(data, cache / "prints")
    return remarks(measurements, measurements.common_range(), data, split or SplitConfig())


@pytest.mark.parametrize("most", [255, 20])
def test_of_a_plain_set_nothing_is_said(tmp_path, most):
    # Also where files of 8 bits hold few levels: nothing of them is lost.
    assert remarks_on(write(tmp_path / "set", lambda: noise(most)), tmp_path) == []


def test_of_12_bits_in_16_nothing_is_lost_by_default(tmp_path):
    source = write(tmp_path / "set", lambda: noise(4095, np.uint16))

    assert remarks_on(source, tmp_path) == []


def test_lost_levels_are_counted_and_the_setting_is_named(tmp_path):
    source = write(tmp_path / "set", lambda: noise(4095, np.uint16))

    [line] = remarks_on(source, tmp_path, grey_range=(0, 65535))

    assert line.startswith(f"{2 * EACH} of {2 * EACH} images keep fewer than 64 grey levels")
    low, high = map(float, line.split("set data.grey_range: [")[1].rstrip("].").split(", "))
    assert low < 50
    assert high > 4045


def test_images_that_are_much_darker_than_the_set_are_counted(tmp_path):
    source = write(tmp_path / "set", lambda: noise(60_000, np.uint16))
    for i in range(4):
        Image.fromarray(noise(3000, np.uint16)).save(source / "a" / f"dark{i}.png")

    [line] = remarks_on(source, tmp_path)

    assert line.startswith(f"4 of {2 * EACH + 4} images keep fewer than 64")


def test_padding_and_markers_are_named_with_a_range_that_helps(tmp_path):
    def with_marker() -> np.ndarray:
        values = noise(900, np.uint16)
        values[:2] = 65535
        return values

    source = write(tmp_path / "set", with_marker)

    [line] = remarks_on(source, tmp_path)

    assert line.startswith("24 of 24 images keep fewer than 64 grey levels")
    low, high = map(float, line.split("set data.grey_range: [")[1].rstrip("].").split(", "))
    assert (low < 30, 850 < high < 1000) == (True, True)
    # Followed, the advice is not given again.
    assert remarks_on(source, tmp_path / "again", grey_range=(low, high)) == []


def test_units_that_differ_are_named_without_a_range_that_harms(tmp_path):
    scales = iter([1, 40] * EACH)
    source = write(tmp_path / "set", lambda: noise(900, np.uint16) * np.uint16(next(scales)))

    [line] = remarks_on(source, tmp_path)

    assert line.startswith("12 of 24 images keep fewer than 64 grey levels")
    assert "data.grey_range can only serve one unit" in line


def test_images_without_any_number_are_shown_black(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(3):
            volume = nibabel.Nifti1Image(np.full((8, 8), np.nan, np.float32), np.eye(4))
            nibabel.save(volume, tmp_path / "set" / name / f"{i}.nii")

    [line] = remarks_on(tmp_path / "set", tmp_path)

    assert line.startswith("6 images: NaN pixels are shown black")


def test_classes_with_the_same_folders_inside_are_named(tmp_path):
    for site in ("hospital A", "hospital B"):
        write(tmp_path / "set" / site, noise, per_class=2)

    [line] = remarks_on(tmp_path / "set", tmp_path)

    assert line.startswith("All class folders hold the same folders inside (a, b)")
    assert remarks_on(tmp_path / "set", tmp_path / "again", official_split="merge")[0].startswith(
        "The set has its own split (train 8)"
    )


def test_a_single_dark_image_is_not_worth_a_line(tmp_path):
    source = write(tmp_path / "set", lambda: noise(60_000, np.uint16))
    Image.fromarray(noise(3000, np.uint16)).save(source / "a" / "dark.png")

    assert remarks_on(source, tmp_path) == []


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (("Benign", "benign"), ["'Benign' (12 images), 'benign' (12 images)"]),
        (("grade_1", "Grade 1"), ["'Grade 1' (12 images), 'grade_1' (12 images)"]),
        (("caf\u00e9", "cafe\u0301"), ["cafe\u0301"]),
        (("grade 1", "grade 2"), []),
        (("+", "-"), []),
        (("HER2+", "HER2-"), []),
        (("grade <3", "grade >3"), []),
        (("stage 1.1", "stage 11"), []),
        (("a$b", "a&b"), []),
    ],
)
def test_classes_that_differ_by_spelling(tmp_path, names, alike):
    write(tmp_path / "set", noise)
    for old, new in zip(("a", "b"), names, strict=True):
        (tmp_path / "set" / old).rename(tmp_path / "set" / new)

    lines = remarks_on(tmp_path / "set", tmp_path)

    assert len(lines) == len(alike)
    assert all(text in line for text, line in zip(alike, lines, strict=True))


def test_spellings_of_a_table(tmp_path):
    write(tmp_path / "set", noise, per_class=4)
    labels = ["Benign", "benign ", "MALIGNANT", "malignant", "Other", "Benign", "benign", "Other"]
    rows = [f"set/{'ab'[i % 2]}/{i // 2}.png,{label}" for i, label in enumerate(labels)]
    (tmp_path / "set.csv").write_text("path,label\n" + "\n".join(rows))

    first, second = remarks_on(tmp_path / "set.csv", tmp_path)

    assert "'Benign' (2 images), 'benign' (2 images)" in first
    assert "'MALIGNANT' (1 image), 'malignant' (1 image)" in second


# Dummies of patients


def table(folder: Path, patients: list[str]) -> Path:
    write(folder / "set", noise, per_class=len(patients) // 2)
    rows = [
        f"set/{'ab'[i % 2]}/{i // 2}.png,{'ab'[i % 2]},{patient}"
        for i, patient in enumerate(patients)
    ]
    (folder / "set.csv").write_text("path,label,patient\n" + "\n".join(rows))
    return folder / "set.csv"


DUMMIES = {
    "all": (["ANONYMOUS"] * 48, "All 48 images name one patient"),
    "nearly all": (["ANONYMOUS"] * 46 + ["p1", "p2"], "46 of 48 images name one patient"),
    "few": (
        ["ANON1", "ANON1", "ANON2", "ANON2", "ANON3", "ANON3"] * 8,
        "The 24 images of class 'a' name only 3 patients",
    ),
    "a class": (
        ["ANON" if i % 2 else f"p{i}" for i in range(48)],
        "All 24 images of class 'b' name one patient",
    ),
}


@pytest.mark.parametrize(("patients", "words"), DUMMIES.values(), ids=DUMMIES)
def test_one_patient_for_all_is_named_with_the_setting(tmp_path, patients, words):
    [line] = remarks_on(table(tmp_path, patients), tmp_path)

    assert line.startswith(words)
    assert "split.patient: ignore" in line


def test_several_patients_are_no_dummy(tmp_path):
    patients = [f"p{i // 6}" for i in range(48)]

    assert remarks_on(table(tmp_path, patients), tmp_path) == []


def test_an_ignored_patient_is_not_spoken_of(tmp_path):
    source = table(tmp_path, ["ANONYMOUS"] * 48)

    assert remarks_on(source, tmp_path, SplitConfig(patient="ignore")) == []


def split(source: Path, run: Path, *assignments: str, near: int | None = None) -> int:
    config = run.with_suffix(".yaml")
    settings = {"train": 0.3, "near_duplicate_bits": near}
    values = {"name": "x", "data": {"source": "x", "image_size": 32}, "split": settings}
    config.write_text(yaml.safe_dump(values))
    sets = [word for assignment in assignments for word in ("--set", assignment)]
    return main(["data", "split", str(config), "--data", str(source), "--out", str(run), *sets])


@pytest.mark.parametrize(("patients", "words"), DUMMIES.values(), ids=DUMMIES)
def test_a_split_that_a_dummy_makes_impossible_says_so(tmp_path, capsys, patients, words):
    source = table(tmp_path, patients)

    assert split(source, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "name one patient" in error or "name only 3 patients" in error
    assert "split.patient: ignore" in error
    assert split(source, tmp_path / "run", "split.patient=ignore") == 0


# The range of a study


def test_the_range_of_a_split_is_that_of_its_training_images(tmp_path, capsys):
    source = write(tmp_path / "set", lambda: noise(900, np.uint16))
    # Brighter than all others, and not learned from.
    assert split(source, tmp_path / "first") == 0
    files = json.loads((tmp_path / "first" / "split.json").read_text())["files"]
    for file in files:
        if file["role"] == "test":
            Image.fromarray(noise(9000, np.uint16)).save(file["path"])
    capsys.readouterr()

    assert split(source, tmp_path / "run") == 0

    result = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["data"]["result"]
    files = json.loads((tmp_path / "run" / "split.json").read_text())["files"]
    trained = [np.array(Image.open(f["path"])) for f in files if f["role"] == "train"]
    wanted = np.percentile(np.stack(trained), (0.1, 99.9))
    assert result["grey_range"] == pytest.approx(wanted.tolist(), abs=0.02 * np.ptp(wanted))
    printed = capsys.readouterr().out
    assert "Grey range of files without one: " in printed
    images = np.load(tmp_path / "run" / "cache" / "real-32.npy")[..., 0]
    shown = [images[i] for i, file in enumerate(files) if file["role"] == "train"]
    for pixels, values in zip(shown, trained, strict=True):
        low, high = result["grey_range"]
        grey = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
        assert np.abs(pixels - grey).max() <= 1


def test_a_range_by_setting_is_the_range(tmp_path):
    source = write(tmp_path / "set", lambda: noise(900, np.uint16))

    assert split(source, tmp_path / "run", "data.grey_range=[0, 1800]") == 0

    images = np.load(tmp_path / "run" / "cache" / "real-32.npy")
    assert images.max() in (127, 128)


def test_8_bits_need_no_range(tmp_path):
    source = write(tmp_path / "set", noise)

    assert split(source, tmp_path / "run") == 0

    result = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["data"]["result"]
    assert result["grey_range"] is None
    data = DataConfig(source=source, image_size=32)
    whole = read_images(data, tmp_path / "cache").images
    np.testing.assert_array_equal(np.load(tmp_path / "run" / "cache" / "real-32.npy"), whole)
