"""Fidelity in the features of a pretrained network that is named in the settings."""

import json

import keras
import numpy as np
import pytest

from kerasmed.audit.config import AuditConfig
from kerasmed.audit.extractors import named_extractors, open_extractors
from kerasmed.classify.config import ClassifierConfig
from kerasmed.cli.main import main
from kerasmed.errors import ConfigError
from kerasmed.study.config import parse_config


@pytest.fixture
def weights(tmp_path):
    """A file of weights for MobileNet without its top."""
    path = tmp_path / "own.weights.h5"
    keras.applications.MobileNet(
        alpha=0.75, include_top=False, weights=None, input_shape=(224, 224, 3)
    ).save_weights(path)
    return path


def test_named_network_is_exported_once_and_measures_fidelity(tiny_config, run_copy, weights):
    audit = [
        "audit", str(tiny_config), "--out", str(run_copy),
        "--set", "audit.extractors=[MobileNet]",
        "--set", f"audit.extractor_weights={weights}",
    ]  # fmt: skip

    assert main(audit) == 0
    (exported,) = (run_copy / "cache" / "extractors").glob("*.onnx")
    written = exported.stat().st_mtime_ns
    assert main(audit) == 0

    assert exported.stat().st_mtime_ns == written
    fidelity = json.loads((run_copy / "evaluation" / "fidelity.json").read_text())
    in_network = fidelity["in_networks"]["MobileNet (own.weights.h5)"]
    assert in_network != fidelity["in_features"]
    assert np.isfinite(in_network["synthetic_to_reserve"]["kid"])
    table = (run_copy / "evaluation" / "fidelity.csv").read_text()
    assert "features of MobileNet (own.weights.h5),all,synthetic" in table


def test_first_pretrained_network_of_the_study_is_the_default(tmp_path, weights):
    named = {"MobileNetV2": "none", "MobileNet": str(weights), "VGG16": "none"}
    classifiers = ClassifierConfig(backbones=[*named], weights=named)

    (extractor,) = named_extractors(AuditConfig(), classifiers)

    assert extractor == ("MobileNet", str(weights))
    assert named_extractors(AuditConfig(), ClassifierConfig(weights="none")) == []
    assert named_extractors(AuditConfig(extractors=[]), classifiers) == []
    with pytest.raises(ConfigError, match=r"expected an ONNX file, received 'no.onnx'"):
        named_extractors(AuditConfig(extractors=["no.onnx"]), classifiers)


def test_file_of_any_network_is_used_as_it_is(tmp_path, tiny_run):
    exported = sorted((tiny_run / "exported").glob("*.onnx"))[0]
    images = np.zeros((3, 32, 32, 3), np.uint8)
    classifiers = ClassifierConfig(weights="none")
    settings = AuditConfig(extractors=[str(exported)])

    named = named_extractors(settings, classifiers)
    ((name, extractor),) = open_extractors(named, images, tmp_path)

    assert name == exported.name
    assert extractor.features(np.zeros((3, 32, 32, 3), np.uint8)).ndim == 2
    assert not list(tmp_path.iterdir())


def test_network_that_is_unknown_or_has_learned_nothing_is_refused(tiny_config, run_copy, capsys):
    study = ["study", str(tiny_config), "--out", str(run_copy), "--set"]

    assert main([*study, "audit.extractors=[InceptionV4]"]) == 2
    assert "did you mean InceptionV3?" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="a network without weights has learned no features"):
        parse_config(
            {"name": "x", "data": {"source": "s"}, "audit": {"extractor_weights": "none"}}, "x"
        )
