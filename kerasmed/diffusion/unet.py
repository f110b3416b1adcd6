"""The denoiser: a class-conditional U-Net on image patches.

Its inputs are a noisy image, a timestep and a label; its output is the clean image.
"""

import math
from collections.abc import Sequence

import keras
from keras import ops

from kerasmed.diffusion.schedule import LAST_ANGLE, NUM_TIMESTEPS


@keras.saving.register_keras_serializable("kerasmed")
class TimestepEmbedding(keras.layers.Layer):
    """Sine and cosine features of a timestep (Vaswani et al., arXiv:1706.03762)."""

    def __init__(self, width: int, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def call(self, timesteps):
        half = self.width // 2
        # The exponents are made in the graph: a NumPy table would leave through tf2onnx 1.17
        # as an extra graph input.
        exponents = ops.arange(half, dtype="float32") * (-math.log(10_000.0) / half)
        positions = ops.cast(timesteps, "float32")[:, None] * (1000.0 / NUM_TIMESTEPS)
        angles = positions * ops.exp(exponents)[None, :]
        features = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)
        return ops.cast(features, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("kerasmed")
class VelocityToImage(keras.layers.Layer):
    """The clean image that a predicted velocity stands for.

    v = sqrt(alphas_cumprod) eps - sqrt(1 - alphas_cumprod) x_0 (Salimans and Ho,
    arXiv:2202.00512), hence x_0 = sqrt(alphas_cumprod) x_t - sqrt(1 - alphas_cumprod) v.
    """

    def call(self, noisy_images, timesteps, velocity):
        # The cosine schedule of schedule.py in closed form, again to keep tables out of the graph.
        position = (ops.cast(timesteps, "float32") + 1.0) / NUM_TIMESTEPS
        angle = ops.minimum((position + 0.008) / 1.008, LAST_ANGLE) * (math.pi / 2)
        angle = angle[:, None, None, None]
        return ops.cos(angle) * ops.cast(noisy_images, "float32") - ops.sin(angle) * ops.cast(
            velocity, "float32"
        )


def residual_block(x, condition, width: int, dropout: float):
    """Two 3x3 convolutions whose second normalisation is scaled and shifted by the condition.

    The last convolution starts at zero, so a new block starts as the identity.
    """
    shortcut = x if x.shape[-1] == width else keras.layers.Conv2D(width, 1)(x)
    h = keras.layers.Activation("silu")(keras.layers.RMSNormalization()(x))
    h = keras.layers.Conv2D(width, 3, padding="same")(h)
    scale = keras.layers.Dense(width, kernel_initializer="zeros")(condition)
    shift = keras.layers.Dense(width, kernel_initializer="zeros")(condition)
    h = keras.layers.RMSNormalization()(h)
    h = h * (1.0 + scale[:, None, None, :]) + shift[:, None, None, :]
    h = keras.layers.Activation("silu")(h)
    if dropout:
        h = keras.layers.Dropout(dropout)(h)
    h = keras.layers.Conv2D(width, 3, padding="same", kernel_initializer="zeros")(h)
    return shortcut + h


def attention_block(x, heads: int):
    """Self-attention over all positions, added to its input."""
    _, height, depth, width = x.shape
    tokens = ops.reshape(keras.layers.RMSNormalization()(x), (-1, height * depth, width))
    tokens = keras.layers.MultiHeadAttention(heads, width // heads)(tokens, tokens)
    return x + ops.reshape(tokens, (-1, height, depth, width))


def build_denoiser(
    image_size: int,
    num_classes: int,
    widths: Sequence[int],
    blocks: int,
    patch_size: int,
    predict: str,
    dropout: float,
) -> keras.Model:
    """An untrained denoiser.

    Args:
        image_size: height and width of the images; a multiple of
            ``patch_size * 2 ** (len(widths) - 1)``.
        num_classes: classes; label ``num_classes`` means "no class given".
        widths: channels at each resolution, from the finest (image_size / patch_size) down.
        blocks: residual blocks at each resolution on the way down; one more on the way up.
        patch_size: edge of the square patches that become one position.
        predict: "x0" or "v", what the network's last layer stands for.
        dropout: share of activations dropped inside each residual block.

    Returns:
        A model from ``noisy_images`` float32 (batch, height, width, 3), ``timesteps`` int32
        (batch,), and ``labels`` int32 (batch,) to clean images, float32 of the same shape,
        in [-1, 1].
    """
    noisy_images = keras.Input((image_size, image_size, 3), name="noisy_images")
    timesteps = keras.Input((), name="timesteps", dtype="int32")
    labels = keras.Input((), name="labels", dtype="int32")

    condition_width = 2 * max(widths)
    condition = keras.layers.Dense(condition_width, activation="silu")(
        TimestepEmbedding(128)(timesteps)
    )
    condition = keras.layers.Dense(condition_width)(condition)
    condition = condition + keras.layers.Embedding(num_classes + 1, condition_width)(labels)
    condition = keras.layers.Activation("silu")(condition)

    x = keras.layers.Conv2D(widths[0], patch_size, strides=patch_size)(noisy_images)
    skips = [x]
    for level, width in enumerate(widths):
        if level:
            x = keras.layers.AveragePooling2D(2)(x)
        for _ in range(blocks):
            x = residual_block(x, condition, width, dropout)
            skips.append(x)

    x = attention_block(x, heads=4)
    x = residual_block(x, condition, widths[-1], dropout)

    for level, width in reversed(list(enumerate(widths))):
        for _ in range(blocks + (level == 0)):
            x = keras.layers.Concatenate()([x, skips.pop()])
            x = residual_block(x, condition, width, dropout)
        if level:
            x = keras.layers.UpSampling2D(2, interpolation="nearest")(x)

    x = keras.layers.Activation("silu")(keras.layers.RMSNormalization()(x))
    x = keras.layers.Conv2DTranspose(
        3, patch_size, strides=patch_size, kernel_initializer="zeros", dtype="float32"
    )(x)
    if predict == "v":
        x = VelocityToImage(dtype="float32", name="clean_images")(noisy_images, timesteps, x)
    else:
        x = keras.layers.Identity(dtype="float32", name="clean_images")(x)
    return keras.Model([noisy_images, timesteps, labels], x, name="denoiser")
