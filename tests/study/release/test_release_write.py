"""The synthetic set as it is handed over."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import accept_outputs
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.errors import InputError, StageError
from kerasmed.files import sha256_of, write_json
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.study.inputs import read_synthetic
from kerasmed.study.release.facts import without_paths
from kerasmed.study.release.write import release
from kerasmed.study.run_folder import RunFolder


@pytest.fixture
def run(run_copy) -> RunFolder:
    return RunFolder(run_copy)


@pytest.fixture
def copies(run):
    """Makes the audit name these synthetic images as copies."""

    def name(positions=()) -> None:
        path = run.evaluation / "privacy.json"
        privacy = json.loads(path.read_text())
        privacy["copies"]["found"] = [
            {"synthetic": position, "train": 0, "similarity": 0.9} for position in positions
        ]
        write_json(path, privacy)
        accept_outputs(run.root)

    name()
    return name


def sheet_of(folder: Path) -> str:
    return (folder / "DATASHEET.md").read_text()


def test_release_holds_the_images_their_labels_and_the_checksums(run, copies, tmp_path, capsys):
    target = tmp_path / "handed" / "over"
    assert main(["release", str(run.root), str(target)]) == 0

    assert {path.name for path in target.iterdir()} == {
        "images", "labels.csv", "DATASHEET.md", "README.md", "SCORECARD.md", "CLAIM.md",
        "croissant.json", "provenance.json", "SHA256SUMS",
    }  # fmt: skip
    rows = list(csv.DictReader((target / "labels.csv").read_text().splitlines()))
    drawn = sorted(run.synthetic.glob("*/*.png"))
    assert len(rows) == len(drawn) > 0
    for row, source in zip(rows, drawn, strict=True):
        assert row["label"] == source.parent.name
        np.testing.assert_array_equal(
            np.asarray(Image.open(target / row["file"])), np.asarray(Image.open(source))
        )
    listed = dict(
        reversed(line.split("  ")) for line in (target / "SHA256SUMS").read_text().splitlines()
    )
    cards = {path.name for path in target.iterdir()} - {"images", "SHA256SUMS"}
    assert listed.keys() == {row["file"] for row in rows} | cards
    for name, digest in listed.items():
        assert hashlib.sha256((target / name).read_bytes()).hexdigest() == digest
    assert f"{len(rows)} images, 0 withheld" in capsys.readouterr().out


def test_soft_labels_are_handed_over_too(run, copies, tmp_path, monkeypatch):
    def soft(*arguments):
        images = read_synthetic(*arguments)
        return replace(images, probabilities=np.full((len(images), 2), [0.25, 0.75], np.float32))

    monkeypatch.setattr("kerasmed.study.release.write.read_synthetic", soft)
    release(run, tmp_path / "set")
    header, *rows = csv.reader((tmp_path / "set" / "labels.csv").read_text().splitlines())
    assert header[2:] == ["probability of clear", "probability of ground_glass"]
    assert rows[0][1:] == ["clear", "0.25", "0.75"]


def test_data_sheet_gives_the_three_answers(run, copies, tmp_path):
    release(run, tmp_path / "set")

    sheet = sheet_of(tmp_path / "set")
    metrics = json.loads((run.evaluation / "metrics.json").read_text())
    for row in metrics:
        assert f"| {row['trained_on']} | {row['n_train']} | {100 * row['accuracy']:.1f}%" in sheet
    for heading in ("useful", "faithful", "private"):
        assert f"## Is it {heading}?" in sheet
        assert f"**Is it {heading}? " in sheet
    assert "not a proof of privacy" in sheet
    assert "No differential privacy" in sheet
    assert "Write here under which terms" in sheet


def test_data_sheet_reads_names_as_text(run, copies, tmp_path):
    record = run.record()
    write_json(run.record_path, {**record, "name": "a_b | <c>"})
    release(run, tmp_path / "set")

    sheet = sheet_of(tmp_path / "set")
    assert sheet.startswith(r"# a\_b \| \<c\>: synthetic images")
    assert r"| ground\_glass |" in sheet


def test_nothing_of_the_real_images_is_released(run, copies, tmp_path):
    release(run, tmp_path / "set")

    text = "".join(path.read_text() for path in (tmp_path / "set").iterdir() if path.is_file())
    split = json.loads(run.split_path.read_text())["files"]
    real = {entry["sha256"] for entry in split}
    assert str(run.root) not in text
    for path in (tmp_path / "set").rglob("*.png"):
        with Image.open(path) as picture:
            text += str(picture.info)
        assert hashlib.sha256(path.read_bytes()).hexdigest() not in real
    for entry in split:
        assert entry["sha256"] not in text
        assert entry["path"] not in text
        assert entry["group"] not in text


def test_copies_are_withheld(run, copies, tmp_path):
    copies([0, 2, 5])

    counts = release(run, tmp_path / "set")

    drawn = sorted(run.synthetic.glob("*/*.png"))
    assert counts == {"released": len(drawn) - 3, "withheld": 3}
    released = sorted((tmp_path / "set").rglob("*.png"))
    kept = [path for i, path in enumerate(drawn) if i not in (0, 2, 5)]
    for path, source in zip(released, kept, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(source)))
    assert "3 copies of real images were left out" in sheet_of(tmp_path / "set")


def test_images_with_the_pixels_of_any_real_image_are_withheld(run, copies, tmp_path):
    path = run.evaluation / "privacy.json"
    privacy = json.loads(path.read_text())
    privacy["copies"]["identical"]["test"] = [1, 3]
    write_json(path, privacy)
    copies([3])

    assert release(run, tmp_path / "set")["withheld"] == 2


def test_folder_that_is_there_is_left_alone(run, copies, tmp_path):
    with pytest.raises(StageError, match="already exists"):
        release(run, tmp_path)


def test_set_that_was_edited_by_hand_is_refused(run, copies, tmp_path):
    edited = sorted(run.synthetic.glob("*/*.png"))[0]
    pixels = np.asarray(Image.open(edited)).copy()
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(edited)

    with pytest.raises(StageError, match=r"`synthetic` was .* rerun `kerasmed sample"):
        release(run, tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("stage", ["evaluate", "audit"])
def test_unfinished_study_is_refused(run, copies, tmp_path, stage):
    record = run.record()
    del record["stages"][stage]
    write_json(run.record_path, record)

    with pytest.raises(StageError, match=f"stage '{stage}' has not finished"):
        release(run, tmp_path / "set")


def test_audit_of_an_older_set_is_refused(run, copies, tmp_path):
    record = run.record()
    record["stages"]["audit"]["built_on"]["inputs"]["synthetic"] = "another"
    write_json(run.record_path, record)

    with pytest.raises(StageError, match=r"'audit'.*`synthetic` was another .* rerun"):
        release(run, tmp_path / "set")


def test_set_that_was_drawn_without_a_filter_says_so(run, copies, tmp_path):
    path = run.evaluation / "privacy.json"
    privacy = json.loads(path.read_text())
    privacy["copies"]["filter"] = None
    write_json(path, privacy)
    accept_outputs(run.root)
    release(run, tmp_path / "set")

    sheet = sheet_of(tmp_path / "set")
    assert "No copy filter was used while the set was drawn." in sheet


def test_audit_that_could_not_look_for_copies_is_refused(run, copies, tmp_path):
    path = run.evaluation / "privacy.json"
    privacy = json.loads(path.read_text())
    privacy["copies"] = {"not_computed": "too few images."}
    write_json(path, privacy)
    accept_outputs(run.root)

    with pytest.raises(StageError, match="did not search for copies: too few images"):
        release(run, tmp_path / "set")


def test_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert main(["release", str(tmp_path), str(tmp_path / "set")]) == 2
    assert "has not finished" in capsys.readouterr().err


def test_interrupted_release_leaves_nothing(run, copies, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kerasmed.study.release.write.facts_of", fail)
    with pytest.raises(KeyboardInterrupt):
        release(run, tmp_path / "set")
    assert not list(tmp_path.glob("*set*"))


def with_private_light(run: RunFolder, light: str) -> None:
    path = run.evaluation / "verdicts.json"
    verdicts = json.loads(path.read_text())
    verdicts[2] |= {"light": light, "answer": "Copies are in the set."}
    write_json(path, verdicts)
    accept_outputs(run.root)


def test_set_that_is_not_private_needs_a_reason_which_the_data_sheet_prints(
    run, copies, tmp_path, capsys
):
    with_private_light(run, "red")
    assert main(["release", str(run.root), str(tmp_path / "set")]) == 2
    assert "is not private: Copies are in the set. Draw another one" in capsys.readouterr().err
    reason = "The real images are public."
    command = ["release", str(run.root), str(tmp_path / "set"), "--despite", reason]
    assert main(command) == 0
    assert f"those who release it:** {reason}" in sheet_of(tmp_path / "set")


def test_reason_without_need_is_refused(run, copies, tmp_path):
    with_private_light(run, "grey")
    with pytest.raises(StageError, match="--despite is for a red light on privacy"):
        release(run, tmp_path / "set", despite="Why not.")


def test_no_network_is_released_unless_it_is_named(run, copies, tmp_path):
    release(run, tmp_path / "set")
    assert "No network is part of this release." in sheet_of(tmp_path / "set")
    release(run, tmp_path / "with", models=("MobileNet-both-s0",))
    assert "`models/` holds MobileNet-both-s0" in sheet_of(tmp_path / "with")
    path = tmp_path / "with" / "models" / "MobileNet-both-s0.onnx"
    card = path.with_suffix(".md").read_text()
    inside = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    assert inside["model_card"] == card
    assert "**It learned from real images." in card
    metrics = json.loads((run.evaluation / "metrics.json").read_text())
    (of_both,) = [row for row in metrics if row["trained_on"] == "both"]
    assert f"| {100 * of_both['accuracy']:.1f}% (" in card
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    own = OnnxClassifier(run.exported / path.name)
    np.testing.assert_array_equal(OnnxClassifier(path).predict(pixels), own.predict(pixels))
    with pytest.raises(InputError, match=r"names of CNNs of the study, MobileNet-real-s0, .*rec"):
        release(run, tmp_path / "third", models=("ResNet",))


def test_provenance_has_settings_without_places(run, copies, tmp_path):
    paths = {"weights": {"MobileNet": "/home/me/mobilenet.h5"}, "source": "x", "list": [r"C:\a\b"]}
    assert without_paths(paths) == {"weights": {"MobileNet": "mobilenet.h5"}, "list": ["b"]}
    record = run.record()
    release(run, tmp_path / "set")
    provenance = json.loads((tmp_path / "set" / "provenance.json").read_text())
    assert "source" not in provenance["settings"]["data"]
    assert "pattern" not in provenance["settings"]["split"]
    assert provenance["settings"]["diffusion"]["widths"] == [8, 16]
    expected = sha256_of(run.split_path)
    assert provenance["sha256"]["split"] == expected
    assert (provenance["seed"], provenance["kerasmed"]) == (0, record["kerasmed"])


def test_licence_and_publisher_fill_the_blanks(run, copies, tmp_path, capsys):
    command = ["release", str(run.root)]
    assert main([*command, str(tmp_path / "blank")]) == 0
    assert "fill them with --licence and --by" in capsys.readouterr().out
    assert sheet_of(tmp_path / "blank").count("______") == 2
    named = ["--licence", "CC BY 4.0", "--by", "Ward 3"]
    assert main([*command, str(tmp_path / "set"), *named]) == 0
    assert "blanks" not in capsys.readouterr().out
    assert "______" not in sheet_of(tmp_path / "set")
    assert "Released by Ward 3. Terms: CC BY 4.0" in sheet_of(tmp_path / "set")
    card = json.loads((tmp_path / "set" / "croissant.json").read_text())
    assert (card["license"], card["creator"]["name"]) == ("CC BY 4.0", "Ward 3")
