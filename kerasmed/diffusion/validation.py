"""The loss of a denoiser on images that it does not learn from, at each level of noise."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasmed.diffusion.batches import Batch
from kerasmed.diffusion.schedule import NUM_TIMESTEPS
from kerasmed.parallel.workers import this_worker
from kerasmed.progress import ignore

PREDICTED_AT_ONCE = 32
_LEVELS = 4


def validation_losses(
    denoiser: Callable[..., np.ndarray],
    batch: Batch,
    error: Callable[[Any, Any], Any],
    advance: Callable[[float, str], None] = ignore,
) -> dict[str, float]:
    """The weighted mean error of predicted clean images, over all timesteps and by quarters.

    Args:
        denoiser: predicts clean images from the batch's inputs.
        batch: inputs, clean images and weights, see ``validation_batch``.
        error: from clean and predicted images to an error of each pixel (batch, height, width).
        advance: called with the number of finished images, and a note.

    Returns:
        ``loss``, and ``loss_t0_249`` to ``loss_t750_999`` of the images at these timesteps, which
        rise with the noise.
    """
    inputs, clean, weights = batch
    losses = []
    for start in range(0, len(clean), PREDICTED_AT_ONCE):
        # The last chunk starts over at the beginning, so that all have the same size.
        chunk = np.arange(start, start + PREDICTED_AT_ONCE) % len(clean)
        predicted = denoiser(*(array[chunk] for array in inputs.values()))
        errors = ops.convert_to_numpy(error(clean[chunk], predicted))
        losses.append(errors.reshape(len(chunk), -1).mean(axis=1) * weights[chunk, 0, 0])
        advance(min(PREDICTED_AT_ONCE, len(clean) - start), "")
    of_images = np.concatenate(losses)[: len(clean)]
    losses_by_level = {"loss": float(of_images.mean())}
    levels = inputs["timesteps"] * _LEVELS // NUM_TIMESTEPS
    width = NUM_TIMESTEPS // _LEVELS
    for level in range(_LEVELS):
        key = f"loss_t{level * width}_{(level + 1) * width - 1}"
        losses_by_level[key] = float(of_images[levels == level].mean())
    return losses_by_level


class Validation(keras.callbacks.Callback):
    """Adds the validation losses to the logs of each epoch, for the callbacks after it.

    ``fit`` of Keras would validate the weights themselves, and on every worker.

    Args:
        batch: what to validate on.
        frequency: epochs between two validations, or the epochs to validate after, from 1 on.
    """

    def __init__(self, batch: Batch, frequency: int | list[int]):
        super().__init__()
        self.batch = batch
        self.frequency = frequency

    def on_epoch_end(self, epoch, logs=None):
        frequency, number = self.frequency, epoch + 1
        is_due = number % frequency == 0 if isinstance(frequency, int) else number in frequency
        if is_due and this_worker().is_chief:
            losses = self.model.validation_losses(self.batch)
            logs.update({f"val_{name}": loss for name, loss in losses.items()})
