"""Stages that several processes divide among them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kerasmed.classify.config import BackboneConfig
from kerasmed.parallel.resolve import resolve_runtime
from kerasmed.study.classifier_specs import exported_path
from kerasmed.study.config import parse_config
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import classifiers as networks
from kerasmed.study.stages import export as exporting
from kerasmed.study.stages.classifiers import train_shard
from kerasmed.study.stages.explain import explain_classifiers, explain_shard
from kerasmed.study.stages.export import export_classifiers, export_shard


@pytest.fixture
def run(run_copy) -> RunFolder:
    return RunFolder(run_copy)


@pytest.fixture
def config(run):
    return parse_config(run.record()["config"], "test")


def _times(folder) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_explanations_are_divided_and_then_not_made_again(run, config):
    before = sorted(run.explanations.rglob("*.png"))
    shutil.rmtree(run.explanations)

    assert explain_shard(config, run, 2, 2) == 3  # the first of two images, by three CNNs
    drawn = _times(run.explanations)
    assert 0 < len(drawn) < 2 * len(before)
    assert explain_shard(config, run, 1, 2) == 0
    drawn = _times(run.explanations)

    assert explain_classifiers(config, run)["images"] == 2
    after = _times(run.explanations)
    assert {path: after[path] for path in drawn} == drawn
    assert sorted(run.explanations.rglob("*.png")) == before
    assert (run.explanations / "summary.json").exists()


@pytest.fixture
def quick_export(run, monkeypatch):
    """Stands in for the conversion: the file that the shared study exported, and its sidecar."""
    kept = Path(shutil.copytree(run.exported, run.root / "kept"))

    def export(spec, config, run, *_):
        for suffix in (".onnx", ".json"):
            path = exported_path(spec, run).with_suffix(suffix)
            path.parent.mkdir(exist_ok=True)
            shutil.copyfile(kept / path.name, path)
        return {spec.name: json.loads(path.read_text())}

    monkeypatch.setattr(exporting, "_export_classifier", export)


def test_exports_are_divided_and_made_again_only_where_something_changed(run, config, quick_export):
    written = _times(run.exported)
    first = export_classifiers(config, run)
    assert _times(run.exported) == written
    assert first.keys() == {path.stem for path in run.exported.glob("*.onnx")}

    shutil.rmtree(run.exported)
    assert export_shard(config, run, 2, 2) == 2  # of three CNNs the second is done
    assert [path.stem for path in run.exported.glob("*.onnx")] == ["MobileNet-synthetic-s0"]
    assert export_shard(config, run, 1, 2) == 0
    written = _times(run.exported)
    assert export_classifiers(config, run) == first
    assert _times(run.exported) == written

    # Without its sidecar, or with that of another file, one is not whole.
    (run.exported / "MobileNet-synthetic-s0.json").unlink()
    (run.exported / "MobileNet-both-s0.json").write_text("[]")
    shutil.copyfile(
        run.exported / "MobileNet-both-s0.onnx", run.exported / "MobileNet-real-s0.onnx"
    )
    assert export_classifiers(config, run) == first
    assert (run.exported / "MobileNet-synthetic-s0.json").exists()
    restored, kept = (
        folder / "MobileNet-real-s0.onnx" for folder in (run.exported, run.root / "kept")
    )
    assert restored.read_bytes() == kept.read_bytes()
    written = _times(run.exported)

    retrained = run.classifiers / "MobileNet-real-s0" / "model.keras"
    shutil.copyfile(run.classifiers / "MobileNet-both-s0" / "model.keras", retrained)
    export_classifiers(config, run)
    changed = {path for path, time in _times(run.exported).items() if written[path] != time}
    assert changed == {str(run.exported / f"MobileNet-real-s0{end}") for end in (".onnx", ".json")}


def test_all_cnns_take_as_many_steps_where_asked(run, config, monkeypatch):
    asked = {}

    def train(backbone, phases, *arguments):
        *_, folder, images_per_epoch = arguments
        asked[folder.name] = (sum(map(len, phases[0].sets())), images_per_epoch)
        return None, {}

    monkeypatch.setattr("kerasmed.classify.training.train_classifier", train)
    for equal_steps in (False, True):
        changed = config.classifiers.model_copy(update={"equal_steps": equal_steps})
        # Another rate, so that what the shared study has trained is trained again.
        changed = changed.model_copy(update={"finetune_learning_rate": 0.01})
        assert train_shard(config.model_copy(update={"classifiers": changed}), run) == 0
        both = next(count for name, (count, _) in asked.items() if "both" in name)
        assert len({count for count, _ in asked.values()}) > 1
        expected = {both} if equal_steps else {None}
        assert {images_per_epoch for _, images_per_epoch in asked.values()} == expected


def test_cnns_are_trained_with_the_settings_of_their_backbone(run, config, monkeypatch):
    asked = {}

    def train(backbone, phases, *arguments):
        (phase,) = phases
        asked[backbone] = (phase.settings.input_size, phase.settings.finetune_epochs)
        return None, {}

    monkeypatch.setattr("kerasmed.classify.training.train_classifier", train)
    own = BackboneConfig(input_size=75, finetune_epochs=7)
    changed = {"backbones": ["MobileNet", "VGG16"], "by_backbone": {"VGG16": own}}
    classifiers = config.classifiers.model_copy(update=changed)
    train_shard(config.model_copy(update={"classifiers": classifiers}), run)
    # What differs for another backbone is no reason to train this one again.
    assert asked == {"VGG16": (75, 7)}


def test_cnns_are_trained_again_by_what_makes_another_network_alone(run, config, monkeypatch):
    trained = []

    def train(backbone, phases, *arguments):
        trained.append(arguments[-2].name)
        return None, {}

    monkeypatch.setattr("kerasmed.classify.training.train_classifier", train)

    # Another machine, of which "auto" makes something else.
    elsewhere = replace(resolve_runtime(config.runtime), precision="mixed_float16")
    monkeypatch.setattr(networks, "resolve_runtime", lambda *_, **__: elsewhere)
    assert (train_shard(config, run), trained) == (0, [])

    (run.classifiers / "MobileNet-both-s0" / "model.keras").unlink()
    assert (train_shard(config, run), trained) == (0, ["MobileNet-both-s0"])
    trained.clear()

    weights = run.root / "w.h5"
    changed = config.classifiers.model_copy(update={"weights": str(weights), "train_on": ["real"]})
    changed = config.model_copy(update={"classifiers": changed})
    for content in (b"1", b"2", b"2"):
        weights.write_bytes(content)
        assert train_shard(changed, run) == 0
    assert len(trained) == 2
