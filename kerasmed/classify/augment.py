"""KerasCV augmentation of training batches. The only module that knows KerasCV."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kerasmed.config import Strength
from kerasmed.errors import MachineError


@dataclass(frozen=True)
class _Range:
    """How far an image is changed at most.

    Attributes:
        colour: brightness, contrast and saturation, as a share.
        turn: angle, as a share of a whole turn.
        zoom: size, as a share.
        shift: as a share of height and width.
    """

    colour: float
    turn: float
    zoom: float
    shift: float


_RANGES: dict[Strength, _Range] = {
    "light": _Range(colour=0.03, turn=0.01, zoom=0.05, shift=0.03),
    "medium": _Range(colour=0.06, turn=0.03, zoom=0.1, shift=0.06),
    "strong": _Range(colour=0.15, turn=0.06, zoom=0.2, shift=0.1),
}


def make_augmenter(strength: Strength, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function that changes the colours, angle, size and place of a batch's images at random.

    Flips and quarter turns come from ``data.symmetry``. RandAugment is not used: it also shears and
    posterises, which can remove what decides the class.

    Args:
        strength: "none" leaves the images as they are.
        seed: of all its draws; KerasCV repeats them only after ``keras.utils.set_random_seed``.

    Returns:
        From uint8 (batch, height, width, 3) to the same.

    Raises:
        MachineError: KerasCV is missing, or TensorFlow, without which it does not import.
    """
    if strength == "none":
        return lambda images: images
    try:
        import keras_cv
        import tensorflow as tf
    except ImportError as error:
        raise MachineError(
            f"classifiers.augment needs keras-cv and tensorflow: {error}; "
            "install them or set classifiers.augment: none."
        ) from None
    limit = _RANGES[strength]
    saturation = (0.5 - limit.colour / 2, 0.5 + limit.colour / 2)
    layers = [
        keras_cv.layers.RandomBrightness(limit.colour, value_range=(0, 255), seed=seed),
        keras_cv.layers.RandomContrast((0, 255), limit.colour, seed=seed + 1),
        keras_cv.layers.RandomSaturation(saturation, seed=seed + 2),
        # Each of these blurs small images, so that one at most is done, and half stay sharp.
        keras_cv.layers.RandomApply(
            keras_cv.layers.RandomChoice(
                [
                    keras_cv.layers.RandomRotation(limit.turn, seed=seed + 3),
                    keras_cv.layers.RandomZoom(limit.zoom, seed=seed + 4),
                    keras_cv.layers.RandomTranslation(limit.shift, limit.shift, seed=seed + 5),
                ],
                seed=seed + 6,
            ),
            rate=0.5,
            seed=seed + 7,
        ),
    ]

    # Traced, because the eager layers take several times as long as a training step.
    @tf.function
    def change(images):
        for layer in layers:
            images = layer(images, training=True)
        return images

    def augment(images: np.ndarray) -> np.ndarray:
        changed = change(tf.constant(images, dtype=tf.float32)).numpy()
        return np.rint(np.clip(changed, 0, 255)).astype(np.uint8)

    return augment
