"""Which images a study learns from, and which it only compares with."""

import json
from collections import Counter

import numpy as np
import pytest

from kerasmed.data.splits import ROLES
from kerasmed.files import read_json
from kerasmed.study.config import parse_config
from kerasmed.study.inputs import load_split
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import diffusion
from kerasmed.study.stages.audit import audit_synthetic


@pytest.fixture
def study(run_copy):
    run = RunFolder(run_copy)
    return parse_config(run.record()["config"], "test"), run


def test_sizes_tell_the_roles_apart(tiny_run):
    content = json.loads((tiny_run / "split.json").read_text())
    sizes = Counter(file["role"] for file in content["files"])
    assert set(sizes) == set(ROLES) == {"train", "validation", "test", "reserve"}
    # train and validation are 0.4 of the set, test is 0.2 of it, and reserve is what is left.
    assert sizes["train"] != sizes["reserve"]
    assert sizes["train"] + sizes["validation"] == pytest.approx(0.4 * sizes.total(), abs=2)
    assert sizes["test"] == pytest.approx(0.2 * sizes.total(), abs=2)


def test_the_denoiser_and_real_cnns_learn_from_train(study, monkeypatch):
    config, run = study
    image_set, split = load_split(config, run)
    learned = []
    monkeypatch.setattr(
        "kerasmed.diffusion.training.train_model",
        lambda kind, train, validation, *_: learned.extend([train, validation]) or {},
    )
    diffusion.train_diffusion(config, run)
    for images, role in zip(learned, ("train", "validation"), strict=True):
        assert images.data_hash == image_set.subset(split[role]).data_hash
    record = read_json(run.classifiers / "MobileNet-real-s0" / "training.json", "study")
    assert record["result"]["n_train"] == len(split["train"]) != len(split["reserve"])


def test_the_audit_compares_with_reserve(study):
    config, run = study
    image_set, split = load_split(config, run)
    audit_synthetic(config, run)
    listed = read_json(run.evaluation / "privacy.json", "audit")["files"]
    train = [str(image_set.files[i].path) for i in split["train"]]
    assert listed["train"] == train
    appearance = read_json(run.evaluation / "appearance.json", "audit")
    reserve = np.asarray(image_set.images[split["reserve"]])
    levels = (reserve[..., 0] // 4).ravel()
    expected = np.bincount(levels, minlength=64) / levels.size
    np.testing.assert_allclose(appearance["reserve"]["histogram"][0], expected)
    assert not np.allclose(appearance["train"]["histogram"][0], expected)
