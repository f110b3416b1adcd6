"""A synthetic set of another program takes the place of the one that a study would draw."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from conftest import TINY, phantom_set
from PIL import Image

from kerasmed.audit.verdicts import judge_usefulness
from kerasmed.cli.main import main
from kerasmed.errors import ConfigError
from kerasmed.study.config import parse_config
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages.evaluate import evaluate_classifiers


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Class folders of another program, at another size."""
    folder = tmp_path_factory.mktemp("theirs")
    images = phantom_set(per_class=40, size=24)
    for image, file in zip(images.images, images.files, strict=True):
        path = folder / file.class_name / f"img_{file.path.stem}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def config_with(path, **sampling):
    path.write_text(yaml.safe_dump({**TINY, "sampling": sampling}))
    return str(path)


@pytest.fixture(scope="module")
def foreign_run(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    config = config_with(folder / "foreign.yaml", source=str(source))
    assert main(["study", config, "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_a_whole_study_judges_the_set_without_a_diffusion_model(foreign_run, source):
    record = json.loads((foreign_run / "run.json").read_text())
    assert "diffusion" not in record["stages"]
    assert "report" in record["stages"]
    assert record["stages"]["sampling"]["result"]["images"] == {"clear": 40, "ground_glass": 40}
    (useful, _, private) = json.loads((foreign_run / "evaluation/verdicts.json").read_text())
    privacy = json.loads((foreign_run / "evaluation/privacy.json").read_text())
    assert "not_asked" in privacy["membership"]
    assert privacy["copies"]["filter"] is None
    assert private["light"] != "green"
    assert "assumed" in private["answer"]
    assert useful["light"] != "green"
    page = (foreign_run / "report.html").read_text()
    assert "Another program made" in page
    assert "Training of the diffusion model" not in page


def test_the_set_is_read_at_the_size_of_the_study_and_each_image_is_traced(foreign_run, source):
    manifest = json.loads((foreign_run / "synthetic/manifest.json").read_text())
    path, taken_from = next(iter(manifest["taken_from"].items()))
    with Image.open(foreign_run / "synthetic" / path) as image:
        assert image.size == (16, 16)
    assert taken_from.startswith(str(source))
    assert "img_" in taken_from
    assert len(manifest["taken_from"]) == 80


def test_a_finished_study_is_current_until_the_source_changes(
    foreign_run, source, tmp_path, capsys
):
    run = shutil.copytree(foreign_run, tmp_path / "run")
    changed = shutil.copytree(source, tmp_path / "theirs")
    config = config_with(tmp_path / "foreign.yaml", source=str(source))
    assert main(["study", config, "--out", str(run)]) == 0
    assert "report: already finished" in capsys.readouterr().err
    config = config_with(tmp_path / "foreign.yaml", source=str(changed))
    assert main(["study", config, "--out", str(run)]) == 2
    assert "rerun `kerasmed sample CONFIG`" in capsys.readouterr().err


def test_a_released_set_does_not_claim_to_be_of_kerasmed(foreign_run, tmp_path):
    assert main(["release", str(foreign_run), str(tmp_path / "set")]) == 0
    sheet = (tmp_path / "set" / "DATASHEET.md").read_text()
    assert "Another program made the images" in sheet
    assert "A diffusion model drew" not in sheet
    assert "It is not known which images it learned from" in sheet
    with (tmp_path / "set" / "labels.csv").open() as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"clear", "ground_glass"}


def test_a_set_that_holds_test_images_is_not_useful(run_copy):
    files = json.loads((run_copy / "split.json").read_text())["files"]
    first = next(run_copy.glob("synthetic/*/*.png"))
    test_image = next(row["path"] for row in files if row["role"] == "test")
    shutil.copy(run_copy / test_image, first)
    run = RunFolder(run_copy)
    evaluate_classifiers(parse_config(run.record()["config"], "test"), run)
    useful = json.loads((run_copy / "evaluation/usefulness.json").read_text())
    assert useful["not_computed"] == "1 synthetic image has the pixels of test images."
    assert judge_usefulness(useful).light == "grey"


def test_a_set_with_other_classes_is_refused(source, tmp_path, capsys):
    theirs = shutil.copytree(source, tmp_path / "theirs")
    (theirs / "clear").rename(theirs / "Clear")
    config = config_with(tmp_path / "foreign.yaml", source=str(theirs))
    assert main(["sample", config, "--out", str(tmp_path / "run")]) == 2
    assert "expected the classes of the real images" in capsys.readouterr().err
    assert not (tmp_path / "run" / "synthetic").exists()


@pytest.mark.parametrize(
    ("sampling", "named"),
    [
        ({"source": "theirs", "steps": 4}, "sampling.steps would have no effect"),
        ({"source": "theirs", "variants": {"x2": {"times_real": 2}}}, "sampling.variants"),
        ({"source_learned_from": "train"}, "name its folder in sampling.source"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(sampling, named):
    with pytest.raises(ConfigError, match=named):
        parse_config({**TINY, "sampling": sampling}, "test")


def test_no_shard_is_drawn(source, tmp_path, capsys):
    config = config_with(tmp_path / "foreign.yaml", source=str(source))
    out = ["--out", str(tmp_path / "run")]
    assert main(["data", "split", config, *out]) == 0
    assert main(["sample", config, *out, "--shard", "1/2"]) == 0
    assert "0 images of all sets are missing" in capsys.readouterr().out


def test_grey_values_are_those_of_the_real_images(source, tmp_path):
    """A set of 16 bits is shown with the range of the real images, not with its own."""
    theirs = tmp_path / "theirs"
    rng = np.random.default_rng(0)
    for name in ("clear", "ground_glass"):
        (theirs / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 2000, (16, 16), np.uint16)).save(
                theirs / name / f"{i}.png"
            )
    config = config_with(tmp_path / "foreign.yaml", source=str(theirs))
    out = ["--out", str(tmp_path / "run"), "--set", "data.grey_range=[0, 4000]"]
    assert main(["sample", config, *out]) == 0
    with Image.open(next((tmp_path / "run/synthetic/clear").glob("*.png"))) as image:
        assert 120 <= np.asarray(image).max() <= 128
