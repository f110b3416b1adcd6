"""What the synthetic set is worth, as a stage of a study."""

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from kerasmed.audit.worth import worth_sentence
from kerasmed.classify import training
from kerasmed.cli.main import main
from kerasmed.errors import ConfigError, InputError
from kerasmed.files import read_json
from kerasmed.study.config import load_config
from kerasmed.study.inputs import load_grouped_split
from kerasmed.study.result_files import json_schema
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import worth as stage
from kerasmed.study.stages.worth import check_worth


class _Reader:
    """Stands in for a CNN: it is right about so many of the test images."""

    def __init__(self, count):
        self.count = count

    def predict(self, images):
        chosen = np.where(np.arange(len(images)) < self.count, images.labels, 1 - images.labels)
        return np.eye(2)[chosen]


class _Training:
    """Stands in for the training of CNNs, which learn more from more images; one may fail."""

    def __init__(self, fails_at=None):
        self.fails_at, self.learned_from = fails_at, []

    def __call__(self, backbone, phases, validation, symmetry, seed, runtime, folder, epoch):
        if len(self.learned_from) == self.fails_at:
            raise ZeroDivisionError
        folder.mkdir(parents=True)
        self.learned_from.append(len(phases[0].images))
        return _Reader(12 + len(phases[0].images) // 8 + seed), {"minutes": 0.1}


def test_a_study_is_valued_after_an_interruption_and_says_so(
    tiny_config, run_copy, capsys, monkeypatch
):
    arguments = [str(tiny_config), "--out", str(run_copy)]
    arguments += ["--set", "worth.times_train=[]", "--set", "worth.draws=2"]
    run = RunFolder(run_copy)
    monkeypatch.setattr(training, "train_classifier", _Training(fails_at=1))
    with pytest.raises(ZeroDivisionError):
        main(["worth", *arguments])
    (first,) = run.worth.glob("*.json")
    written = first.stat().st_mtime_ns
    rest = _Training()
    monkeypatch.setattr(training, "train_classifier", rest)
    capsys.readouterr()

    assert main(["worth", *arguments]) == 0
    printed = capsys.readouterr()
    assert "3 CNNs to train, each about as long as MobileNet-real-s0" in printed.err
    assert (len(rest.learned_from), first.stat().st_mtime_ns) == (3, written)
    assert len(list(run.worth.iterdir())) == 4
    worth = read_json(run.evaluation / "worth.json", "")
    assert printed.out.strip() == worth_sentence(worth)
    Draft202012Validator(json_schema("worth")).validate(worth)
    Draft202012Validator(json_schema("learning_curve")).validate(read_json(first, ""))
    train = run.record()["stages"]["data"]["result"]["roles"]["train"]
    assert worth["train"] == sum(train.values())
    assert [point["trainings"] for point in worth["curve"]] == [2, 1, 2]
    assert worth["curve"][0]["accuracy"] == pytest.approx((13 + 14) / 2 / 24)

    assert main(["study", *arguments]) == 0  # only the report is written anew
    assert "worth: already finished" in capsys.readouterr().err
    assert worth_sentence(worth) in run.report.read_text()
    release = run_copy.parent / "release"
    assert main(["release", str(run_copy), str(release)]) == 0
    assert worth_sentence(worth)[:40] in (release / "DATASHEET.md").read_text()


def test_too_few_groups_of_test_images_are_refused_before_anything_is_trained(
    tiny_config, tiny_run, monkeypatch
):
    run, load = RunFolder(tiny_run), load_grouped_split
    config = load_config(tiny_config, [])

    def of_one_patient(*arguments):
        image_set, split, groups = load(*arguments)
        return image_set, split, np.zeros_like(groups)

    monkeypatch.setattr(stage, "load_grouped_split", of_one_patient)
    with pytest.raises(InputError, match=r"Worth: .*at least 5 groups.* received 1 of test"):
        stage.worth_shard(config, run)


def test_another_first_backbone_has_a_curve_of_its_own(tiny_config, tiny_run, tmp_path):
    config = load_config(tiny_config, ["worth.times_train=[]"])
    image_set, split, _ = load_grouped_split(config, RunFolder(tiny_run))
    other = load_config(tiny_config, ["classifiers.backbones=[VGG16, MobileNet]"])
    paths = {
        point.record(RunFolder(tmp_path))
        for of_study in (config, other)
        for point in stage._points(of_study, image_set, split)
    }
    assert len(paths) == len(stage._points(config, image_set, split)) + len(
        stage._points(other, image_set, split)
    )


def test_draws_take_whole_groups_of_every_class_and_grow_beyond_train(tiny_config, tiny_run):
    config = load_config(tiny_config, ["worth.times_train=[0.5]"])
    image_set, split, _ = load_grouped_split(config, RunFolder(tiny_run))
    # Groups of four neighbours in the role, some with images of both classes.
    groups = np.empty(len(image_set), dtype="<U20")
    for role, rows in split.items():
        groups[rows] = [f"{role}{at // 4}" for at in range(len(rows))]
    points = stage._points(config, image_set, split)
    assert [point.draw for point in points] == [0, 1, 2] * 3
    for point in points:
        rows = stage._drawn(point, 0, image_set, split, groups)
        assert rows.tolist() == stage._drawn(point, 0, image_set, split, groups).tolist()
        assert not np.isin(rows, [*split["test"], *split["validation"]]).any()
        is_drawn = np.isin(np.arange(len(image_set)), rows)
        for group in np.unique(groups[rows]):
            assert is_drawn[groups == group].all()
        counts = np.bincount(image_set.labels[rows], minlength=2)
        assert counts.all()
        assert np.abs(counts - point.wanted).max() <= 6
        if sum(point.wanted) > len(split["train"]):
            assert np.isin(split["train"], rows).all()
    first, second = (stage._drawn(point, 0, image_set, split, groups) for point in points[:2])
    assert first.tolist() != second.tolist()


def test_a_class_that_only_mixed_groups_hold_is_drawn_all_the_same(tiny_config, tiny_run):
    config = load_config(tiny_config, ["worth.times_train=[]"])
    image_set, split, _ = load_grouped_split(config, RunFolder(tiny_run))
    labels = image_set.labels[split["train"]]
    groups = np.full(len(image_set), "other", dtype="<U20")
    # Each image of class 1 is in a group with two of class 0.
    zeros, ones = (split["train"][labels == label] for label in (0, 1))
    for number, row in enumerate(ones[: len(zeros) // 2]):
        groups[[row, *zeros[2 * number : 2 * number + 2]]] = f"g{number}"
    for draw in range(5):
        point = stage._Point("MobileNet", (2, 2), draw)
        rows = stage._drawn(point, 0, image_set, {**split, "reserve": split["reserve"]}, groups)
        assert np.bincount(image_set.labels[rows], minlength=2).all()


@pytest.mark.parametrize(
    "settings",
    [
        ["classifiers.train_on=[synthetic, both]"],
        ["classifiers.train_on=[real, real_all]"],
        ["worth.regime=pretrained"],
        ["classifiers.equal_steps=false"],
        ["runtime.distribution=multi_worker"],
    ],
)
def test_a_set_that_cannot_be_valued_is_refused_before_anything_runs(tiny_config, settings):
    with pytest.raises(ConfigError, match=r"expected .*received"):
        check_worth(load_config(tiny_config, settings))


def test_real_images_alone_are_no_use_of_a_set(tiny_config):
    with pytest.raises(ConfigError, match=r"worth\.regime"):
        load_config(tiny_config, ["worth.regime=real"])
