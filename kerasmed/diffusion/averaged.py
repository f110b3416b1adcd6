"""The network with averaged weights, which validates, draws images and is exported."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.diffusion.unet import build_denoiser
from kerasmed.parallel.devices import outside_strategies
from kerasmed.runtime.backend import precision_policy


class AveragedDenoiser:
    """A float32 denoiser on one device: ``denoiser(x_t, timesteps, labels) -> x_0`` on arrays.

    It is no layer of the model that trains it. So strategies do not copy it, and JAX does not pass
    it through every step of the training.

    Args:
        image_size: height and width of the images.
        num_classes: classes that it knows; the label ``num_classes`` means "no class given".
        settings: describe the network, see ``build_denoiser``.

    Attributes:
        network: the Keras network.
        is_taken: whether it has an average yet, and not random weights.
        iterations: steps of the optimiser after which the average was taken. None stands for the
            present number, which a loaded file does not tell yet.
    """

    def __init__(self, image_size: int, num_classes: int, settings: DiffusionConfig):
        def build() -> keras.Model:
            with precision_policy("float32"):
                return build_denoiser(image_size, num_classes, settings)

        self.network = outside_strategies(build)
        self.is_taken = False
        self.iterations: int | None = 0

    def __call__(self, x_t: np.ndarray, timesteps: np.ndarray, labels: np.ndarray) -> np.ndarray:
        inputs = {"noisy_images": x_t, "timesteps": timesteps, "labels": labels}
        predicted = outside_strategies(lambda: self.network.predict_on_batch(inputs))
        return ops.convert_to_numpy(predicted)

    def take(self, weights: Sequence[np.ndarray], iterations: int | None) -> None:
        """Copy these weights, the average after so many steps of the optimiser."""
        self.network.set_weights(weights)
        self.is_taken, self.iterations = True, iterations
