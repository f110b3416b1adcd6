"""The denoiser and the upscaler: class-conditional U-Nets on image patches.

Their inputs are a noisy image, a timestep and a label, those of the upscaler also a small image;
their output is the clean image.
"""

import math
from itertools import count

import keras
from keras import ops

from kerasmed.diffusion.augmentation import PARAMETERS
from kerasmed.diffusion.config import FACTOR, DiffusionConfig, TrainingConfig, UpscalerConfig
from kerasmed.diffusion.schedule import LAST_ANGLE, NUM_TIMESTEPS
from kerasmed.runtime.backend import load_keras

# The layer that only a network trained with augmentation has, and the finished denoiser lacks.
AUGMENTATION_LAYER = "augmentation_embedding"


@keras.saving.register_keras_serializable("kerasmed")
class TimestepEmbedding(keras.layers.Layer):
    """Sine and cosine features of a timestep (Vaswani et al., arXiv:1706.03762)."""

    def __init__(self, width: int, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def call(self, timesteps):
        half = self.width // 2
        # The graph computes the exponents: tf2onnx 1.17 would turn a NumPy table into an extra
        # graph input.
        exponents = ops.arange(half, dtype="float32") * (-math.log(10_000.0) / half)
        positions = ops.cast(timesteps, "float32")[:, None] * (1000.0 / NUM_TIMESTEPS)
        angles = positions * ops.exp(exponents)[None, :]
        features = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)
        return ops.cast(features, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("kerasmed")
class VelocityToImage(keras.layers.Layer):
    """The clean image that corresponds to a predicted velocity.

    v = sqrt(alphas_cumprod) eps - sqrt(1 - alphas_cumprod) x_0 (Salimans and Ho,
    arXiv:2202.00512), hence x_0 = sqrt(alphas_cumprod) x_t - sqrt(1 - alphas_cumprod) v.
    """

    def call(self, noisy_images, timesteps, velocity):
        # The cosine schedule of schedule.py in closed form, which keeps tables out of the graph.
        position = (ops.cast(timesteps, "float32") + 1.0) / NUM_TIMESTEPS
        angle = ops.minimum((position + 0.008) / 1.008, LAST_ANGLE) * (math.pi / 2)
        angle = angle[:, None, None, None]
        return ops.cos(angle) * ops.cast(noisy_images, "float32") - ops.sin(angle) * ops.cast(
            velocity, "float32"
        )


@keras.saving.register_keras_serializable("kerasmed")
class PixelNormalization(keras.layers.Layer):
    """Each position divided by the root mean square of its channels (arXiv:1710.10196, 4.2)."""

    def call(self, x):
        squares = ops.mean(ops.square(ops.cast(x, "float32")), axis=-1, keepdims=True)
        return x * ops.cast(ops.rsqrt(squares + 1e-4), x.dtype)


def residual_block(x, condition, width: int, dropout: float, number: int):
    """Normalise, convolve, scale and shift by the condition, rectify, convolve, add.

    The adaptive normalisation of Dhariwal and Nichol (arXiv:2105.05233, section 3), but with one
    normalisation and one activation per block instead of two: on a CPU these cost more than the
    convolutions. The last convolution starts at zero, so a new block starts as the identity.
    """
    shortcut = x if x.shape[-1] == width else keras.layers.Conv2D(width, 1)(x)
    h = keras.layers.Conv2D(width, 3, padding="same")(PixelNormalization()(x))
    # TensorFlow sums the condition's gradients in the order of names. With those of Keras, such as
    # "dense_9" and "dense_10", a model loaded next to another one would train with other rounding.
    scale = keras.layers.Dense(width, kernel_initializer="zeros", name=f"scale_{number:03d}")(
        condition
    )
    shift = keras.layers.Dense(width, kernel_initializer="zeros", name=f"shift_{number:03d}")(
        condition
    )
    h = h * (1.0 + scale[:, None, None, :]) + shift[:, None, None, :]
    h = keras.layers.Activation("relu")(h)
    if dropout:
        h = keras.layers.Dropout(dropout)(h)
    h = keras.layers.Conv2D(width, 3, padding="same", kernel_initializer="zeros")(h)
    return shortcut + h


def attention_block(x, heads: int):
    """Self-attention over all positions, added to its input."""
    normalized = PixelNormalization()(x)
    attention = keras.layers.MultiHeadAttention(heads, x.shape[-1] // heads)
    return x + attention(normalized, normalized)


def _condition(timesteps, labels, further, num_classes: int, width: int, further_name: str = ""):
    """Embedding of timestep, class and, if it is not None, of further numbers: (batch, width)."""
    condition = keras.layers.Dense(width, activation="silu")(TimestepEmbedding(128)(timesteps))
    condition = keras.layers.Dense(width)(condition)
    # Class and further numbers start at least at the scale of the timestep embedding. Keras's own
    # initialisers give a seventh of it or less, and the network is slow to respond to them.
    condition = condition + keras.layers.Embedding(
        num_classes + 1, width, keras.initializers.RandomNormal(stddev=0.5)
    )(labels)
    if further is not None:
        condition = condition + keras.layers.Dense(
            width, use_bias=False, kernel_initializer="lecun_normal", name=further_name
        )(further)
    return keras.layers.Activation("silu")(condition)


def _down_and_up(x, condition, settings: TrainingConfig):
    """The levels from the widest image to the narrowest and back, joined by skip connections."""
    widths, blocks, numbers = settings.widths, settings.blocks, count()
    skips = [x]
    for level, width in enumerate(widths):
        if level:
            x = keras.layers.AveragePooling2D(2)(x)
        for _ in range(blocks):
            x = residual_block(x, condition, width, settings.dropout, next(numbers))
            skips.append(x)

    if settings.ATTENTION_HEADS:
        x = attention_block(x, settings.ATTENTION_HEADS)
    x = residual_block(x, condition, widths[-1], settings.dropout, next(numbers))

    for level, width in reversed(list(enumerate(widths))):
        for _ in range(blocks + (level == 0)):
            x = keras.layers.Concatenate()([x, skips.pop()])
            x = residual_block(x, condition, width, settings.dropout, next(numbers))
        if level:
            x = keras.layers.UpSampling2D(2, interpolation="nearest")(x)
    return x


def _pixels(x, noisy_images, condition, width: int, patch_size: int):
    """Images (batch, height, width, 3) from the features of patches and the noisy pixels.

    A last convolution at full resolution sees the noisy pixels themselves, at a strength that the
    condition sets. Without it the network draws the finest detail too faintly.
    """
    x = keras.layers.Activation("relu")(PixelNormalization()(x))
    of_patches = keras.layers.Conv2DTranspose(width, patch_size, strides=patch_size)(x)
    of_pixels = keras.layers.Conv2D(width, 3, padding="same")(noisy_images)
    x = keras.layers.Concatenate()([of_patches, of_pixels])
    scale = keras.layers.Dense(2 * width, kernel_initializer="zeros", name="scale_of_pixels")(
        condition
    )
    x = keras.layers.Activation("relu")(x * (1.0 + scale[:, None, None, :]))
    return keras.layers.Conv2D(3, 3, padding="same", kernel_initializer="zeros", dtype="float32")(x)


def build_denoiser(
    image_size: int,
    num_classes: int,
    settings: DiffusionConfig,
    augmented: bool = False,
) -> keras.Model:
    """An untrained denoiser.

    Args:
        image_size: height and width of the images; a multiple of
            ``patch_size * 2 ** (len(widths) - 1)``.
        num_classes: number of classes; the label ``num_classes`` means "no class given".
        settings: ``widths``, ``blocks``, ``patch_size``, ``predict`` and ``dropout`` describe the
            network.
        augmented: whether the model has a further input ``augmentation``, float32 (batch, 5); see
            ``draw_augmentation``.

    Returns:
        A model from ``noisy_images`` float32 (batch, height, width, 3), ``timesteps`` int32
        (batch,), and ``labels`` int32 (batch,) to clean images, float32 of the same shape.
    """
    load_keras()  # refuses channels_first, if another program has set it
    widths, patch_size = settings.widths, settings.patch_size
    noisy_images = keras.Input((image_size, image_size, 3), name="noisy_images")
    timesteps = keras.Input((), name="timesteps", dtype="int32")
    labels = keras.Input((), name="labels", dtype="int32")
    inputs = [noisy_images, timesteps, labels]

    augmentation = None
    if augmented:
        augmentation = keras.Input((PARAMETERS,), name="augmentation")
        inputs.append(augmentation)

    # The order in which layers are created decides the random draws of their weights.
    condition = _condition(
        timesteps, labels, augmentation, num_classes, 2 * max(widths), AUGMENTATION_LAYER
    )
    x = keras.layers.Conv2D(widths[0], patch_size, strides=patch_size)(noisy_images)
    x = _down_and_up(x, condition, settings)
    x = _pixels(x, noisy_images, condition, max(1, widths[0] // 2), patch_size)
    if settings.predict == "v":
        x = VelocityToImage(dtype="float32")(noisy_images, timesteps, x)
    return keras.Model(inputs, x, name="denoiser")


def build_upscaler(num_classes: int, settings: UpscalerConfig) -> keras.Model:
    """An untrained upscaler, of convolutions only, for images of any size.

    Args:
        num_classes: number of classes.
        settings: ``widths``, ``blocks``, ``patch_size`` and ``dropout`` describe the network.

    Returns:
        A model from ``noisy_images`` float32 (batch, height, width, 3), ``timesteps`` int32
        (batch,), ``labels`` int32 (batch,), ``base_images`` float32 (batch, height / 4, width / 4,
        3) and ``base_noise`` float32 (batch,), the deviation of the noise in them, to clean images,
        float32 (batch, height, width, 3). Height and width are multiples of ``settings.stride``.
    """
    load_keras()
    widths, patch_size = settings.widths, settings.patch_size
    noisy_images = keras.Input((None, None, 3), name="noisy_images")
    timesteps = keras.Input((), name="timesteps", dtype="int32")
    labels = keras.Input((), name="labels", dtype="int32")
    base_images = keras.Input((None, None, 3), name="base_images")
    base_noise = keras.Input((), name="base_noise")

    noise_level = keras.layers.Reshape((1,))(base_noise) * (1.0 / settings.base_noise)
    condition = _condition(
        timesteps, labels, noise_level, num_classes, 2 * max(widths), "base_noise_embedding"
    )
    x = keras.layers.Conv2D(widths[0], patch_size, strides=patch_size)(noisy_images)
    base = keras.layers.Conv2D(widths[0], 3, padding="same")(base_images)
    if patch_size < FACTOR:
        base = keras.layers.UpSampling2D(FACTOR // patch_size, interpolation="nearest")(base)
    x = _down_and_up(x + base, condition, settings)
    x = _pixels(x, noisy_images, condition, max(1, widths[0] // 2), patch_size)
    if settings.predict == "v":
        x = VelocityToImage(dtype="float32")(noisy_images, timesteps, x)
    inputs = [noisy_images, timesteps, labels, base_images, base_noise]
    return keras.Model(inputs, x, name="upscaler")


def reach(settings: UpscalerConfig) -> int:
    """Pixels from a pixel to the farthest input that changes it in ``build_upscaler``, at most."""
    blocks, last = settings.blocks, len(settings.widths) - 1
    pixels = 0
    for level in range(last + 1):
        blocks_here = 2 * blocks + (level == 0) + (level == last)
        # A block has two convolutions of 3x3. A level begins with a mean, and ends with a copy.
        pixels += (2 * blocks_here + 1) * settings.patch_size * 2**level
    return pixels + 2 * max(FACTOR, settings.patch_size)  # convolutions of pixels and of the base
