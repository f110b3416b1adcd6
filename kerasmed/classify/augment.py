"""KerasCV augmentation of training batches. The only module that knows KerasCV."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kerasmed.classify.config import Strength
from kerasmed.errors import MachineError


@dataclass(frozen=True)
class _Range:
    """The greatest changes of an image.

    Attributes:
        colour: brightness, contrast and saturation, as a fraction.
        turn: angle, as a fraction of a full turn.
        zoom: size, as a fraction.
        shift: shift, as a fraction of height and width.
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


Augmenter = Callable[[np.ndarray, Sequence[np.random.Generator]], np.ndarray]


def make_augmenter(strength: Strength) -> Augmenter:
    """A function that changes the colours, angle, size and position of images at random.

    Flips and quarter turns come from ``data.symmetry``. RandAugment is not used: it also shears and
    posterises, which can remove the features that decide the class.

    Args:
        strength: "none" leaves the images unchanged.

    Returns:
        A function from uint8 (batch, height, width, 3) and one generator per image to uint8 of the
        same shape. The changes of an image are drawn only from its own generator.

    Raises:
        MachineError: KerasCV is missing, or TensorFlow, which it needs.
    """
    if strength == "none":
        return lambda images, rngs: images
    try:
        import keras_cv
        import tensorflow as tf
    except (ImportError, ValueError) as error:  # ValueError if tf.keras is not Keras 3
        raise MachineError(
            f"classifiers.augment needs keras-cv and tensorflow: {error}; "
            "install them or set classifiers.augment: none."
        ) from None
    limit = _RANGES[strength]
    brightness = keras_cv.layers.RandomBrightness(limit.colour, value_range=(0, 255))
    contrast = keras_cv.layers.RandomContrast((0, 255), limit.colour)
    saturation = keras_cv.layers.RandomSaturation(limit.colour)
    rotation = keras_cv.layers.RandomRotation(limit.turn)
    zoom = keras_cv.layers.RandomZoom(limit.zoom)
    translation = keras_cv.layers.RandomTranslation(limit.shift, limit.shift)

    def changed_by(amounts, layer, images):
        # The layer's own draws would depend on all earlier ones.
        layer.get_random_transformation_batch = lambda *arguments, **options: amounts
        return layer(images, training=True)

    # Traced, because the eager layers take several times as long as a training step.
    @tf.function(reduce_retracing=True)
    def change(images, amounts):
        images = changed_by(amounts["brightness"][:, None, None, None], brightness, images)
        images = changed_by(amounts["contrast"][:, None, None, None], contrast, images)
        images = changed_by(amounts["saturation"], saturation, images)
        images = changed_by({"angles": amounts["angle"]}, rotation, images)
        size, down, right = (amounts[key][:, None] for key in ("size", "down", "right"))
        images = changed_by({"height_zooms": size, "width_zooms": size}, zoom, images)
        shift = {"height_translations": down, "width_translations": right}
        return changed_by(shift, translation, images)

    def augment(images: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        draws = [_draw(limit, rng) for rng in rngs]
        amounts = {key: np.array([draw[key] for draw in draws], np.float32) for key in draws[0]}
        changed = change(tf.constant(images, dtype=tf.float32), amounts).numpy()
        return np.rint(np.clip(changed, 0, 255)).astype(np.uint8)

    return augment


def _draw(limit: _Range, rng: np.random.Generator) -> dict[str, float]:
    """Amounts by which an image is changed, in the units of KerasCV's layers."""
    brightness, contrast, saturation = limit.colour * rng.uniform(-1, 1, 3)
    angle, size, down, right = rng.uniform(-1, 1, 4)
    # Each of these blurs small images, so at most one is applied and half the images stay sharp.
    moved = rng.choice(["angle", "size", "place", "", "", ""])
    return {
        "brightness": 255 * brightness,
        "contrast": 1 + contrast,
        "saturation": (1 + saturation) / 2,
        "angle": 2 * np.pi * limit.turn * angle * (moved == "angle"),
        "size": 1 + limit.zoom * size * (moved == "size"),
        "down": limit.shift * down * (moved == "place"),
        "right": limit.shift * right * (moved == "place"),
    }
