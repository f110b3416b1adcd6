"""DiffusionModel as a Keras user meets it, on this process's backend."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import no_levels, pair_batches, phantom_set

import kerasmed as km
from kerasmed.diffusion import unet
from kerasmed.diffusion.model import DiffusionModel
from kerasmed.errors import InputError, MachineError, ModelFileError, StageError
from kerasmed.export.verify import verify_file
from kerasmed.inference.denoiser import OnnxDenoiser
from kerasmed.saved_models import load_model

pytestmark = pytest.mark.usefixtures("few_layers")

SMALL = {"widths": [8], "batch_size": 4, "warmup_steps": 2, "dropout": 0.2, "augment": 0.3}


def small(images, **changes) -> DiffusionModel:
    options = {key: changes.pop(key) for key in ("dtype", "symmetry", "seed") if key in changes}
    return DiffusionModel.from_preset("cpu", images, **options, **{**SMALL, **changes})


def compiled(images, **changes) -> DiffusionModel:
    model = small(images, **changes)
    model.compile()
    return model


@pytest.fixture(scope="module")
def trained() -> DiffusionModel:
    """A model after one epoch; read it, do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "_down_and_up", no_levels)
        model = compiled(phantom_set())
    model.fit(phantom_set(), verbose=0)
    return model


def losses_of(history: keras.callbacks.History) -> list[float]:
    return history.history["loss"]


def test_fit_validates_the_average_and_returns_keras_history(phantoms):
    model = compiled(phantoms)
    history = model.fit(phantoms, epochs=2, validation_data=phantoms, verbose=0)
    assert isinstance(history, keras.callbacks.History)
    assert history.epoch == [0, 1]
    evaluated = model.evaluate(phantoms)
    assert list(evaluated) == [
        "loss", "loss_t0_249", "loss_t250_499", "loss_t500_749", "loss_t750_999",
    ]  # fmt: skip
    last = {name.removeprefix("val_"): values[-1] for name, values in history.history.items()}
    assert {name: last[name] for name in list(evaluated)[1:]} == {
        name: evaluated[name] for name in list(evaluated)[1:]
    }
    assert history.history["val_loss"][-1] == evaluated["loss"]
    levels = list(evaluated.values())[1:]
    assert np.mean(levels) == pytest.approx(evaluated["loss"], rel=0.02)
    assert levels == sorted(levels, reverse=True)  # as the weights fall with the noise


def test_training_in_two_calls_equals_one(phantoms):
    whole, parted = compiled(phantoms), compiled(phantoms)
    expected = losses_of(whole.fit(phantoms, epochs=3, verbose=0))
    received = losses_of(parted.fit(phantoms, epochs=1, verbose=0))
    received += losses_of(parted.fit(phantoms, epochs=3, initial_epoch=1, verbose=0))
    assert received == expected
    assert len(set(expected)) == 3


SAVED_AND_LOADED = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import phantom_set
from diffusion.test_diffusion_model import compiled, losses_of
import numpy as np
import kerasmed as km

images = phantom_set()
model = compiled(images, dtype=sys.argv[2], widths=[4, 8])  # more than ten dense layers
model.fit(images, epochs=2, verbose=0)
model.save("saved.keras")
loaded = km.load_model("saved.keras")
for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
    np.testing.assert_array_equal(one, other)
drawn = [m.sample(per_class=2, steps=3, verbose=0).images for m in (model, loaded)]
np.testing.assert_array_equal(*drawn)
print(*[losses_of(m.fit(images, epochs=4, initial_epoch=2, verbose=0)) for m in (model, loaded)],
      sep=";")
"""


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("tensorflow", "float32"),
     pytest.param("jax", "float32", marks=pytest.mark.slow),
     pytest.param("tensorflow", "mixed_float16", marks=pytest.mark.slow)],
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


def test_checkpoints_resume_exactly(phantoms, tmp_path):
    expected = losses_of(compiled(phantoms).fit(phantoms, epochs=4, verbose=0))
    received = []
    for epochs in (1, 3, 4):
        callbacks = [km.callbacks.Checkpoints(tmp_path)]
        model = compiled(phantoms)
        received += losses_of(model.fit(phantoms, epochs=epochs, callbacks=callbacks, verbose=0))
    assert received == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000015.npz", "step-00000020.npz",
    ]  # fmt: skip
    with pytest.raises(StageError, match=r"`training images` was"):
        model.fit(phantom_set(per_class=9), steps_per_epoch=5, callbacks=callbacks, verbose=0)


def test_best_average_is_restored(phantoms, tmp_path):
    model, checkpoints = compiled(phantoms), km.callbacks.Checkpoints(tmp_path)
    history = model.fit(
        phantoms, epochs=3, validation_data=phantoms, callbacks=[checkpoints], verbose=0
    )
    best = checkpoints.restore_best(model)
    assert best["validation_loss"] == min(history.history["val_loss"])
    assert model.evaluate(phantoms)["loss"] == best["validation_loss"]


@pytest.mark.parametrize(
    "give",
    [
        lambda images: (images.images, images.labels),
        lambda images: (images.images, np.array(images.class_names)[images.labels]),
        lambda images: (images.to_tf_dataset(batch_size=4),),
        lambda images: (pair_batches(images),),
    ],
    ids=["arrays", "names", "tf.data", "PyDataset"],
)
def test_fit_takes_what_keras_takes(give, phantoms):
    model = compiled(phantoms)
    given = give(phantoms)
    validation = given if len(given) == 2 else given[0]
    history = model.fit(*given, epochs=2, validation_data=validation, verbose=0)
    assert model.batches_seen == 10
    assert np.isfinite(history.history["val_loss"]).all()
    assert model.evaluate(*given) == model.evaluate(phantoms)
    if len(given) == 2:
        whole = losses_of(compiled(phantoms).fit(phantoms, epochs=2, verbose=0))
        assert losses_of(history) == whole


def test_stream_that_repeats_itself_goes_on_exactly(phantoms):
    expected = losses_of(compiled(phantoms).fit(pair_batches(phantoms), epochs=2, verbose=0))
    model = compiled(phantoms)
    received = [losses_of(model.fit(pair_batches(phantoms), verbose=0)) for _ in range(2)]
    assert [*received[0], *received[1]] == expected


def test_keras_callbacks_work(phantoms, tmp_path):
    model = compiled(phantoms)
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras", "val_loss"),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.TensorBoard(tmp_path / "board"),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.EarlyStopping(patience=1, min_delta=100.0, restore_best_weights=True),
    ]
    history = model.fit(
        phantoms, epochs=5, validation_data=phantoms, callbacks=callbacks, verbose=0
    )
    assert len(history.epoch) == 2  # no epoch is better by 100
    first = load_model(tmp_path / "1.keras")
    # The average is among the weights that EarlyStopping restores.
    for one, other in zip(model.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with (tmp_path / "log.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1"]
    assert any((tmp_path / "board").rglob("events*"))


def test_nan_ends_the_training_by_keras_own_callback(phantoms, capsys):
    model = small(phantoms)
    model.compile(keras.optimizers.SGD(1e30))
    callbacks = [keras.callbacks.TerminateOnNaN()]
    history = model.fit(phantoms, epochs=5, callbacks=callbacks, verbose=0)
    assert len(history.epoch) < 5


def test_another_optimizer_and_loss_are_used_and_saved(phantoms, tmp_path):
    model = small(phantoms, augment=0.0)
    model.compile(keras.optimizers.SGD(0.01), "mean_absolute_error")
    model.fit(phantoms, verbose=0)
    for raw, averaged in zip(
        model.network.get_weights(), model.inference_network().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(raw, averaged)
    default = compiled(phantoms, augment=0.0)
    default.set_weights(model.get_weights())
    assert model.evaluate(phantoms)["loss"] != default.evaluate(phantoms)["loss"]
    model.save(tmp_path / "saved.keras")
    loaded = load_model(tmp_path / "saved.keras")
    assert isinstance(loaded.optimizer, keras.optimizers.SGD)
    assert loaded.evaluate(phantoms) == model.evaluate(phantoms)


def test_mixed_precision_and_jit_are_keras_own(phantoms):
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = small(phantoms)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    model.compile(jit_compile=True)
    model.fit(phantoms, steps_per_epoch=1, verbose=0)
    assert model.jit_compile
    dense = [x for x in model.network.layers if isinstance(x, keras.layers.Conv2D)]
    assert {layer.compute_dtype for layer in dense[:-1]} == {"bfloat16"}
    assert dense[-1].compute_dtype == "float32"  # writes the image
    assert {layer.compute_dtype for layer in model.inference_network().layers} <= {
        "float32", "int32",
    }  # fmt: skip


def test_sample_draws_by_label_and_by_number_alike(trained):
    whole = trained.sample(per_class=3, steps=3, verbose=0)
    assert whole.counts() == {"clear": 3, "ground_glass": 3}
    chosen = trained.sample(["ground_glass", "clear", "ground_glass"], steps=3, verbose=0)
    np.testing.assert_array_equal(chosen.images, whole.images[[3, 0, 4]])
    assert chosen.labels.tolist() == [1, 0, 1]
    again = trained.sample([1, 0, 1], steps=3, batch_size=1, verbose=0)
    assert np.abs(again.images.astype(int) - chosen.images).max() <= 1
    other = trained.sample(per_class=3, steps=3, seed=1, verbose=0)
    assert not np.array_equal(other.images, whole.images)


def test_sample_shows_progress_unless_told_not_to(trained, capsys):
    trained.sample(per_class=1, steps=1)
    assert "Sampling: 2 images" in capsys.readouterr().err
    trained.sample(per_class=1, steps=1, verbose=0)
    assert capsys.readouterr().err == ""


def test_sample_draws_what_the_study_drew(few_layers, tiny_run, tiny_config, run_copy):
    """Byte for byte with Keras; within a grey level or two through ONNX."""
    from PIL import Image

    from kerasmed.cli.main import main

    few_layers.undo()
    model = load_model(tiny_run / "diffusion" / "denoiser.keras")
    drawn = model.sample(per_class=4, seed=0, steps=3, batch_size=8, verbose=0).images
    for engine, tolerance in (("keras", 0), ("onnx", 2)):
        options = [f"sampling.engine={engine}", "sampling.copy_filter=false"]
        settings = [text for option in options for text in ("--set", option)]
        arguments = ["--per-class", "4", *settings, "--out", str(run_copy)]
        assert main(["sample", str(tiny_config), *arguments]) == 0
        paths = sorted((run_copy / "synthetic").glob("*/*.png"))
        study = np.stack([np.asarray(Image.open(path)) for path in paths])
        assert np.abs(study.astype(int) - drawn).max() <= tolerance


def test_export_is_run_by_onnxruntime(trained, tmp_path):
    metadata = trained.export(tmp_path / "denoiser.onnx", note="mine")
    assert metadata["class_names"] == ["clear", "ground_glass"]
    denoiser = OnnxDenoiser(tmp_path / "denoiser.onnx")
    assert denoiser.metadata["note"] == "mine"
    noise = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
    inputs = noise, np.int32([999, 10]), np.int32([0, 1])
    np.testing.assert_allclose(denoiser(*inputs), trained.denoiser()(*inputs), atol=1e-4)
    assert "as stated at export" in verify_file(tmp_path / "denoiser.onnx")["parity"]


def test_export_needs_tensorflow(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(MachineError, match="needs TensorFlow, received jax; save the model"):
        trained.export(tmp_path / "denoiser.onnx")


def test_progress_of_an_evaluation_is_shown_where_asked(trained, phantoms, capsys):
    expected = trained.evaluate(phantoms)
    assert capsys.readouterr().err == ""
    assert trained.evaluate(phantoms, verbose=1) == expected
    assert "Evaluating: 120 noisy images" in capsys.readouterr().err


def test_building_a_model_leaves_the_global_generators_alone(phantoms):
    import random

    before, of_numpy = random.getstate(), np.random.get_state()[1].copy()
    one, other = small(phantoms), small(phantoms)
    assert random.getstate() == before
    assert np.array_equal(np.random.get_state()[1], of_numpy)
    for first, second in zip(one.network.get_weights(), other.network.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    different = small(phantoms, seed=1).network.get_weights()
    assert any((a != b).any() for a, b in zip(one.network.get_weights(), different, strict=True))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m, p: small(p).fit(p), r"fit: expected a compiled model.*call `compile\(\)`"),
        (lambda m, p: small(p).sample(per_class=1), r"sample: expected a trained model.*`fit`"),
        (lambda m, p: small(p).export("x.onnx"), "export: expected a trained model"),
        (lambda m, p: compiled(p).evaluate(p), "evaluate: expected a trained model"),
        (lambda m, p: m.fit(p.images, p.labels + 1), "expected numbers from 0 to 1, received 1 to"),
        (lambda m, p: m.fit(p.images), "expected labels with an array of images, received none"),
        (lambda m, p: m.fit(p.images / 255, p.labels), "expected uint8, 0 to 255, received float"),
        (lambda m, p: m.fit(phantom_set(size=32)), "expected 16 x 16 pixels .* received 32 x 32"),
        (lambda m, p: m.fit(phantom_set("smear")), "of the classes"),
        (lambda m, p: m.fit(iter([(p.images, p.labels)])), "known length, .* give steps_per_epoch"),
        (lambda m, p: m.fit([p.images], steps_per_epoch=1), "expected the shape|expected labels"),
        (lambda m, p: m.sample(["healthy"]), "expected the classes .* received also"),
        (lambda m, p: m.sample([0, 5]), "expected numbers from 0 to 1, received 0 to 5"),
        (lambda m, p: m.sample(), "expected either labels, or per_class"),
        (lambda m, p: m.sample(per_class=0), "expected either labels, or per_class of 1 or more"),
        (lambda m, p: m.fit(p, p.labels), "expected an ImageSet by itself, received labels"),
        (lambda m, p: m.fit(p, batch_size=0), "batch_size: expected 1 or more, received 0"),
        (lambda m, p: m.fit(pair_batches(p), batch_size=2), "a stream of batches by itself"),
        (lambda m, p: m.fit(iter([]), steps_per_epoch=1), "received one without batches"),
        (lambda m, p: m.sample([0], solver="euler"), "expected one of ddpm, .* received 'euler'"),
        (lambda m, p: m.sample([0], steps=0), "expected 1 to 1000, received 0"),
        (lambda m, p: m.sample([0], seed=-1), "seed: expected 0 or more, received -1"),
        (lambda m, p: m.sample([0], batch_size=0), "batch_size: expected 1 or more, received 0"),
        (lambda m, p: m.fit(p[:0]), "Images: expected one or more, received none"),
        (lambda m, p: m.set_weights(small(p, widths=[4]).get_weights()), "arrays of other shapes"),
        (lambda m, p: DiffusionModel.from_preset("huge", p), "expected one of cpu, .* 'huge'"),
        (lambda m, p: DiffusionModel.from_preset("cpu", p, width=[8]), "unknown key width"),
        (lambda m, p: DiffusionModel.from_preset("cpu", p), "must be a multiple of 16"),
        (lambda m, p: DiffusionModel(16, ["b", "a"], SMALL), "sorted"),
        (lambda m, p: small(p, symmetry="all"), "expected one of none, mirror, dihedral"),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(act, message, trained, phantoms):
    with pytest.raises(InputError, match=message):
        act(trained, phantoms)


def test_new_model_is_adapted_before_it_is_trained(phantoms):
    model = DiffusionModel(16, phantoms.class_names, SMALL)
    model.compile()
    with pytest.raises(InputError, match=r"pixel range is not set.*`adapt\(images\)`"):
        model.fit(phantoms)
    model.adapt(phantoms.images)
    assert model.pixel_range == small(phantoms).pixel_range


def test_guidance_needs_a_model_that_saw_images_without_class(phantoms):
    model = compiled(phantoms, label_dropout=0.0)
    model.fit(phantoms, steps_per_epoch=1, verbose=0)
    with pytest.raises(InputError, match="guidance_scale: expected 1"):
        model.sample([0], guidance_scale=2.0)


def test_compiling_again_keeps_the_average(phantoms):
    model = compiled(phantoms)
    model.fit(phantoms, callbacks=None, verbose=0)
    expected = model.inference_network().get_weights()
    other = compiled(phantoms)
    other.fit(phantoms, verbose=0)
    other.compile()  # before its average was asked for
    for one, average in zip(other.inference_network().get_weights(), expected, strict=True):
        np.testing.assert_array_equal(one, average)
    other.fit(phantoms, verbose=0)
    assert not np.array_equal(other.inference_network().get_weights()[0], expected[0])


def test_weights_file_brings_average_and_pixel_range(phantoms, tmp_path):
    model, other = compiled(phantoms), DiffusionModel(16, phantoms.class_names, SMALL)
    model.save_weights(tmp_path / "untrained.weights.h5")
    model.fit(phantoms, verbose=0)
    model.save_weights(tmp_path / "trained.weights.h5")
    other.load_weights(tmp_path / "trained.weights.h5")
    assert other.pixel_range == model.pixel_range
    drawn = [m.sample([0, 1], steps=2, verbose=0).images for m in (model, other)]
    np.testing.assert_array_equal(*drawn)
    other.load_weights(tmp_path / "untrained.weights.h5")
    with pytest.raises(InputError, match="expected a trained model"):
        other.sample([0])


def test_average_that_keras_keeps_is_used(phantoms):
    for validation in (None, phantoms):
        model = small(phantoms, augment=0.0)
        model.compile(keras.optimizers.Adam(0.01, use_ema=True))
        model.fit(phantoms, validation_data=validation, verbose=0)
        for raw, averaged in zip(
            model.network.get_weights(), model.inference_network().get_weights(), strict=True
        ):
            np.testing.assert_array_equal(raw, averaged)


def test_frozen_layer_is_averaged_as_it_is(phantoms):
    model = small(phantoms, augment=0.0)
    layer = next(x for x in model.network.layers if isinstance(x, keras.layers.Conv2D))
    layer.trainable = False
    model.compile()
    model.fit(phantoms, validation_data=phantoms, verbose=0)
    kernel = layer.get_weights()[0]
    averages = model.inference_network().get_weights()
    assert any(np.array_equal(kernel, average) for average in averages)


def test_strategy_in_scope_changes_no_prediction(phantoms):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = compiled(phantoms)
        model.fit(phantoms, validation_data=phantoms, verbose=0)
        inside = model.sample([0, 1], steps=2, verbose=0).images
    np.testing.assert_array_equal(inside, model.sample([0, 1], steps=2, verbose=0).images)


def test_stream_is_refused_on_several_devices(phantoms, monkeypatch):
    model = compiled(phantoms)
    monkeypatch.setattr("kerasmed.parallel.devices.replicas_of", lambda model: 2)
    with pytest.raises(InputError, match="on several devices, received a stream"):
        model.fit(pair_batches(phantoms))


def test_checkpoints_in_a_new_folder_leave_the_training_where_it_is(phantoms, tmp_path):
    model = compiled(phantoms)
    model.fit(phantoms, epochs=1, verbose=0)
    callbacks = [km.callbacks.Checkpoints(tmp_path)]
    history = model.fit(phantoms, epochs=2, initial_epoch=1, callbacks=callbacks, verbose=0)
    assert (history.epoch, model.batches_seen) == ([1], 10)


def test_file_of_another_version_is_refused(phantoms):
    config = small(phantoms).get_config()
    config["settings"]["later"] = 1
    with pytest.raises(ModelFileError, match=r"saved by kerasmed 0\.1\.0, .* unknown key later"):
        DiffusionModel.from_config(config)


def test_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "broken.keras").write_bytes(b"nothing")
    for path in (tmp_path / "broken.keras", tmp_path / "missing.keras"):
        with pytest.raises(ModelFileError, match=r"a saved DiffusionModel or Im.*received"):
            load_model(path)
