import sys

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from kerasmed.classify.backbones import (
    BACKBONES,
    build_network,
    find_backbone,
    resolve_input_size,
    set_all_weights,
    weights_for,
)
from kerasmed.errors import ConfigError
from kerasmed.runtime.backend import precision_policy


@pytest.mark.parametrize("name", BACKBONES)
def test_preprocessing_is_the_networks_own_in_float32_and_is_saved(name, tmp_path):
    backbone = BACKBONES[name]
    network = getattr(keras.applications, backbone.network)
    assert backbone.preprocess.__module__ == network.__module__
    inputs = keras.Input((4, 4, 3))
    with precision_policy("mixed_bfloat16"):
        preprocessed = backbone.preprocess(inputs)
    assert preprocessed.dtype == "float32"
    keras.Model(inputs, preprocessed + 0).save(tmp_path / "saved.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
    received = keras.saving.load_model(tmp_path / "saved.keras").predict_on_batch(images)
    np.testing.assert_allclose(received, backbone.preprocess(images.copy()), atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_smallest_input_size_builds_and_a_smaller_one_is_refused(name):
    smallest = BACKBONES[name].smallest
    assert build_network(name, smallest, "none").output.shape[-1] > 0
    with pytest.raises(ConfigError, match=f"{name} needs at least {smallest}, received"):
        resolve_input_size(name, smallest - 1)


def test_own_input_size_unless_asked():
    assert resolve_input_size("InceptionV3", None) == 299
    assert resolve_input_size("InceptionV3", 96) == 96


def test_unknown_backbone_names_the_nearest():
    with pytest.raises(ConfigError, match="received 'MobileNetV3'; did you mean MobileNetV2"):
        find_backbone("MobileNetV3")


def test_weights_may_differ_between_backbones(tmp_path):
    path = tmp_path / "own.weights.h5"
    path.touch()
    setting = {"VGG16": "none", "ResNet50": str(path)}
    assert weights_for("VGG16", setting) == "none"
    assert weights_for("ResNet50", setting) == str(path)
    with pytest.raises(ConfigError, match="expected an entry for Xception"):
        weights_for("Xception", setting)


def test_missing_weights_file_is_refused():
    with pytest.raises(ConfigError, match=r"received 'nowhere\.h5', which is not a file"):
        weights_for("VGG16", "nowhere.h5")


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.weights.h5"
    build_network("MobileNet", 32, "none").save_weights(path)
    with pytest.raises(ConfigError, match=r"cannot load .* into MobileNetV2"):
        build_network("MobileNetV2", 32, str(path))


@pytest.mark.parametrize("name", ["MobileNet", "EfficientNetB0"])
def test_weights_from_a_path_are_loaded(name, tmp_path):
    path = tmp_path / "own.weights.h5"
    original = build_network(name, 32, "none")
    original.save_weights(path)
    loaded = build_network(name, 32, str(path))
    for one, other in zip(original.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_imagenet_weights_in_a_file_make_the_efficientnet_that_a_download_makes(
    suffix, tmp_path, monkeypatch
):
    """Weights made up here, in the place of those that Keras would download."""
    trained = build_network("EfficientNetB0", 32, "none")
    norm = next(layer for layer in trained.layers if isinstance(layer, keras.layers.Normalization))
    for weight, value in zip(
        norm.weights, ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 1), strict=True
    ):
        weight.assign(value)
    path = tmp_path / f"own{suffix}"
    if suffix == ".h5":  # as Keras offers them
        with h5py.File(path, "w") as file:
            save_weights_to_hdf5_group(file, trained)
    else:
        trained.save_weights(path)
    module = sys.modules[keras.applications.EfficientNetB0.__module__]
    monkeypatch.setattr(module.file_utils, "get_file", lambda *_, **__: str(path))
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)

    def first_features(weights: str) -> np.ndarray:
        network = build_network("EfficientNetB0", 32, weights)
        stem = keras.Model(network.input, network.get_layer("stem_conv").output)
        return stem.predict_on_batch(images)

    from_download = first_features("imagenet")
    assert from_download.std() > 0.1
    np.testing.assert_allclose(first_features(str(path)), from_download, rtol=1e-3, atol=1e-3)


def test_weights_that_are_set_bring_the_statistics_of_normalisation():
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    one, other = (build_network("EfficientNetB0", 32, "none") for _ in range(2))
    normalization = next(x for x in one.layers if isinstance(x, keras.layers.Normalization))
    normalization.adapt_mean.assign([0.4, 0.5, 0.6])
    normalization.finalize_state()
    set_all_weights(other, one.get_weights())
    expected, received = (
        keras.Model(n.input, n.get_layer("stem_conv").output).predict_on_batch(images)
        for n in (one, other)
    )
    np.testing.assert_array_equal(received, expected)
