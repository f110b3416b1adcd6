"""KerasCV augmentation of training batches. The only module that knows KerasCV."""

from collections.abc import Callable

import numpy as np

from kerasmed.errors import MachineError


def make_augmenter(magnitude: float, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function that changes brightness, contrast and saturation of a batch at random.

    Flips and turns come from ``data.symmetry``. RandAugment is not used: it also shears, shifts and
    posterises, which moves or removes the region that decides the class.

    Args:
        magnitude: 0 to 1; 0 leaves the images as they are.
        seed: of all its draws; KerasCV repeats them only after ``keras.utils.set_random_seed``.

    Returns:
        From uint8 (batch, height, width, 3) to the same.

    Raises:
        MachineError: KerasCV is missing, or TensorFlow, without which it does not import.
    """
    if magnitude == 0:
        return lambda images: images
    try:
        import keras_cv
        import tensorflow as tf
    except ImportError as error:
        raise MachineError(
            f"classifiers.augment needs keras-cv and tensorflow: {error}; "
            "install them or set classifiers.augment: 0."
        ) from None
    layers = [
        keras_cv.layers.RandomBrightness(magnitude, value_range=(0, 255), seed=seed),
        keras_cv.layers.RandomContrast((0, 255), magnitude, seed=seed + 1),
        keras_cv.layers.RandomSaturation((0.5 - magnitude / 2, 0.5 + magnitude / 2), seed=seed + 2),
    ]

    def change(images):
        for layer in layers:
            images = layer(images, training=True)
        return images

    # Traced, because the eager layer takes several times as long as a training step.
    traced = tf.function(change)

    def augment(images: np.ndarray) -> np.ndarray:
        changed = traced(tf.constant(images, dtype=tf.float32)).numpy()
        return np.rint(np.clip(changed, 0, 255)).astype(np.uint8)

    return augment
