"""`kerasmed init`: an experiment file for a user's images, which the other commands run."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import textures
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.study.config import load_config

pytest_plugins = ["cli_fixtures"]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(*names: str, size: int = 64, seed: int = 0) -> list[Path]:
    """Unrelated images with these names."""
    paths = list(map(Path, names))
    for path, pixels in zip(paths, textures(len(paths), seed, size), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return paths


def write_set(folder: str = "scans", per_class: int = 12) -> list[Path]:
    return write(*(f"{folder}/{name}/{i}.png" for name in "ab" for i in range(per_class)))


def write_xrays() -> None:
    """Names as in a known set of chest X-rays: some hold a patient with several images."""
    ill = [f"ill/person{p}_bacteria_{3 * p + i}.png" for p in range(20) for i in range(3)]
    well = [f"well/NORMAL2-IM-{i:04d}-0001.png" for i in range(30)]
    write(*(f"xrays/{name}" for name in ill + well))


def write_table(patients: list[str]) -> None:
    paths = write_set()
    with Path("scans.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "label", "patient"])
        rows = zip(paths, patients, strict=True)
        table.writerows([path, path.parent.name, patient] for path, patient in rows)


def test_file_of_xrays_names_the_patients_and_other_commands_run_it(capsys):
    write_xrays()

    assert main(["init", "xrays"]) == 0

    printed = capsys.readouterr().out
    assert "90 images of 2 classes: ill 60, well 30." in printed
    assert "60 of 90 paths seem to name 20 patients. The other 30 files" in printed
    assert "  person0: ill/person0_bacteria_0.png, ill/person0_bacteria_1.png" in printed
    assert "all grey" in printed
    config = load_config(Path("xrays.yaml"))
    assert config.name == "xrays"
    assert config.split.pattern == r"(person\d+|[^/]+$)[^/]*$"
    assert config.split.train == 0.6
    assert config.data.image_size == 64
    text = Path("xrays.yaml").read_text()
    assert "#   person0: ill/person0_bacteria_0.png" in text
    assert text.count("CHECK") == 3
    assert max(map(len, text.splitlines())) <= 100

    assert main(["data", "check", "xrays.yaml"]) == 0
    assert "Patients: 50" in capsys.readouterr().out
    assert Path("runs/check-xrays/check.html").exists()
    assert main(["data", "split", "xrays.yaml"]) == 0
    assert "50 groups, the largest of 3 images" in capsys.readouterr().out


def test_file_of_a_set_without_patients_says_how_to_name_them(capsys):
    write_set()

    assert main(["init", "scans", "--out", "experiments/mine.yaml"]) == 0

    config = load_config(Path("experiments/mine.yaml"))
    assert (config.split.group_by, config.split.pattern) == ("patient", None)
    text = Path("experiments/mine.yaml").read_text()
    assert "Patients: none named." in text
    assert "#   pattern: '/(P" in text
    assert "too few groups of images to measure" in capsys.readouterr().out
    assert config.data.symmetry == "none"


def test_symmetry_is_measured():
    write_set(per_class=100)

    assert main(["init", "scans"]) == 0

    assert load_config(Path("scans.yaml")).data.symmetry == "dihedral"


def test_patients_of_a_table_are_trusted_but_not_a_placeholder(capsys):
    write_table([str(i // 2) for i in range(24)])
    assert main(["init", "scans.csv"]) == 0
    assert "Patients: 12, named by the table" in capsys.readouterr().out
    assert load_config(Path("scans.yaml")).split.patient == "together"

    write_table(["ANONYMOUS"] * 24)
    assert main(["init", "scans.csv", "--out", "other.yaml"]) == 0
    assert "counts as a placeholder" in capsys.readouterr().out
    assert load_config(Path("other.yaml")).split.patient == "ignore"
    assert main(["data", "split", "other.yaml"]) == 0


def test_archive_of_small_images():
    pixels = textures(24, 0, 28)[..., 0]
    np.savez("small.npz", train_images=pixels, train_labels=np.arange(24) % 2)

    assert main(["init", "small.npz"]) == 0

    config = load_config(Path("small.yaml"))
    assert config.data.image_size == 32
    assert main(["data", "split", "small.yaml"]) == 0


@pytest.mark.parametrize("layout", ["{subset}/{name}", "{name}/{subset}"])
def test_divided_set_is_merged(layout, capsys):
    names = [
        layout.format(name=name, subset=subset) for name in "ab" for subset in ("train", "test")
    ]
    write(*(f"scans/{name}/{i}.png" for name in names for i in range(6)))

    assert main(["init", "scans"]) == 0

    assert "The set has its own split (train 12, test 12)" in capsys.readouterr().out.replace(
        "test 12, train 12", "train 12, test 12"
    )
    assert load_config(Path("scans.yaml")).data.official_split == "merge"
    assert main(["data", "split", "scans.yaml"]) == 0


def test_grey_range_of_deep_files_and_settings_that_were_given(capsys):
    for name in "ab":
        Path("scans", name).mkdir(parents=True)
        for i, pixels in enumerate(textures(12, ord(name), 64)):
            Image.fromarray(pixels[..., 0].astype(np.uint16) * 16).save(f"scans/{name}/{i}.png")

    given = ["--set", "data.nan_value=5", "--set", "data.image_size=128"]
    assert main(["init", "scans", *given]) == 0

    assert "Grey values: " in capsys.readouterr().out
    assert "  # grey_range: [" in Path("scans.yaml").read_text()
    data = load_config(Path("scans.yaml")).data
    assert (data.nan_value, data.image_size, data.grey_range) == (5, 128, None)


def test_unreadable_files_are_left_out_and_counted(capsys):
    write_set()
    Path("scans/a/3.png").write_bytes(b"no image")

    assert main(["init", "scans"]) == 0

    assert "Unreadable: 1 file, such as: " in capsys.readouterr().out
    assert load_config(Path("scans.yaml")).data.on_bad_image == "skip"
    assert main(["data", "split", "scans.yaml"]) == 0


def test_a_set_that_cannot_be_divided_is_described_with_the_reason(capsys):
    write_set(per_class=3)

    assert main(["init", "scans"]) == 0

    assert "Note: a study cannot use the set as it is. Class 'a' has 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["my scans: new", "it's #1", 'a "b"', "ébène 😀", "./- x", "a\nb: c"]
)
def test_names_of_any_kind(name):
    write_set(f"{name}/{name}")
    shutil.move(f"{name}/{name}/a", f"{name}/{name}/{name}")

    assert main(["init", f"{name}/{name}", "--out", "new.yaml"]) == 0

    assert load_config(Path("new.yaml")).data.source == Path(name, name)
    assert main(["init", f"{name}/{name}"]) == 0


def test_bad_input_is_one_line(refused):
    assert "Nothing at nowhere" in refused("init", "nowhere")
    Path("empty").mkdir()
    refused("init", "empty")
    write("one/a/0.png")
    assert "two" in refused("init", "one")
    Path("bad/a").mkdir(parents=True)
    Path("bad/b").mkdir()
    for path in ("bad/a/0.png", "bad/b/0.png"):
        Path(path).write_bytes(b"no image")
    assert "No image of bad can be read" in refused("init", "bad")
    assert not list(Path().glob("*.yaml"))


def test_existing_file_is_kept(refused):
    write_set()
    Path("scans.yaml").write_text("mine")

    assert "scans.yaml exists: expected a new file" in refused("init", "scans")

    assert Path("scans.yaml").read_text() == "mine"


def test_only_settings_of_the_images_can_be_given(refused):
    write_set()

    assert "--set with kerasmed init takes data.*" in refused("init", "scans", "--set", "seed=3")
    assert "unknown key" in refused("init", "scans", "--set", "data.colour=red")


def test_data_check_needs_images(refused, tiny_config):
    assert "names no images to check" in refused("data", "check", tiny_config)
