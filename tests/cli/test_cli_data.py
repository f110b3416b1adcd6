"""The commands `kerasmed data`: list, fetch, check, leakage and split."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.data.phantoms import draw_phantom
from kerasmed.errors import DataError
from kerasmed.study.stages import leakage

pytest_plugins = ["cli_fixtures"]

PHANTOMS = ("clear", "ground_glass")


def phantom(class_name: str, index: int) -> np.ndarray:
    return draw_phantom("ct", class_name, index, 24, 0)[0]


def write_folder(root: Path) -> Path:
    for name in PHANTOMS:
        (root / "set" / name).mkdir(parents=True)
        for i in range(24):
            Image.fromarray(phantom(name, i)).save(root / "set" / name / f"{i}.png")
    return root / "set"


def write_table(root: Path, spelling: str = "set/{}", where: str = "set.csv") -> Path:
    """Two images of each class are of one patient, who has the same name in both classes."""
    write_folder(root)
    path = root / where
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "label", "patient"])
        for name in PHANTOMS:
            rows = [(spelling.format(f"{name}/{i}.png"), name, i // 2) for i in range(24)]
            table.writerows(rows)
    return path


def write_npz(root: Path) -> Path:
    images = np.stack([phantom(name, i)[..., 0] for name in PHANTOMS for i in range(24)])
    labels = np.repeat([0, 1], 24)
    path = root / "set.npz"
    np.savez(
        path,
        train_images=images[::2], train_labels=labels[::2],
        test_images=images[1::2], test_labels=labels[1::2],
    )  # fmt: skip
    return path


def test_data_split_on_a_folder(tiny_config, image_folder, tmp_path):
    arguments = ["--data", str(image_folder), "--out", str(tmp_path / "run")]
    assert main(["data", "split", str(tiny_config), *arguments]) == 0
    files = json.loads((tmp_path / "run" / "split.json").read_text())["files"]
    assert len(files) == 24
    assert files[0].keys() == {"path", "sha256", "class", "group", "role"}


@pytest.mark.parametrize(
    ("write", "options", "groups"),
    [
        (write_folder, [], 48),
        (write_table, [], 12),
        (write_npz, [], 48),
        (write_npz, ["--set", "data.class_names=[clear, ground_glass]"], 48),
    ],
)
def test_data_split_from_every_kind_of_source(
    write, options, groups, tiny_config, tmp_path, capsys
):
    source = write(tmp_path)
    arguments = ["--data", str(source), "--out", str(tmp_path / "run"), *options]

    assert main(["data", "split", str(tiny_config), *arguments]) == 0

    result = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["data"]["result"]
    assert list(result["images"].values()) == [24, 24]
    assert result["groups"] == groups
    assert result["patients"] == (12 if source.suffix == ".csv" else None)
    files = json.loads((tmp_path / "run" / "split.json").read_text())["files"]
    roles = {entry["group"]: {entry["role"]} for entry in files}
    for entry in files:
        roles[entry["group"]].add(entry["role"])
    assert len(files) == 48
    assert len(roles) == groups
    assert all(len(of_group) == 1 for of_group in roles.values())
    assert f"{groups} groups, the largest of {48 // groups} images" in capsys.readouterr().out


@pytest.mark.parametrize("spelling", ["../set/../set/{}", "{absolute}/set/{{}}"])
def test_data_split_from_a_table_elsewhere(spelling, tiny_config, tmp_path):
    spelling = spelling.format(absolute=tmp_path) if "absolute" in spelling else spelling
    table = write_table(tmp_path, spelling, where="tables/set.csv")
    arguments = ["--data", str(table), "--out", str(tmp_path / "run")]

    assert main(["data", "split", str(tiny_config), *arguments]) == 0


def test_data_split_prints_roles_and_copies(tiny_config, tmp_path, capsys):
    folder = write_folder(tmp_path)
    shutil.copy(folder / "clear" / "0.png", folder / "clear" / "100.png")
    shutil.copy(folder / "clear" / "1.png", folder / "ground_glass" / "101.png")
    Image.fromarray(phantom("clear", 2)[:, ::-1]).save(folder / "clear" / "102.png")
    (folder / "clear" / "103.png").write_bytes(b"no image")
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run")]

    skip = ["--set", "data.on_bad_image=skip"]
    assert main(["data", "split", str(tiny_config), *arguments, *skip]) == 0

    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["data"]["result"]
    rows = [line.replace("│", "").split() for line in printed.splitlines() if "│" in line]
    assert rows == [
        [name, str(result["images"][name]), *(str(n[name]) for n in result["roles"].values())]
        for name in PHANTOMS
    ]
    assert result["images"] == {"clear": 26, "ground_glass": 25}
    assert all(word in printed for word in ("train", "validation", "test", "reserve"))
    assert "48 groups, the largest of 2 images" in printed
    assert "Copies: 2 with equal bytes, 2 with equal pixels" in printed
    assert "Near-duplicates: 4 images, and 2 more when mirrored or turned" in printed
    assert "With two labels: 1 pairs of equal pixels, 1 near-duplicate pairs" in printed
    assert "  clear/1.png and ground_glass/101.png" in printed.splitlines()
    assert "1 unreadable files left out, such as: " in printed


def test_data_split_prints_classes_whatever_their_names(tiny_config, tmp_path, capsys):
    folder = write_folder(tmp_path)
    (folder / "clear").rename(folder / "[clear]")
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run")]

    assert main(["data", "split", str(tiny_config), *arguments]) == 0

    assert "[clear]" in capsys.readouterr().out


def test_data_split_by_pattern_and_by_neighbours(tiny_config, tmp_path):
    folder = write_folder(tmp_path)

    def groups(name: str, *options: str) -> int:
        out = ["--data", str(folder), "--out", str(tmp_path / name)]
        assert main(["data", "split", str(tiny_config), *out, *options]) == 0
        files = json.loads((tmp_path / name / "split.json").read_text())["files"]
        return len({entry["group"] for entry in files})

    pattern = ["--set", "split.group_by=pattern", "--set", r"split.pattern=^(\w+/\d)"]
    # The first digit of 0 to 23 in each class: ten of them.
    assert groups("pattern", *pattern) == 20
    runs = ["--set", "split.group_by=neighbours", "--set", "split.run_length=5"]
    # 0-4, 5-9, 10-14, 15-19, 20-23 in each class.
    assert groups("runs", *runs) == 10


def test_data_split_refuses_classes_with_too_few_groups(refused, tiny_config, tmp_path):
    folder = write_folder(tmp_path)
    runs = ["--set", "split.group_by=neighbours", "--set", "split.run_length=10"]
    out = ["--data", folder, "--out", tmp_path / "run"]

    line = refused("data", "split", tiny_config, *runs, *out)

    assert "Class 'clear' has 3 groups of images that must stay together" in line
    assert "'test' got none" in line
    assert not (tmp_path / "run" / "split.json").exists()


def test_data_list_tells_what_can_be_fetched(capsys):
    assert main(["data", "list"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in (
        "brain-tumor-mri", "leukemia-all", "sarscov2-ct", "3256", "masoudnickparvar/brain-tumor",
        "Licence", "Benign", "CC BY-NC-SA 4.0",
    ):  # fmt: skip
        assert words.lower() in printed.lower()


def make_copy(folder: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{i}.jpg").touch()
    return folder


def test_data_fetch_takes_a_copy_and_tells_both_counts(tmp_path, capsys):
    copy = make_copy(tmp_path / "copy", Benign=504, Early=985, Pre=963, Pro=803)

    assert main(["data", "fetch", "leukemia-all", "--from", str(copy)]) == 0

    printed = capsys.readouterr().out
    rows = [line.replace("│", "").split() for line in printed.splitlines() if "│" in line]
    assert rows == [
        ["Benign", "504", "504"],
        ["Early", "985", "985"],
        ["Pre", "963", "963"],
        ["Pro", "803", "804"],
    ]
    assert "Fewer images than published" in printed
    assert "10.34740/KAGGLE/DSV/2175623" in printed
    assert f"Next: kerasmed study configs/leukemia_all.yaml --data {copy}" in printed


def test_data_fetch_of_a_whole_copy_warns_of_nothing(tmp_path, capsys):
    copy = make_copy(tmp_path / "Original", Benign=504, Early=985, Pre=963, Pro=804)

    assert main(["data", "fetch", "leukemia-all", "--from", str(tmp_path)]) == 0

    printed = capsys.readouterr().out
    assert "Fewer" not in printed
    assert f"--data {copy}" in printed


def test_data_fetch_downloads_into_the_folder_data(monkeypatch, tmp_path, capsys):
    def download(handle: str, output_dir: str) -> str:
        assert handle == "plameneduardo/sarscov2-ctscan-dataset"
        make_copy(Path(output_dir), **{"COVID": 2, "non-COVID": 3})
        return output_dir

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kagglehub.dataset_download", download)

    assert main(["data", "fetch", "sarscov2-ct"]) == 0

    assert (tmp_path / "data" / "sarscov2-ct" / "COVID" / "1.jpg").exists()
    assert "configs/sarscov2_ct.yaml --data data/sarscov2-ct" in capsys.readouterr().out


def test_data_fetch_without_network_tells_the_way_by_hand(refused, monkeypatch, tmp_path):
    def download(handle: str, output_dir: str) -> str:
        raise ConnectionError("Failed to resolve 'www.kaggle.com'\n(Errno -3)")

    monkeypatch.setattr("kagglehub.dataset_download", download)

    line = refused("data", "fetch", "brain-tumor-mri", "--out", tmp_path / "brain")

    assert "Cannot fetch masoudnickparvar/brain-tumor-mri-dataset" in line
    assert "Failed to resolve 'www.kaggle.com'" in line
    assert "https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset" in line
    assert "`kerasmed data fetch brain-tumor-mri --from DIR`" in line


def test_data_fetch_refuses_other_names_and_other_folders(refused, image_folder):
    assert "Unknown data set 'brains'" in refused("data", "fetch", "brains")
    line = refused("data", "fetch", "sarscov2-ct", "--from", image_folder)
    assert "expected the class folders ['COVID', 'non-COVID'] of sarscov2-ct" in line


def test_data_check_prints_the_findings_and_where_the_page_is(tmp_path, monkeypatch, capsys):
    folder = write_folder(tmp_path)
    shutil.copy(folder / "clear" / "1.png", folder / "ground_glass" / "101.png")
    monkeypatch.chdir(tmp_path)

    assert main(["data", "check", "set"]) == 0

    printed = capsys.readouterr().out
    assert "49 images, 1 different sizes" in printed
    assert "Patients: not named" in printed
    assert "Unreadable: 0" in printed
    assert "Copies: 1 with equal bytes, 1 with equal pixels" in printed
    assert "With two labels: 1 pairs of equal pixels, 1 near-duplicate pairs" in printed
    assert "  clear/1.png and ground_glass/101.png" in printed.splitlines()
    assert "Class from image size only: " in printed
    assert printed.rstrip().endswith(f"Page: {Path('runs') / 'check-set' / 'check.html'}")
    assert (tmp_path / "runs" / "check-set" / "check.html").exists()


def test_data_check_prints_nothing_but_json_when_asked(tmp_path, capsys):
    folder, out = write_folder(tmp_path), tmp_path / "out"

    assert main(["data", "check", str(folder), "--json", "--out", str(out)]) == 0

    findings = json.loads(capsys.readouterr().out)
    assert findings == json.loads((out / "check.json").read_text())
    assert findings["classes"] == {"clear": 24, "ground_glass": 24}
    assert (out / "check.html").exists()


def test_data_check_takes_settings_of_the_data(tmp_path, capsys):
    arguments = ["--json", "--out", str(tmp_path / "out")]
    names = ["--set", "data.class_names=[clear, ground_glass]"]

    assert main(["data", "check", str(write_npz(tmp_path)), *arguments, *names]) == 0

    assert list(json.loads(capsys.readouterr().out)["classes"]) == list(PHANTOMS)


def test_data_check_takes_the_number_of_bits(tmp_path, capsys):
    folder = write_folder(tmp_path)
    shutil.copy(folder / "clear" / "0.png", folder / "clear" / "100.png")
    arguments = ["--json", "--out", str(tmp_path / "out")]

    bits = ["--set", "split.near_duplicate_bits=null"]
    assert main(["data", "check", str(folder), *arguments, *bits]) == 0

    assert json.loads(capsys.readouterr().out)["duplicates"]["near_duplicates"] == 0


def test_data_check_refuses_what_is_no_set(refused, tmp_path, image_folder):
    assert f"Nothing at {tmp_path / 'no'}" in refused("data", "check", tmp_path / "no")
    (image_folder / "clear" / "notes.txt").touch()
    assert "notes.txt has an unsupported file extension" in refused("data", "check", image_folder)
    assert "unknown key data.colour" in refused(
        "data", "check", image_folder, "--set", "data.colour=1"
    )


def test_data_leakage_tells_both_splits(tiny_config, tmp_path, capsys):
    """Every image has a copy, so that a random split of few features may remember them."""
    folder = write_folder(tmp_path)
    for path in sorted(folder.glob("*/*.png")):
        shutil.copy(path, path.with_name(f"1{path.name}"))
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run")]

    assert main(["data", "leakage", str(tiny_config), *arguments]) == 0

    result = json.loads((tmp_path / "run" / "evaluation" / "leakage.json").read_text())
    assert result.keys() == {"features_of", "grouped", "random", "gap"}
    for name in ("grouped", "random"):
        values = result[name]["values"]
        assert len(values) == 5
        assert result[name]["mean"] == pytest.approx(np.mean(values))
        assert result[name]["standard_deviation"] == pytest.approx(np.std(values, ddof=1))
    assert result["gap"] == pytest.approx(result["random"]["mean"] - result["grouped"]["mean"])
    assert result["gap"] > 0
    printed = capsys.readouterr().out
    rows = [line.split("│")[1:4] for line in printed.splitlines() if "│" in line]
    assert [row[0].strip() for row in rows] == ["random, by image", "by group, as in this study"]
    assert float(rows[0][1]) == pytest.approx(100 * result["random"]["mean"], abs=0.06)
    assert float(rows[1][2]) == pytest.approx(
        100 * result["grouped"]["standard_deviation"], abs=0.06
    )
    assert f"Logistic regression on features of {result['features_of']}." in printed
    stages = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]
    assert list(stages) == ["data", "leakage"]


def test_data_leakage_leaves_out_seeds_that_cannot_be_split(
    tiny_config, tmp_path, monkeypatch, capsys
):
    folder = write_folder(tmp_path)
    split, asked = leakage.make_split, []

    def make_split(labels, groups, names, settings, seed):
        asked.append(seed)
        if seed > 0:
            raise DataError("too few groups")
        return split(labels, groups, names, settings, seed)

    monkeypatch.setattr(leakage, "make_split", make_split)
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run")]
    assert main(["data", "leakage", str(tiny_config), *arguments]) == 0
    assert max(asked) > 5
    result = json.loads((tmp_path / "run" / "evaluation" / "leakage.json").read_text())
    assert len(result["grouped"]["values"]) == 1
    assert result["grouped"]["standard_deviation"] is None
    assert "by group" in capsys.readouterr().out


def test_data_leakage_without_any_split_by_group_is_refused(
    tiny_config, tmp_path, monkeypatch, capsys
):
    folder = write_folder(tmp_path)

    def make_split(*_):
        raise DataError("too few groups")

    monkeypatch.setattr(leakage, "make_split", make_split)
    arguments = ["--data", str(folder), "--out", str(tmp_path / "run")]
    assert main(["data", "leakage", str(tiny_config), *arguments]) == 2
    assert "expected enough groups to split them anew" in capsys.readouterr().err


def test_data_leakage_repeats_its_numbers(tiny_config, tiny_run, run_copy):
    before = json.loads((tiny_run / "evaluation" / "leakage.json").read_text())
    assert main(["data", "leakage", str(tiny_config), "--out", str(run_copy)]) == 0
    assert json.loads((run_copy / "evaluation" / "leakage.json").read_text()) == before


def test_data_leakage_stops_at_a_file_that_changed(refused, tiny_config, image_folder, tmp_path):
    arguments = ["--data", str(image_folder), "--out", str(tmp_path / "run")]
    assert main(["data", "split", str(tiny_config), *arguments]) == 0
    (image_folder / "clear" / "3.png").unlink()
    assert "3.png` was clear" in refused("data", "leakage", tiny_config, *arguments)


def test_data_leakage_follows_the_files_when_the_lines_of_a_table_change_places(
    tiny_config, tmp_path
):
    table = write_table(tmp_path)
    arguments = ["--data", str(table), "--out", str(tmp_path / "run")]

    def grouped() -> list[float]:
        assert main(["data", "leakage", str(tiny_config), *arguments]) == 0
        path = tmp_path / "run" / "evaluation" / "leakage.json"
        return json.loads(path.read_text())["grouped"]["values"]

    before = grouped()
    header, *lines = table.read_text().splitlines()
    lines = [lines[i] for i in np.random.default_rng(0).permutation(len(lines))]
    table.write_text("\n".join([header, *lines]) + "\n")

    assert grouped() == before
