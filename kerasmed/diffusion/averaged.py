"""The network with averaged weights, which validates, draws images and is exported."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from kerasmed.parallel.devices import outside_strategies
from kerasmed.runtime.backend import precision_policy


class AveragedDenoiser:
    """A float32 network on one device, as a function on arrays in the order of its inputs.

    Of a denoiser it is ``denoiser(x_t, timesteps, labels) -> x_0``.

    It is no layer of the model that trains it. So strategies do not copy it, and JAX does not pass
    it through every step of the training.

    Args:
        build: builds the network.

    Attributes:
        network: the Keras network.
        is_taken: whether it has an average yet, and not random weights.
        iterations: steps of the optimiser after which the average was taken. None stands for the
            present number, which a loaded file does not tell yet.
    """

    def __init__(self, build: Callable[[], keras.Model]):
        def build_float32() -> keras.Model:
            with precision_policy("float32"):
                return build()

        self.network = outside_strategies(build_float32)
        self.is_taken = False
        self.iterations: int | None = 0

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        names = (tensor.name for tensor in self.network.inputs)
        inputs = dict(zip(names, arrays, strict=True))
        predicted = outside_strategies(lambda: self.network.predict_on_batch(inputs))
        return ops.convert_to_numpy(predicted)

    def take(self, weights: Sequence[np.ndarray], iterations: int | None) -> None:
        """Copy these weights, the average after so many steps of the optimiser."""
        self.network.set_weights(weights)
        self.is_taken, self.iterations = True, iterations
