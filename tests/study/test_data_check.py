"""The page about a set, and its numbers: from every kind of source, alone, and safe to open."""

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmed.data.config import DataConfig, SplitConfig
from kerasmed.data.phantoms import draw_phantom
from kerasmed.errors import DataError
from kerasmed.study.data_check import check_data

CLASSES = ("clear", "ground_glass")
PER_CLASS = 20


def phantom(class_name: str, index: int, size: int = 48) -> np.ndarray:
    return draw_phantom("ct", class_name, index, size, 0)[0]


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes of twenty unrelated images."""
    for name in CLASSES:
        for i in range(PER_CLASS):
            save(tmp_path / "set" / name / f"{i:02d}.png", phantom(name, i))
    return tmp_path / "set"


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.names: list[str] = []
        self.texts: list[str] = []
        self.warnings: list[str] = []
        self._warns = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.tags.append(tag)
        self.addresses += [values[name] for name in ("src", "href", "srcset") if name in values]
        self.names += [values["alt"]] if "alt" in values else []
        self._warns = values.get("class") == "warn"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._warns:
            self.warnings.append(data)
            self._warns = False

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def check(source: Path, out: Path, **options) -> tuple[dict, Page, str]:
    """Findings, page, and the page's source."""
    findings = check_data(DataConfig(source=source, **options), SplitConfig(), out)
    text = (out / "check.html").read_text(encoding="utf-8")
    return findings, Page(text), text


def test_findings_are_returned_and_written(folder, tmp_path):
    findings, _, _ = check(folder, tmp_path / "out")

    assert json.loads((tmp_path / "out" / "check.json").read_text()) == findings
    assert list(findings) == [
        "source", "remarks", "grey_range", "images", "classes", "imbalance", "patients",
        "unreadable", "sizes", "kinds", "duplicates", "brightness_outliers", "shortcuts",
    ]  # fmt: skip
    assert findings["source"] == str(folder)
    assert findings["classes"] == {"clear": 20, "ground_glass": 20}


def test_notes_are_on_the_page(folder, tmp_path):
    mask = np.zeros((48, 48), np.uint8)
    mask[10:20] = 255
    save(folder / "clear" / "00_mask.png", mask)

    findings, page, _ = check(folder, tmp_path / "out")

    assert findings["images"] == 40
    [line] = findings["remarks"]
    assert line.startswith("Left out as masks: 1 file, such as clear/00_mask.png")
    assert line in page.text


def test_wide_images_are_shown_in_the_range_of_the_set(folder, tmp_path):
    for path in folder.rglob("*.png"):
        save(path, np.asarray(Image.open(path))[..., 0].astype(np.uint16) * 3)

    findings, page, _ = check(folder, tmp_path / "out")

    low, high = findings["grey_range"]
    assert 0 <= low < 100 < 500 < high <= 765
    assert "(black) to" in page.text
    assert {row["clue"] for row in findings["shortcuts"]} >= {"brightness"}


def test_page_stands_alone(folder, tmp_path):
    save(folder / "clear" / "copy.png", phantom("clear", 0)[:, ::-1])
    save(folder / "clear" / "white.png", np.full((48, 48, 3), 255, dtype=np.uint8))

    _, page, text = check(folder, tmp_path / "out")

    assert "http://" not in text
    assert "https://" not in text
    assert not re.search(r"url\(|@import|srcset", text)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)


def test_pictures_are_small_and_can_be_opened(folder, tmp_path):
    save(folder / "clear" / "wide.png", np.zeros((50, 400, 3), dtype=np.uint8))

    _, page, _ = check(folder, tmp_path / "out")

    for address in page.addresses:
        content = base64.b64decode(address.partition(",")[2])
        with Image.open(io.BytesIO(content)) as image:
            assert max(image.size) <= 96


def test_page_shows_some_images_of_each_class(folder, tmp_path):
    _, page, _ = check(folder, tmp_path / "out")

    for name in CLASSES:
        shown = [image for image in page.names if image.startswith(f"{name}/")]
        assert len(shown) == 12
        assert {f"{name}/00.png", f"{name}/19.png"} <= set(shown)


def test_names_of_files_and_classes_cannot_write_into_the_page(folder, tmp_path):
    (folder / "clear").rename(folder / "<b>bold & co")
    save(folder / "<b>bold & co" / "<b>x' onerror='y.png", phantom("clear", 0))
    (folder / "<b>bold & co" / "<script>bad.png").write_bytes(b"no image")

    findings, page, text = check(folder, tmp_path / "out")

    assert "b" not in page.tags
    assert "script" not in page.tags
    assert "<b>" not in text
    assert "<b>bold & co" in page.texts
    assert "<b>bold & co/<b>x' onerror='y.png" in page.names
    assert "<script>bad.png" in findings["unreadable"][0]
    assert "<script>bad.png" in page.text


def test_unreadable_files_are_listed_and_the_rest_is_examined(folder, tmp_path):
    (folder / "clear" / "broken.png").write_bytes(b"no image")

    findings, page, _ = check(folder, tmp_path / "out")

    assert findings["images"] == 40
    assert len(findings["unreadable"]) == 1
    assert "1 unreadable files" in page.text
    assert "broken.png" in page.text


def test_set_without_a_readable_image_is_refused(tmp_path):
    for name in CLASSES:
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "0.png").write_bytes(b"no image")

    with pytest.raises(DataError, match=r"No image of .*set can be read \(2 files\): .*0\.png"):
        check(tmp_path / "set", tmp_path / "out")

    assert not (tmp_path / "out" / "check.html").exists()


def test_class_without_a_readable_image_is_survived(folder, tmp_path):
    for path in (folder / "clear").iterdir():
        path.write_bytes(b"no image")

    findings, page, _ = check(folder, tmp_path / "out")

    assert findings["classes"] == {"ground_glass": 20}
    assert "20 unreadable files" in page.text


def test_copies_under_two_labels_are_reported_and_shown(folder, tmp_path):
    save(folder / "clear" / "twin.png", phantom("ground_glass", 3))
    save(folder / "clear" / "turned.bmp", np.rot90(phantom("ground_glass", 5)))
    (folder / "clear" / "again.png").write_bytes((folder / "clear" / "07.png").read_bytes())

    findings, page, _ = check(folder, tmp_path / "out")

    twin = ["clear/twin.png", "ground_glass/03.png"]
    turned = ["clear/turned.bmp", "ground_glass/05.png"]
    duplicates = findings["duplicates"]
    # The twin's file is written as the other one's was, so that its bytes are the same, too.
    assert (duplicates["byte_identical"], duplicates["pixel_identical"]) == (2, 2)
    assert (duplicates["near_duplicates"], duplicates["only_mirrored_or_turned"]) == (4, 2)
    assert duplicates["label_conflicts"] == [twin]
    assert sorted(duplicates["near_across_labels"]) == sorted([twin, turned])
    warning = "1 pairs of equal pixels and 2 near-duplicate pairs have two labels."
    assert page.warnings == [warning]
    assert " and ".join(twin) in page.texts
    assert "Near-duplicates after mirroring or turning" in page.texts
    assert {*twin, *turned} <= set(page.names)


def test_set_without_copies_warns_of_nothing(folder, tmp_path):
    findings, page, _ = check(folder, tmp_path / "out")

    assert findings["duplicates"] == {
        "byte_identical": 0,
        "pixel_identical": 0,
        "near_duplicates": 0,
        "only_mirrored_or_turned": 0,
        "label_conflicts": [],
        "near_across_labels": [],
    }
    assert "0 near-duplicate pairs have two labels." in page.text
    assert "h3" in page.tags  # the examples, and no pairs
    assert page.texts.count("Near-duplicates after mirroring or turning") == 0


def clues(findings: dict) -> dict[str, float]:
    return {row["clue"]: row["accuracy"] for row in findings["shortcuts"]}


def test_set_without_a_shortcut_is_reported_as_chance(tmp_path):
    rng = np.random.default_rng(0)
    for name in CLASSES:
        for i in range(30):
            image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            save(tmp_path / "set" / name / f"{i}.png", image)

    findings, page, _ = check(tmp_path / "set", tmp_path / "out")

    accuracies = clues(findings)
    assert all(accuracy < 0.7 for accuracy in accuracies.values())
    assert accuracies["image size"] == accuracies["format"] == 0.5
    assert not [text for text in page.warnings if re.fullmatch(r"[89]\d\.\d|100\.0", text)]


def test_colour_of_the_border_that_gives_the_class_away_is_reported(folder, tmp_path):
    for path in (folder / "clear").iterdir():
        with Image.open(path) as image:
            pixels = np.array(image)
        pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1] = 255, 255, 255, 255
        save(path, pixels)

    findings, page, _ = check(folder, tmp_path / "out")

    assert clues(findings)["border colour"] == 1.0
    assert clues(findings)["image size"] == 0.5
    assert "100.0" in page.warnings


def test_size_that_gives_the_class_away_is_reported(folder, tmp_path):
    for path in (folder / "clear").iterdir():
        with Image.open(path) as image:
            enlarged = np.array(image.resize((60, 60)))
        save(path, enlarged)

    findings, page, _ = check(folder, tmp_path / "out")

    assert clues(findings)["image size"] == 1.0
    assert clues(findings)["aspect ratio"] == clues(findings)["format"] == 0.5
    assert findings["sizes"] == {
        "different": 2,
        "most_common": [48, 48],
        "fraction_of_most_common": 0.5,
        "smallest": [48, 48],
        "largest": [60, 60],
    }
    assert "100.0" in page.warnings


def test_format_that_gives_the_class_away_is_reported(folder, tmp_path):
    for path in sorted((folder / "clear").iterdir()):
        with Image.open(path) as image:
            image.save(path.with_suffix(".bmp"))
        path.unlink()

    findings, _, _ = check(folder, tmp_path / "out")

    assert clues(findings)["format"] == 1.0
    assert findings["kinds"] == {"BMP RGB": {"clear": 20}, "PNG RGB": {"ground_glass": 20}}


def test_brightness_outlier_is_reported_and_shown(folder, tmp_path):
    save(folder / "clear" / "01a.png", np.full((48, 48, 3), 255, dtype=np.uint8))

    findings, page, _ = check(folder, tmp_path / "out")  # not among the examples, being third

    outliers = findings["brightness_outliers"]
    assert [outlier["image"] for outlier in outliers] == ["clear/01a.png"]
    assert outliers[0]["brightness"] == 255.0
    assert outliers[0]["median_of_class"] < 200
    assert "clear/01a.png" in page.names
    assert f"255.0 ({outliers[0]['median_of_class']})" in page.texts


def write_table(path: Path, rows: list[tuple[str, ...]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("path", "label", "patient"), *rows])
    return path


def test_table_with_patients(folder, tmp_path):
    names = [(name, i) for name in CLASSES for i in range(PER_CLASS)]
    rows = [(f"set/{name}/{i:02d}.png", name, f"Patient Secret {i // 2}") for name, i in names]

    findings, page, text = check(write_table(tmp_path / "set.csv", rows), tmp_path / "out")

    assert findings["patients"] == 10
    assert findings["classes"] == {"clear": 20, "ground_glass": 20}
    assert "10 patients are named." in page.text
    assert "set/clear/00.png" in page.names
    assert "Secret" not in text
    assert "Secret" not in (tmp_path / "out" / "check.json").read_text()


def test_table_of_absolute_paths_elsewhere(folder, tmp_path):
    names = [(name, i) for name in CLASSES for i in range(PER_CLASS)]
    rows = [(str(folder / name / f"{i:02d}.png"), name, f"{i}") for name, i in names]

    findings, _, _ = check(write_table(tmp_path / "tables" / "set.csv", rows), tmp_path / "out")

    assert findings["images"] == 40


@pytest.mark.parametrize("colour", [False, True])
def test_archive_with_class_names(tmp_path, colour):
    images = np.stack([phantom(name, i) for name in CLASSES for i in range(PER_CLASS)])
    images = images if colour else images[..., 0]
    labels = np.repeat([0, 1], PER_CLASS)[:, None]
    path = tmp_path / "set.npz"
    np.savez(
        path,
        train_images=images[::2], train_labels=labels[::2],
        val_images=images[1::2], val_labels=labels[1::2],
    )  # fmt: skip

    findings, page, _ = check(path, tmp_path / "out", class_names=list(CLASSES))

    assert findings["classes"] == {"clear": 20, "ground_glass": 20}
    assert findings["kinds"] == {f"npz {'RGB' if colour else 'L'}": findings["classes"]}
    assert findings["patients"] is None
    assert "The patient is not known for every image." in page.text
    # Class `clear` has rows 0 to 9 of the training and 20 to 29 of the validation images.
    assert {"set.npz#0", "set.npz#29", "set.npz#10", "set.npz#39"} <= set(page.names)
    pictures = dict(zip(page.names, page.addresses, strict=True))
    with Image.open(
        io.BytesIO(base64.b64decode(pictures["set.npz#29"].partition(",")[2]))
    ) as train:
        error = np.abs(np.asarray(train.convert("L"), dtype=int) - phantom("clear", 19)[..., 0])
    assert error.mean() < 12  # the last image of the class, but for its JPEG


def test_file_names_with_a_number_sign_are_found_again(folder, tmp_path):
    save(folder / "clear" / "00 #1.png", phantom("clear", 100))
    (folder / "clear" / "00.png").rename(folder / "clear" / "a#0#1.png")

    _, page, _ = check(folder, tmp_path / "out")

    assert {"clear/00 #1.png", "clear/a#0#1.png"} <= set(page.names)


def test_second_check_gives_the_same_page(folder, tmp_path):
    first = check(folder, tmp_path / "out")[2]

    assert check(folder, tmp_path / "out")[2] == first
    assert check(folder, tmp_path / "other")[2] == first
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "cache", "check.html", "check.json",
    }  # fmt: skip


def test_slices_of_volumes_are_images_of_the_page(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(2):
            volume = nibabel.Nifti1Image(rng.integers(0, 999, (8, 8, 5)).astype(np.int16), None)
            nibabel.save(volume, tmp_path / "set" / name / f"{i}.nii.gz")

    findings, page, _ = check(tmp_path / "set", tmp_path / "out")

    assert findings["classes"] == {"clear": 10, "ground_glass": 10}
    assert {"clear/0.nii.gz#0", "ground_glass/1.nii.gz#4"} <= set(page.names)
