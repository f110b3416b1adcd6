"""Upscaler as a Keras user meets it, on this process's backend."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import pair_batches, phantom_set

import kerasmed as km
from kerasmed.data.marks import SYNTHETIC
from kerasmed.diffusion import unet
from kerasmed.diffusion.enlarge import enlarge, padded
from kerasmed.errors import InputError, MachineError, ModelFileError, StageError
from kerasmed.export.verify import verify_file
from kerasmed.inference.upscaler import OnnxUpscaler

SMALL = {"widths": [8], "crop_size": 16, "batch_size": 4, "warmup_steps": 2}


def no_levels(x, condition, settings):
    """Stands in for the levels of the network, which take most of the time to build."""
    return x + keras.layers.Dense(x.shape[-1])(condition)[:, None, None, :]


@pytest.fixture(autouse=True)
def few_layers(monkeypatch):
    monkeypatch.setattr(unet, "_down_and_up", no_levels)


@pytest.fixture(scope="module")
def large() -> km.ImageSet:
    """Twenty chest phantoms of two classes, 32 pixels wide."""
    return phantom_set(size=32)


def compiled(images, **changes) -> km.Upscaler:
    options = {key: changes.pop(key) for key in ("dtype", "symmetry", "seed") if key in changes}
    model = km.Upscaler.from_images(images, **options, **{**SMALL, **changes})
    model.compile()
    return model


@pytest.fixture(scope="module")
def trained(large) -> km.Upscaler:
    """A model after one epoch; read it, do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "_down_and_up", no_levels)
        model = compiled(large)
    model.fit(large, verbose=0)
    return model


def losses_of(history: keras.callbacks.History) -> list[float]:
    return history.history["loss"]


def test_fit_validates_the_average(large):
    model = compiled(large, symmetry="mirror")
    history = model.fit(large, epochs=2, validation_data=large, verbose=0)
    evaluated = model.evaluate(large)
    assert history.history["val_loss"][-1] == evaluated["loss"]
    assert list(evaluated)[1:] == [
        "loss_t0_249", "loss_t250_499", "loss_t500_749", "loss_t750_999",
    ]  # fmt: skip


def test_untrained_network_predicts_no_detail(large):
    """So a training starts from the enlarged image."""
    model = compiled(large, predict="x0")
    model.fit(large, steps_per_epoch=1, verbose=0)
    model.set_average([0 * weight for weight in model.inference_network().get_weights()])
    small = model.reduce(large[:2])
    enlarged = model.upscale(small, steps=2, verbose=0).images
    expected = np.clip(enlarge(padded(small.images)), 0, 255)
    np.testing.assert_allclose(enlarged, expected, atol=0.51)


def test_training_learns_detail(large):
    model = compiled(large, batch_size=16)
    history = model.fit(large, validation_data=large, validation_freq=[1, 30], epochs=30, verbose=0)
    first, last = history.history["val_loss"]
    assert last < 0.9 * first


def test_checkpoints_resume_exactly(large, tmp_path):
    expected = losses_of(compiled(large).fit(large, epochs=3, verbose=0))
    received = []
    for epochs in (1, 3):
        callbacks = [km.callbacks.Checkpoints(tmp_path)]
        model = compiled(large)
        received += losses_of(model.fit(large, epochs=epochs, callbacks=callbacks, verbose=0))
    assert received == expected
    with pytest.raises(StageError, match=r"upscaler.base_noise"):
        compiled(large, base_noise=0.1).fit(large, callbacks=callbacks, verbose=0)


def test_saved_model_trains_on_and_upscales_as_one_that_was_never_saved(large, tmp_path):
    model = compiled(large)
    model.fit(large, verbose=0)
    model.save(tmp_path / "upscaler.keras")
    loaded = km.load_model(tmp_path / "upscaler.keras")
    assert isinstance(loaded, km.Upscaler)
    assert loaded.ranges == model.ranges
    small = model.reduce(large)
    drawn = [m.upscale(small, steps=2, verbose=0).images for m in (model, loaded)]
    np.testing.assert_array_equal(*drawn)
    losses = [
        losses_of(m.fit(large, epochs=2, initial_epoch=1, verbose=0)) for m in (model, loaded)
    ]
    assert losses[0] == losses[1]
    model.save_weights(tmp_path / "upscaler.weights.h5")
    other = km.Upscaler(32, large.class_names, SMALL)
    other.load_weights(tmp_path / "upscaler.weights.h5")
    assert other.ranges == model.ranges
    copy = model.uncompiled()
    np.testing.assert_array_equal(
        copy.upscale(small, steps=2, verbose=0).images,
        other.upscale(small, steps=2, verbose=0).images,
    )


def test_stream_of_full_size_images_is_learned_from(large):
    model = compiled(large)
    history = model.fit(pair_batches(large), epochs=2, validation_data=large, verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()
    assert model.batches_seen == 10


def test_images_are_upscaled_by_label_and_number(trained, large):
    small = trained.reduce(large)
    assert (small.image_size, trained.base_size) == (8, 8)
    whole = trained.upscale(small, steps=2, verbose=0)
    assert whole.image_size == 32
    assert whole.counts() == large.counts()
    assert whole.notes == {SYNTHETIC: 20}
    names = np.array(large.class_names)[small.labels]
    of_arrays = trained.upscale(small.images, names, steps=2, batch_size=3, verbose=0)
    assert np.abs(of_arrays.images.astype(int) - whole.images).max() <= 1
    tiled = trained.upscale(small, steps=2, tile_size=16, verbose=0)
    assert np.abs(tiled.images.astype(int) - whole.images).max() <= 1
    other = trained.upscale(small, seed=1, steps=2, verbose=0)
    assert not np.array_equal(other.images, whole.images)


def test_export_is_run_by_onnxruntime_at_any_size(trained, tmp_path):
    path = tmp_path / "upscaler.onnx"
    metadata = trained.export(path, data_hash="abc")
    file = OnnxUpscaler(path, "cpu")
    assert file.metadata == metadata
    assert (metadata["base_size"], metadata["image_size"], metadata["stride"]) == (8, 32, 4)
    assert file.ranges == trained.ranges
    rng = np.random.default_rng(0)
    for height, width in ((32, 32), (48, 16)):
        arrays = (
            rng.standard_normal((2, height, width, 3), np.float32),
            np.int32([900, 10]),
            np.int32([0, 1]),
            rng.standard_normal((2, height // 4, width // 4, 3), np.float32),
            np.float32([0.0, 0.1]),
        )
        expected = trained.denoiser()(*arrays)
        assert expected.std() > 1e-4
        np.testing.assert_allclose(file(*arrays), expected, atol=1e-4)
    assert "as stated at export" in verify_file(path)["parity"]
    assert "with Keras" in verify_file(path, lambda _: trained.inference_network())["parity"]
    written = path.stat().st_mtime_ns
    assert trained.export(path, data_hash="abc") == metadata
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize("patch_size", [1, 2])
def test_model_of_one_class_and_small_patches_is_exported(patch_size, large, tmp_path):
    pixels = large.images[:4]
    images = km.ImageSet.from_arrays(pixels, [0] * 4, ["all"])
    model = compiled(images, patch_size=patch_size)
    model.fit(images, verbose=0)
    model.export(tmp_path / "upscaler.onnx")
    assert OnnxUpscaler(tmp_path / "upscaler.onnx").metadata["class_names"] == ["all"]
    whole = model.upscale(model.reduce(images), steps=2, verbose=0)
    tiled = model.upscale(model.reduce(images), steps=2, tile_size=18, verbose=0)
    assert np.abs(tiled.images.astype(int) - whole.images).max() <= 1


def test_denoiser_file_is_no_upscaler(trained, tmp_path):
    trained.export(tmp_path / "upscaler.onnx")
    with pytest.raises(ModelFileError, match=r"not a kerasmed denoiser.* received upscaler"):
        km.OnnxDenoiser(tmp_path / "upscaler.onnx")


def test_export_needs_tensorflow(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(MachineError, match="needs TensorFlow, received jax; save the model"):
        trained.export(tmp_path / "upscaler.onnx")


ON_ANOTHER_BACKEND = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import phantom_set
import kerasmed as km

large = phantom_set(size=32)
model = km.Upscaler.from_images(large, widths=[4, 8], crop_size=16, batch_size=4)
model.compile()
model.fit(large, validation_data=large, verbose=0)
model.save("upscaler.keras")
loaded = km.load_model("upscaler.keras")
print(loaded.upscale(model.reduce(large), steps=2, verbose=0))
"""


@pytest.mark.slow  # a page of the docs trains the denoiser on JAX, by the same code
def test_it_learns_and_draws_on_jax(tmp_path):
    pytest.importorskip("jax")
    done = subprocess.run(
        [sys.executable, "-c", ON_ANOTHER_BACKEND, str(Path(__file__).parents[1])],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ImageSet(20 images of 32 x 32 pixels")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m, p: m.upscale(p), "expected 8 x 8 pixels .* received 32 x 32"),
        (lambda m, p: m.upscale(m.reduce(p).images), "expected labels with an array of images"),
        (lambda m, p: m.upscale(m.reduce(p), base_noise=0.5), "expected 0 to 0.2, .*0.5"),
        (lambda m, p: m.upscale(m.reduce(p), steps=0), "expected 1 to 1000, received 0"),
        (lambda m, p: m.upscale(m.reduce(p), seed=-1), "seed: expected 0 or more, received -1"),
        (lambda m, p: m.upscale(m.reduce(p), batch_size=0), "batch_size: expected 1 or more"),
        (lambda m, p: m.upscale(phantom_set("smear", size=8)), "of the classes"),
        (lambda m, p: m.fit(phantom_set()), "expected 32 x 32 pixels .* received 16 x 16"),
        (lambda m, p: compiled(p).upscale(p), "upscale: expected a trained model"),
        (lambda m, p: km.Upscaler(72, ["a"]), "must be a multiple of 16 .*upscaler"),
        (lambda m, p: km.Upscaler(34, ["a"], {**SMALL, "patch_size": 2}), "a multiple of 4, by"),
        (lambda m, p: km.Upscaler(64, ["a"], {"patch_size": 8}), r"patch_size: .* received 8"),
        (lambda m, p: km.Upscaler(48, ["a"], {"crop_size": 20}), "crop_size must be a mult"),
        (lambda m, p: km.Upscaler(48, ["a"], {"crop_size": 64}), "exceed .* 64 and 48"),
        (lambda m, p: km.Upscaler.from_images(p, preset="cpu"), "unknown key preset"),
        (lambda m, p: km.Upscaler(32, ["a"], SMALL).ranges, "pixel range is not set"),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(act, message, trained, large):
    with pytest.raises(InputError, match=message):
        act(trained, large)
