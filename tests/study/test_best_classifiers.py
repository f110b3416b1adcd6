"""The regime `best` in a study: copies of the CNNs that do best on the validation images."""

import numpy as np
import pytest

from kerasmed.cli.main import main
from kerasmed.errors import ConfigError
from kerasmed.files import read_json, sha256_of, write_json
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.study.best_classifiers import sentence
from kerasmed.study.config import load_config
from kerasmed.study.inputs import load_split
from kerasmed.study.run_folder import RunFolder

BEST = "classifiers.train_on=[real, synthetic, both, best]"


@pytest.mark.parametrize("others", ["real, real_best", "both", "synthetic, real_all"])
def test_best_needs_regimes_of_both_kinds(tiny_config, others):
    with pytest.raises(ConfigError, match="best chooses among the other regimes"):
        load_config(tiny_config, [f"classifiers.train_on=[{others}, best]"])


def test_best_joins_a_finished_study_as_a_copy(tiny_config, run_copy, capsys):
    arguments = [str(tiny_config), "--out", str(run_copy), "--set", BEST]
    assert main(["train", "classifier", *arguments]) == 0
    assert "best is" in capsys.readouterr().err
    run = RunFolder(run_copy)
    result = read_json(run.classifiers / "MobileNet-best-s0" / "training.json", "")["result"]
    choice = result["chosen"]
    assert {gain["regime"] for gain in choice["gains"]} == {"synthetic", "both"}
    original = run.classifiers / f"MobileNet-{choice['regime']}-s0" / "model.keras"
    assert sha256_of(run.classifiers / "MobileNet-best-s0" / "model.keras") == sha256_of(original)

    assert main(["export", *arguments]) == 0
    exported = OnnxClassifier(run.exported / "MobileNet-best-s0.onnx")
    assert exported.metadata["trained_on"] == "best"
    assert exported.metadata["chosen"] == {"regime": choice["regime"], "variant": None}
    image_set, split = load_split(load_config(tiny_config), run)
    images = image_set.subset(split["test"]).images
    twin = OnnxClassifier(run.exported / f"MobileNet-{choice['regime']}-s0.onnx")
    np.testing.assert_allclose(exported.predict(images), twin.predict(images), atol=1e-5)

    assert main(["study", *arguments]) == 0
    assert sentence("MobileNet", choice) in run.report.read_text()
    rows = read_json(run.evaluation / "over_seeds.json", "")
    assert "best" in [row["trained_on"] for row in rows]


@pytest.mark.slow
def test_best_is_copied_anew_when_it_was_chosen_from_others(tiny_config, run_copy):
    arguments = [str(tiny_config), "--out", str(run_copy), "--set", BEST]
    assert main(["train", "classifier", *arguments]) == 0
    run = RunFolder(run_copy)
    path = run.classifiers / "MobileNet-best-s0" / "training.json"
    record = read_json(path, "")
    before = path.stat().st_mtime_ns
    assert main(["train", "classifier", *arguments]) == 0
    assert path.stat().st_mtime_ns == before  # nothing has changed

    changed = read_json(path, "")
    changed["fingerprint"]["inputs"]["MobileNet-both-s0"] = "0" * 64  # of an earlier training
    write_json(path, changed)
    assert main(["train", "classifier", *arguments]) == 0
    assert read_json(path, "") == record


def test_the_sentence_says_what_was_chosen_and_by_what_margin():
    gain = {"regime": "both", "variant": "sure", "gain": 0.04, "lower_end": 0.01}
    choice = {
        "regime": "both", "variant": "sure", "without_synthetic": "real", "gains": [gain],
        "groups": 60,
    }  # fmt: skip

    assert sentence("VGG16", choice) == (
        "VGG16: best is a copy of both sure. It helps on 60 groups of validation images: both sure "
        "gains 4.0 points over real (one-sided 95% lower bound +1.0, corrected for 1 candidate)."
    )
    gain["lower_end"] = -0.01
    lost = sentence("VGG16", {**choice, "regime": "real", "variant": None})
    assert lost.startswith("VGG16: best is a copy of real. No use of synthetic images clearly")
