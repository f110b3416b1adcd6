"""ImageClassifier as a Keras user meets it, on this process's backend."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from classify.small_network import pretrained, small_network
from conftest import pair_batches, phantom_set
from PIL import Image

from kerasmed.classify import network
from kerasmed.classify.model import ImageClassifier
from kerasmed.data.marks import SYNTHETIC
from kerasmed.errors import ConfigError, InputError, MachineError, ModelFileError
from kerasmed.export.verify import verify_file
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.saved_models import load_model

SMALL = {"weights": "none", "input_size": 32, "batch_size": 8, "augment": "none", "dropout": 0.2}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(network, "build_network", small_network)


def small(images, **changes) -> ImageClassifier:
    options = {key: changes.pop(key) for key in ("dtype", "symmetry", "seed") if key in changes}
    return ImageClassifier.from_preset("MobileNet", images, **options, **{**SMALL, **changes})


def compiled(images, **changes) -> ImageClassifier:
    model = small(images, **changes)
    model.compile()
    return model


def losses_of(history: keras.callbacks.History) -> list[float]:
    return history.history["loss"]


def test_predict_gives_calibrated_probabilities_of_uint8_images(phantoms):
    model = compiled(phantoms)
    history = model.fit(phantoms, epochs=2, validation_data=phantoms, verbose=0)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    probabilities = model.predict(phantoms.images)
    assert probabilities.shape == (20, 2)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(model.predict(phantoms, batch_size=7), probabilities)
    logits = keras.ops.convert_to_numpy(model(phantoms.images))
    scaled = np.exp(logits / model.temperature)
    expected = scaled / scaled.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
    correct = probabilities[np.arange(20), phantoms.labels]
    evaluated = model.evaluate(phantoms)
    assert evaluated["loss"] == pytest.approx(-np.log(correct).mean(), rel=1e-4)
    assert evaluated["accuracy"] == (probabilities.argmax(axis=1) == phantoms.labels).mean()
    assert model.features(phantoms).shape == (20, 128)


def test_two_phases_are_one_argument_or_two_calls(phantoms, tmp_path):
    weights = str(pretrained(tmp_path))
    one = compiled(phantoms, weights=weights)
    expected = losses_of(one.fit(phantoms, epochs=2, verbose=0))
    two = compiled(phantoms, weights=weights)
    row = two.fit_head(phantoms, validation_data=phantoms)
    assert row["val_accuracy"] == two.evaluate(phantoms)["accuracy"]
    assert losses_of(two.fit(phantoms, epochs=2, verbose=0)) == expected
    without = compiled(phantoms, weights=weights)
    assert losses_of(without.fit(phantoms, epochs=2, head=False, verbose=0)) != expected


def test_second_fit_keeps_the_head_and_restarts_the_rate(phantoms, tmp_path):
    model = compiled(phantoms, weights=str(pretrained(tmp_path)), finetune_learning_rate=1e-9)
    model.fit(phantoms, epochs=1, verbose=0)
    head = model.network.get_layer("logits").get_weights()
    model.fit(phantom_set(per_class=4), epochs=2, verbose=0)
    for before, after in zip(head, model.network.get_layer("logits").get_weights(), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)
    assert int(model.optimizer.iterations) == 2
    assert model.batches_seen == 3 + 2


def test_head_learns_soft_labels(phantoms, tmp_path):
    weights = str(pretrained(tmp_path))

    def head_of(probabilities) -> list[np.ndarray]:
        model = compiled(phantoms, weights=weights)
        model.fit_head(replace(phantoms, probabilities=probabilities))
        return model.network.get_layer("logits").get_weights()

    for expected, received in zip(head_of(None), head_of(phantoms.targets), strict=True):
        np.testing.assert_array_equal(received, expected)
    for values in head_of(np.full((len(phantoms), 2), 0.5, np.float32)):  # they say nothing
        np.testing.assert_allclose(values, 0, atol=1e-3)


SAVED_AND_LOADED = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import phantom_set
from classify import test_image_classifier as test_model
import numpy as np
import kerasmed as km
test_model.network.build_network = test_model.small_network

images = phantom_set()
model = test_model.compiled(images, dtype=sys.argv[2])
model.fit(images, epochs=4, steps_per_epoch=3, validation_data=images, verbose=0)
model.save("saved.keras")
loaded = km.load_model("saved.keras")
np.testing.assert_array_equal(model.predict(images), loaded.predict(images))
options = {"epochs": 6, "initial_epoch": 4, "verbose": 0}
print(*[test_model.losses_of(m.fit(images, **options)) for m in (model, loaded)], sep=";")
"""


def test_the_step_is_traced_once(phantoms, monkeypatch):
    traced = []
    train_step = ImageClassifier.train_step
    monkeypatch.setattr(
        ImageClassifier, "train_step", lambda *given: traced.append(1) or train_step(*given)
    )
    compiled(phantoms).fit(phantoms, epochs=2, verbose=0)
    assert traced == [1]


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("tensorflow", "float32"),
     pytest.param("tensorflow", "mixed_bfloat16", marks=pytest.mark.slow),
     pytest.param("jax", "float32", marks=pytest.mark.slow)],
)  # fmt: skip
def test_saved_model_trains_on_as_one_that_was_never_saved(backend, dtype, tmp_path):
    pytest.importorskip(backend)
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", SAVED_AND_LOADED, tests, dtype],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    never_saved, loaded = map(json.loads, done.stdout.splitlines()[-1].split(";"))
    assert len(never_saved) == 2
    assert loaded == never_saved


@pytest.mark.parametrize(
    "give",
    [
        lambda images: (images.images, images.labels),
        lambda images: (images.to_tf_dataset(batch_size=4),),
        lambda images: (pair_batches(images),),
    ],
    ids=["arrays", "tf.data", "PyDataset"],
)
def test_fit_takes_what_keras_takes(give, phantoms, tmp_path):
    weights = str(pretrained(tmp_path))
    model, given = compiled(phantoms, weights=weights, symmetry="mirror"), give(phantoms)
    validation = given if len(given) == 2 else given[0]
    history = model.fit(*given, epochs=2, validation_data=validation, verbose=0)
    assert len(history.epoch) == 2
    assert model.evaluate(*given) == model.evaluate(phantoms)
    if len(given) == 2:
        whole = compiled(phantoms, weights=weights, symmetry="mirror")
        other = whole.fit(phantoms, epochs=2, validation_data=phantoms, verbose=0)
        assert losses_of(history) == losses_of(other)


def test_keras_callbacks_and_optimizers_work(phantoms, tmp_path):
    model = small(phantoms)
    model.compile(keras.optimizers.SGD(0.01), weighted_metrics=["accuracy", "auc"])
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras", "val_loss"),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    history = model.fit(
        phantoms, epochs=2, validation_data=phantoms, callbacks=callbacks, verbose=0
    )
    assert "auc" in history.history
    assert isinstance(load_model(tmp_path / "2.keras").optimizer, keras.optimizers.SGD)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_export_predicts_as_the_model(phantoms, tmp_path, dtype):
    model = compiled(phantoms, dtype=dtype)
    model.fit(phantoms, epochs=1, validation_data=phantoms, verbose=0)
    sidecar = model.export(tmp_path / "cnn.onnx", note="mine")
    assert (sidecar["backbone"], sidecar["note"]) == ("MobileNet", "mine")
    exported = OnnxClassifier(tmp_path / "cnn.onnx")
    np.testing.assert_allclose(
        exported.predict(phantoms.images), model.predict(phantoms), atol=1e-5
    )
    model.save(tmp_path / "cnn.keras")
    loaded = load_model(tmp_path / "cnn.keras")
    assert loaded.dtype_policy.name == dtype
    loaded.export(tmp_path / "again.onnx")  # checked on noise


def test_callback_may_stop_the_training_in_its_first_half(phantoms):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    history = compiled(phantoms).fit(
        phantoms, epochs=8, validation_data=phantoms, callbacks=[Stop()], verbose=0
    )
    assert history.epoch == [0]


def test_file_is_read_as_the_training_images_were(phantoms, tmp_path):
    formats = {"grey_range": [0.0, 4000.0], "nifti": {"axis": "coronal"}}
    images = replace(phantoms, formats=formats)
    model = small(images)
    assert model.formats == formats
    synthetic = tuple(replace(file, notes=(SYNTHETIC,)) for file in phantoms.files)
    model.compile()
    model.fit(replace(phantoms, files=synthetic), epochs=1, verbose=0)
    assert model.formats == formats  # drawn images say nothing about files
    model.save(tmp_path / "cnn.keras")
    loaded = load_model(tmp_path / "cnn.keras")
    assert loaded.formats == formats
    assert loaded.export(tmp_path / "cnn.onnx")["formats"] == formats
    assert verify_file(tmp_path / "cnn.onnx")["sidecar"] == "the same metadata, SHA-256 matches"

    values = np.random.default_rng(0).integers(0, 4000, (16, 16), np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    grey = np.round(values / 4000 * 255).astype(np.uint8)
    expected = loaded.predict(np.repeat(grey[None, ..., None], 3, axis=3))
    np.testing.assert_allclose(
        OnnxClassifier(tmp_path / "cnn.onnx").predict([tmp_path / "deep.png"]), expected, atol=1e-3
    )

    model.fit(phantoms, epochs=1, verbose=0)
    assert model.formats == {}


def test_progress_is_shown_where_asked(phantoms, capsys):
    model = small(phantoms)
    model.predict(phantoms)
    model.evaluate(phantoms)
    assert capsys.readouterr().err == ""
    model.predict(phantoms, verbose=1)
    model.evaluate(phantoms, verbose="auto")
    shown = capsys.readouterr().err
    assert "Predicting: 20 images" in shown
    assert "Evaluating: 20 images" in shown


def test_training_may_begin_at_any_epoch_and_measure_anything(phantoms):
    model = small(phantoms)
    model.compile(weighted_metrics=None)
    history = model.fit(
        phantoms, epochs=4, initial_epoch=2, validation_data=phantoms, callbacks=None, verbose=0
    )
    assert history.epoch == [2, 3]
    assert "accuracy" not in history.history


def test_weights_file_brings_the_temperature(phantoms, tmp_path):
    model, other = compiled(phantoms), small(phantoms)
    model.fit(phantoms, epochs=1, validation_data=phantoms, verbose=0)
    model.save_weights(tmp_path / "cnn.weights.h5")
    other.load_weights(tmp_path / "cnn.weights.h5")
    assert other.temperature == model.temperature != 1.0
    np.testing.assert_array_equal(other.predict(phantoms), model.predict(phantoms))
    model.fit(phantoms, epochs=1, verbose=0)
    assert model.temperature == 1.0


def test_checkpoint_of_keras_knows_how_far_the_training_is(phantoms, tmp_path):
    model = compiled(phantoms)
    callbacks = [keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")]
    model.fit(phantoms, epochs=2, callbacks=callbacks, verbose=0)
    first = load_model(tmp_path / "1.keras")
    assert (first.batches_seen, first.is_trained) == (3, True)


def test_weights_that_are_set_directly_are_those_that_predict(phantoms):
    model = compiled(phantoms, dtype="mixed_bfloat16")
    before = model.predict(phantoms)
    head = model.network.get_layer("logits")
    head.set_weights([weight + 1.0 + np.arange(2) for weight in head.get_weights()])
    assert np.abs(model.predict(phantoms) - before).max() > 0.1


def test_head_of_a_long_stream_is_fitted_to_one_epoch(phantoms, tmp_path):
    model = compiled(phantoms, weights=str(pretrained(tmp_path)))
    endless = phantoms.to_tf_dataset(batch_size=4).repeat()
    model.fit(endless, epochs=1, steps_per_epoch=5, verbose=0)
    assert model.batches_seen == 5


def test_export_needs_tensorflow(phantoms, tmp_path, monkeypatch):
    model = small(phantoms)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(MachineError, match="needs TensorFlow, received jax"):
        model.export(tmp_path / "cnn.onnx")


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda m, p: m.fit(p), InputError, r"fit: expected a compiled model.*`compile\(\)`"),
        (lambda m, p: compiled(p).fit(p.images, p.labels - 1), InputError, "received -1 to 0"),
        (lambda m, p: compiled(p).fit(phantom_set(size=32)), InputError, "received 32 x 32"),
        (lambda m, p: compiled(p).fit(
            p, validation_data=(p.images, p.labels, np.ones(20))
        ), InputError, r"validation_data: expected images, or a pair.* received 3 elements"),
        (lambda m, p: m.fit_head(p), InputError, "fit_head: expected pretrained weights"),
        (lambda m, p: m.predict(p.images / 255), InputError, "expected uint8"),
        (lambda m, p: m.predict(phantom_set(size=32)), InputError, "received 32 x 32; resize"),
        (lambda m, p: m.predict(p[:0]), InputError, "expected one or more, received none"),
        (lambda m, p: compiled(p).fit(p[:0]), InputError, "expected one or more, received none"),
        (lambda m, p: m.predict(p, batch_size=0), InputError, "batch_size: expected 1 or more"),
        (lambda m, p: m.set_weights(m.get_weights()[1:]), InputError, "arrays of other shapes"),
        (lambda m, p: small(p, symmetry="dihedrl"), InputError, "received 'dihedrl'"),
        (lambda m, p: small(p, droput=0.1), InputError, "unknown key droput"),
        (lambda m, p: ImageClassifier("MobileNet", 16, ["all"]), InputError,
         r"expected two classes or more, received \['all'\]"),
        (lambda m, p: small(p, weights="missing.h5"), ConfigError, "not a file; correct the path"),
        (lambda m, p: ImageClassifier.from_preset("MobilNet", p, weights="none"), ConfigError,
         "did you mean MobileNet"),
        (lambda m, p: ImageClassifier.from_config(
            {**m.get_config(), "settings": {"later": 1}, "kerasmed_version": "9.0"}
        ), ModelFileError, r"saved by kerasmed 9\.0, .* unknown key later"),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(act, error, message, phantoms):
    with pytest.raises(error, match=message):
        act(small(phantoms), phantoms)
