"""The network: shapes, influence of each input on the output, saving."""

import keras
import numpy as np
import pytest

from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.diffusion.schedule import NUM_TIMESTEPS, alphas_cumprod
from kerasmed.diffusion.unet import (
    PixelNormalization,
    TimestepEmbedding,
    VelocityToImage,
    build_denoiser,
)


def _build(size=16, augmented=False, **settings):
    settings = DiffusionConfig(**{"widths": [8, 16], **settings})
    return build_denoiser(size, 3, settings, augmented)


def _make_lively(model):
    """Weights that are not zero anywhere, so that everything reaches the output."""
    rng = np.random.default_rng(0)
    model.set_weights([w + 0.1 * rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


def _inputs(batch=2):
    noise = np.random.default_rng(0).standard_normal((batch, 16, 16, 3)).astype(np.float32)
    return [noise, np.arange(batch, dtype=np.int32) * 400, np.arange(batch, dtype=np.int32)]


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_output_has_the_shape_and_dtype_of_the_images(patch_size):
    output = _build(patch_size=patch_size)(_inputs())
    assert output.shape == (2, 16, 16, 3)
    assert keras.backend.standardize_dtype(output.dtype) == "float32"


def test_untrained_denoiser_predicts_grey():
    assert np.abs(keras.ops.convert_to_numpy(_build()(_inputs()))).max() == 0


def test_velocity_is_turned_into_the_image_it_stands_for():
    rng = np.random.default_rng(0)
    clean, noise = rng.standard_normal((2, 5, 4, 4, 3))
    timesteps = np.array([0, 10, 500, 990, 999])
    signal = alphas_cumprod()[timesteps][:, None, None, None]
    noisy = np.sqrt(signal) * clean + np.sqrt(1 - signal) * noise
    velocity = np.sqrt(signal) * noise - np.sqrt(1 - signal) * clean
    images = VelocityToImage()(noisy.astype("float32"), timesteps, velocity.astype("float32"))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(images), clean, atol=1e-5)


def test_condition_reaches_the_output_once_weights_are_not_zero():
    model = _make_lively(_build())
    noise, timesteps, labels = _inputs()
    base = keras.ops.convert_to_numpy(model([noise, timesteps, labels]))
    by_label = keras.ops.convert_to_numpy(model([noise, timesteps, labels + 1]))
    by_time = keras.ops.convert_to_numpy(model([noise, timesteps + 300, labels]))
    assert np.abs(base - by_label).max() > 1e-3
    assert np.abs(base - by_time).max() > 1e-3


def test_class_and_augmentation_start_at_the_scale_of_the_timestep():
    keras.utils.set_random_seed(0)
    model = _build(augmented=True)
    first, second = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][:2]
    (classes,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Embedding))
    features = TimestepEmbedding(128)(np.arange(0, NUM_TIMESTEPS, 10))
    timestep = keras.ops.convert_to_numpy(second(first(features))).std(axis=0).mean()
    augmentation = model.get_layer("augmentation_embedding").kernel
    assert keras.ops.convert_to_numpy(classes.embeddings).std() > timestep
    assert keras.ops.convert_to_numpy(augmentation).std() > timestep


def test_saved_model_is_the_same(tmp_path):
    model = _build(predict="v")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        model.predict_on_batch(_inputs()), again.predict_on_batch(_inputs())
    )


def test_augmentation_reaches_the_output_and_zeros_are_none():
    model, plain = _make_lively(_build(augmented=True)), _build()
    layer = model.get_layer("augmentation_embedding")
    own = {id(variable) for variable in layer.trainable_variables}
    kept = [v.numpy() for v in model.trainable_variables if id(v) not in own]
    plain.set_weights(kept)
    none, some = np.zeros((2, 5), np.float32), np.ones((2, 5), np.float32)
    without = keras.ops.convert_to_numpy(plain(_inputs()))
    np.testing.assert_allclose(model([*_inputs(), none]), without, atol=1e-5)
    assert np.abs(keras.ops.convert_to_numpy(model([*_inputs(), some])) - without).max() > 1e-3


def test_normalised_positions_have_a_mean_square_of_one():
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 8)).astype(np.float32) * 7
    normal = keras.ops.convert_to_numpy(PixelNormalization()(x))
    np.testing.assert_allclose(np.square(normal).mean(axis=-1), 1.0, rtol=1e-4)


def test_noisy_pixels_reach_the_image_at_full_resolution():
    """A shift by a pixel, less than a patch, shifts the image where patches say nothing."""
    model = _make_lively(_build(patch_size=4))
    (of_patches,) = (
        layer for layer in model.layers if isinstance(layer, keras.layers.Conv2DTranspose)
    )
    of_patches.set_weights([np.zeros(weight.shape) for weight in of_patches.get_weights()])
    noise, timesteps, labels = _inputs()

    image = keras.ops.convert_to_numpy(model([noise, timesteps, labels]))
    shifted = keras.ops.convert_to_numpy(model([np.roll(noise, 1, axis=2), timesteps, labels]))

    assert image.std() > 1e-3
    np.testing.assert_allclose(shifted[:, 3:-3, 4:-3], image[:, 3:-3, 3:-4], atol=1e-5)
