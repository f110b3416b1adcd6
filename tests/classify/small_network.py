"""A quick backbone, for tests that are about the training."""

import keras
import numpy as np


def small_network(name: str, input_size: int, weights: str) -> keras.Model:
    """Stands in for ``build_network``: three convolutions with batch normalisation."""
    inputs = x = keras.Input((input_size, input_size, 3))
    for width in (8, 32, 128):
        x = keras.layers.Conv2D(width, 3, strides=2, use_bias=False)(x)
        x = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(x))
    small = keras.Model(inputs, x)
    if weights != "none":
        small.load_weights(weights)
    return small


def pretrained(folder, build=small_network):
    """A file of weights with the statistics of real activations, so that gradients arrive."""
    keras.utils.set_random_seed(1)
    donor = build("MobileNet", 32, "none")
    for layer in donor.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    noise = np.random.default_rng(0).uniform(-1, 1, (32, 32, 32, 3)).astype(np.float32)
    donor(noise, training=True)
    donor.save_weights(folder / "own.weights.h5")
    return folder / "own.weights.h5"
