"""Images explained by a tiny classifier file, with every check recomputed separately."""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kerasmed.errors import ModelFileError
from kerasmed.explain import network
from kerasmed.explain.checks import (
    LOGITS,
    compare_with_region,
    deletion_and_insertion,
    randomise_weights,
)
from kerasmed.explain.config import ExplainConfig
from kerasmed.explain.explainers import EXPLAINERS, build_explainer
from kerasmed.explain.masks import apply_masks, draw_masks, fill_of, kernel_weights
from kerasmed.explain.network import NetworkExplainer, agreement_of_precisions
from kerasmed.explain.segments import segment_image
from kerasmed.explain.surrogate import fit_surrogate, rank_correlation
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.runtime.backend import load_keras

SIZE = 16
SETTINGS = ExplainConfig(
    explainers=list(EXPLAINERS),
    num_samples=60,
    min_samples=60,
    superpixels=16,
    segmentation="grid",
    hide=0,
    top=3,
)
NOTES = {"image": "scan.png", "true_class": "lesion"}


def _write_classifier(path, seed=0, precision="fp32"):
    """Softmax of one dense layer over the pixels, with the metadata of a kerasmed file."""
    rng, helper, kinds = np.random.default_rng(seed), onnx.helper, onnx.TensorProto
    arrays = {
        "scale": np.float32([1 / 255]),
        "kernel": rng.normal(0, 0.2, (SIZE * SIZE * 3, 2)).astype(np.float32),
        "bias": np.float32([0.1, -0.1]),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=kinds.FLOAT),
        helper.make_node("Mul", ["x", "scale"], ["y"]),
        helper.make_node("Flatten", ["y"], ["features"]),
        helper.make_node("MatMul", ["features", "kernel"], ["z"]),
        helper.make_node("Add", ["z", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("images", kinds.UINT8, ["n", SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["n", 2]),
            helper.make_tensor_value_info("features", kinds.FLOAT, ["n", SIZE * SIZE * 3]),
        ],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    metadata = {
        "kind": "classifier",
        "class_names": ["clear", "lesion"],
        "input_size": SIZE,
        "precision": precision,
        "temperature": 2.0,
    }
    helper.set_model_props(model, {f"kerasmed.{k}": json.dumps(v) for k, v in metadata.items()})
    onnx.save(model, path)
    return path


class Counting(OnnxClassifier):
    """Notes how many images it predicted."""

    predicted = 0

    def predict(self, images):
        self.predicted += len(images)
        return super().predict(images)


@pytest.fixture
def engine(tmp_path):
    return Counting(_write_classifier(tmp_path / "net.onnx"), provider="cpu", threads=1)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(2).integers(30, 256, (SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def segments(image) -> np.ndarray:
    return segment_image(image, "grid", 16)


def _explain(engine, folder, image, segments, region=None, stem="scan", seed=0, **changes):
    settings = SETTINGS.model_copy(update=changes)
    with NetworkExplainer(engine, folder / "model.keras", settings, seed) as network:
        return network.explain_into(folder / "out", stem, image, segments, NOTES, region)


def test_each_explainer_leaves_a_picture_and_a_record(engine, tmp_path, image, segments):
    records = _explain(engine, tmp_path, image, segments)

    names = ["scan", "scan.kernel_shap", "scan.occlusion"]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {f"{name}{suffix}" for name in names for suffix in (".png", ".json")}
    assert list(records) == list(EXPLAINERS)
    for name, record in records.items():
        path = tmp_path / "out" / record["picture"]
        assert json.loads(path.with_suffix(".json").read_text()) == record
        assert record["explainer"] == name
        assert record.items() >= NOTES.items()
        assert record["segments"] == segments.tolist()


def test_records_hold_what_the_explainers_find(engine, tmp_path, image, segments):
    records = _explain(engine, tmp_path, image, segments, seed=5)

    for name, record in records.items():
        expected = build_explainer(name, engine.predict, SETTINGS, 5).explain(image, segments)
        weights = dict(zip(engine.class_names, expected.superpixel_weights.T.tolist(), strict=True))
        assert record["weights"] == weights
        assert record["predicted_class"] == engine.class_names[expected.predicted]
        assert record["num_samples"] == expected.num_samples


def test_what_is_there_is_not_made_again(engine, tmp_path, image, segments):
    first = _explain(engine, tmp_path, image, segments)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    engine.predicted = 0

    second = _explain(engine, tmp_path, image, segments)

    assert second == first
    assert engine.predicted == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == times


def test_only_added_explainers_are_run(engine, tmp_path, image, segments):
    _explain(engine, tmp_path, image, segments, explainers=["lime"], checks=False)
    engine.predicted = 0

    records = _explain(
        engine, tmp_path, image, segments, explainers=["lime", "occlusion"], checks=False
    )

    assert engine.predicted == 16 + 1
    assert list(records) == ["lime", "occlusion"]


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"num_samples": 61}, {"top": 4}, {"hide": 9}, {"checks": False}]
)
def test_other_settings_are_explained_again(engine, tmp_path, image, segments, changes):
    _explain(engine, tmp_path, image, segments, explainers=["lime"])
    engine.predicted = 0

    _explain(engine, tmp_path, image, segments, explainers=["lime"], **changes)

    assert engine.predicted > 0


def test_other_image_and_other_file_are_explained_again(engine, tmp_path, image, segments):
    (first,) = _explain(engine, tmp_path, image, segments, explainers=["occlusion"]).values()
    other_image = np.rot90(image).copy()
    (second,) = _explain(engine, tmp_path, other_image, segments, explainers=["occlusion"]).values()
    other_file = OnnxClassifier(_write_classifier(tmp_path / "net.onnx", seed=1), "cpu", threads=1)
    (third,) = _explain(
        other_file, tmp_path, other_image, segments, explainers=["occlusion"]
    ).values()

    weights = [record["weights"]["lesion"] for record in (first, second, third)]
    assert weights[0] != weights[1] != weights[2]
    inputs = [record["fingerprint"]["inputs"] for record in (first, second, third)]
    assert len({of_one["model"] for of_one in inputs}) == 2
    assert len({of_one["image"] for of_one in inputs}) == 2


def test_other_segments_notes_and_regions_are_explained_again(engine, tmp_path, image, segments):
    settings = ExplainConfig(explainers=["occlusion"])
    four = segment_image(image, "grid", 4)
    region = np.ones(image.shape[:2], bool)
    with NetworkExplainer(engine, Path("nowhere"), settings, 0) as network:
        network.explain_into(tmp_path, "a", image, segments, {"image": "a.png"})
        again = network.explain_into(tmp_path, "a", image, four, {"image": "a.png"})["occlusion"]
        noted = network.explain_into(tmp_path, "a", image, four, {"image": "b.png"})["occlusion"]
        known = network.explain_into(tmp_path, "a", image, four, {"image": "b.png"}, region)

    assert again["segments"] == four.tolist()
    assert noted["image"] == "b.png"
    assert known["occlusion"]["region"]["pointing_game"]


def test_file_that_does_not_say_its_precision_is_explained_unshuffled(
    engine, tmp_path, image, segments, monkeypatch
):
    monkeypatch.delitem(engine.metadata, "precision")

    assert "randomised" not in _explain(engine, tmp_path, image, segments)["lime"]


def test_checks_are_those_of_the_modules(engine, tmp_path, image, segments):
    records = _explain(engine, tmp_path, image, segments, seed=4)

    for name, record in records.items():
        label = engine.class_names.index(record["predicted_class"])
        weights = np.array(record["weights"][record["predicted_class"]])
        expected = deletion_and_insertion(image, segments, weights, label, engine.predict, 0, 4)
        assert record["faithfulness"] == expected
        assert ("randomised" in record) == (name == "lime")
        assert "region" not in record


def test_shuffled_network_is_explained_from_the_same_masks(engine, tmp_path, image, segments):
    record = _explain(engine, tmp_path, image, segments, seed=4)["lime"]

    randomise_weights(engine.path, tmp_path / "shuffled.onnx", 4)
    shuffled = OnnxClassifier(tmp_path / "shuffled.onnx", "cpu", threads=1)
    label = engine.class_names.index(record["predicted_class"])
    masks = draw_masks(len(np.unique(segments)), record["num_samples"], 4, SETTINGS.sampling)
    shown = apply_masks(image, fill_of(image, segments, SETTINGS.hide), segments, masks)
    logits = shuffled.outputs(shown, (LOGITS,))[LOGITS]
    other = fit_surrogate(masks, logits, kernel_weights(masks.mean(axis=1)), False)
    expected = rank_correlation(
        np.array([record["weights"][record["predicted_class"]]]), other.weights[None, :, label]
    )
    assert record["randomised"] == pytest.approx(expected)
    assert -1 <= record["randomised"] < 0.9


def test_shuffled_network_whose_softmax_is_saturated_is_still_explained(tmp_path, image, segments):
    path = _write_classifier(tmp_path / "net.onnx")
    model = onnx.load(path)
    arrays = {array.name: array for array in model.graph.initializer}
    for name in ("kernel", "bias"):
        # Differences of thousands: the probabilities are 0 and 1 to the last bit.
        values = numpy_helper.to_array(arrays[name]) * np.float32(1000)
        arrays[name].CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, path)
    plain = _explain(
        OnnxClassifier(_write_classifier(tmp_path / "a.onnx")), tmp_path, image, segments
    )

    saturated = _explain(OnnxClassifier(path), tmp_path / "b", image, segments)["lime"]

    # The map of a logit does not change with the logit's scale; that of rounding would.
    assert saturated["randomised"] != 0
    assert "randomised" in plain["lime"]


def test_map_that_stays_without_the_training_is_warned_of(tmp_path, image, segments, monkeypatch):
    engine = OnnxClassifier(_write_classifier(tmp_path / "net.onnx"), "cpu", threads=1)
    monkeypatch.setattr(network, "rank_correlation", lambda *_: 0.51)

    record = _explain(engine, tmp_path, image, segments)["lime"]

    assert any("stays alike (rank correlation 0.51)" in warning for warning in record["warnings"])


def test_without_checks_there_are_none(engine, tmp_path, image, segments):
    region = np.ones((SIZE, SIZE), dtype=bool)

    records = _explain(engine, tmp_path, image, segments, region, checks=False)

    for record in records.values():
        assert not {"faithfulness", "randomised", "region"} & set(record)


def test_file_of_another_precision_is_not_shuffled(tmp_path, image, segments):
    path = _write_classifier(tmp_path / "net.int8.onnx", precision="int8")

    record = _explain(OnnxClassifier(path, "cpu", threads=1), tmp_path, image, segments)["lime"]

    assert "randomised" not in record
    assert "faithfulness" in record


def test_region_is_compared_where_it_is_known(engine, tmp_path, image, segments):
    region = segments == 6

    records = _explain(engine, tmp_path, image, segments, region)

    for record in records.values():
        weights = np.array(record["weights"][record["predicted_class"]])
        assert record["region"] == compare_with_region(weights, segments, region, 3)


def test_empty_region_is_not_compared(engine, tmp_path, image, segments):
    region = np.zeros((SIZE, SIZE), dtype=bool)

    for record in _explain(engine, tmp_path, image, segments, region).values():
        assert "region" not in record


def test_no_temporary_file_is_left(engine, tmp_path, image, segments, monkeypatch):
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(aside))
    with NetworkExplainer(engine, tmp_path / "model.keras", SETTINGS, 0) as network:
        network.explain_into(tmp_path / "out", "scan", image, segments, NOTES)
        assert [path.name for path in aside.glob("*/*")] == ["shuffled.onnx"]

    assert list(aside.iterdir()) == []


def test_network_is_not_shuffled_where_every_record_is_there(
    engine, tmp_path, image, segments, monkeypatch
):
    _explain(engine, tmp_path, image, segments)
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(aside))
    with NetworkExplainer(engine, tmp_path / "model.keras", SETTINGS, 0) as network:
        network.explain_into(tmp_path / "out", "scan", image, segments, NOTES)
        assert list(aside.glob("*/*")) == []


def test_cam_without_the_keras_network_is_refused(engine, tmp_path):
    settings = SETTINGS.model_copy(update={"explainers": ["lime", "cam"]})

    with pytest.raises(
        ModelFileError, match=r"CAM needs the Keras network of .*net\.onnx: expected it at"
    ):
        NetworkExplainer(engine, tmp_path / "model.keras", settings, 0)


def test_cam_with_the_keras_network_is_recorded_and_checked(engine, tmp_path, image, segments):
    load_keras()
    from kerasmed.classify.model import ImageClassifier
    from kerasmed.explain.cam import CamExplainer

    settings = {"weights": "none", "input_size": 32, "dropout": 0.2}
    model = ImageClassifier("MobileNet", SIZE, ["clear", "opaque"], settings, temperature=2.0)
    model.save(tmp_path / "model.keras")

    record = _explain(engine, tmp_path, image, segments, explainers=["cam"])["cam"]

    expected = CamExplainer(model.network, 2.0).explain(image, segments)
    assert record["picture"] == "scan.cam.png"
    np.testing.assert_allclose(record["weights"]["clear"], expected.superpixel_weights[:, 0])
    np.testing.assert_allclose(list(record["probabilities"].values()), expected.probabilities)
    assert "faithfulness" in record
    assert "randomised" not in record


def _predict(seed):
    """A model that weighs the sixteen squares of the grid."""
    square_weights = np.random.default_rng(seed).dirichlet(np.ones(16))

    def predict(images):
        squares = images.reshape(len(images), 4, 4, 4, 4, 3).mean(axis=(2, 4, 5)).reshape(-1, 16)
        positive = squares @ square_weights / 255
        return np.stack([1 - positive, positive], axis=1)

    return predict


def test_one_model_agrees_with_itself_and_not_with_its_reverse(image):
    images = np.stack([image, 255 - image])

    def reverse(batch):
        return _predict(0)(batch)[:, ::-1]

    assert agreement_of_precisions(images, _predict(0), _predict(0), SETTINGS, 0) == 1
    assert agreement_of_precisions(images, _predict(0), reverse, SETTINGS, 0) == pytest.approx(-1)


def test_agreement_is_the_mean_over_images_from_the_same_masks(image):
    images = np.stack([image, 255 - image, np.rot90(image)])

    agreement = agreement_of_precisions(images, _predict(0), _predict(1), SETTINGS, 3)

    correlations = []
    for one_image in images:
        one, other = (
            build_explainer("lime", _predict(i), SETTINGS, 3).explain(one_image) for i in (0, 1)
        )
        weights = (e.superpixel_weights[None, :, one.predicted] for e in (one, other))
        correlations.append(rank_correlation(*weights))
    assert agreement == pytest.approx(np.mean(correlations))
    assert -0.9 < agreement < 0.9


def test_agreement_takes_only_the_least_samples(image):
    batch_sizes = []

    def predict(images):
        batch_sizes.append(len(images))
        return _predict(0)(images)

    settings = SETTINGS.model_copy(update={"num_samples": 500, "min_samples": 40})
    agreement_of_precisions(image[None], predict, predict, settings, 0)

    assert batch_sizes == [40, 40]


@pytest.mark.parametrize(("threads", "batch_size"), [(1, "auto"), (3, "auto"), (2, 5), (1, 64)])
def test_threads_and_batches_of_the_engine_change_no_explanation(
    engine, image, threads, batch_size
):
    other = OnnxClassifier(engine.path, "cpu", threads=threads, batch_size=batch_size)

    expected, explanation = (
        build_explainer("lime", model.predict, ExplainConfig(superpixels=16), 3).explain(image)
        for model in (engine, other)
    )

    assert explanation.num_samples == expected.num_samples
    np.testing.assert_allclose(
        explanation.superpixel_weights, expected.superpixel_weights, atol=1e-6
    )
