"""What the Keras models have in common: their images, and a training that can go on."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasmed import __version__
from kerasmed.data.image_set import ImageSet
from kerasmed.data.inputs import as_image_set, is_stream, sorted_names, stream_length
from kerasmed.data.symmetry import check_symmetry
from kerasmed.errors import InputError, MachineError, ModelFileError
from kerasmed.parallel import devices
from kerasmed.parallel.workers import this_worker
from kerasmed.runtime.backend import load_keras


class ImageModel(keras.Model):
    """A Keras model of labelled square images.

    A subclass sets ``network``, the Keras network that is trained, and then ``built``.

    Args:
        image_size: height and width of the images.
        class_names: names of the classes, sorted.
        symmetry: "none", "mirror" or "dihedral".
        seed: seed of everything drawn.
        **kwargs: ``name`` and ``dtype``.
    """

    network: keras.Model

    def __init__(
        self, image_size: int, class_names: Sequence[str], symmetry: str, seed: int, **kwargs: Any
    ):
        load_keras()
        super().__init__(autocast=False, **kwargs)  # the network casts for itself
        self.image_size = image_size
        self.class_names = sorted_names(class_names)
        self.symmetry = check_symmetry(symmetry)
        self.seed = seed
        self.batches_seen = 0

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a saved model was compiled; Keras calls this."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def get_config(self) -> dict[str, Any]:
        """Everything that builds the same model, without its weights."""
        return {
            **super().get_config(),
            "kerasmed_version": __version__,
            "image_size": self.image_size,
            "class_names": list(self.class_names),
            "symmetry": self.symmetry,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "ImageModel":
        """The model that ``get_config`` describes.

        Raises:
            ModelFileError: another version of kerasmed wrote it, with other settings.
        """
        config = dict(config)
        version = config.pop("kerasmed_version", "unknown")
        try:
            return cls._of_config(config)
        except (InputError, TypeError) as error:
            raise ModelFileError(
                f"The model was saved by kerasmed {version}, and this is {__version__}: {error} "
                "Load it with the version that saved it, or train again."
            ) from None

    @classmethod
    def _of_config(cls, config: dict[str, Any]) -> "ImageModel":
        return cls(**config)

    def save_own_variables(self, store: Any) -> None:
        """What Keras does not save: states of dropout, and the number of batches learned from."""
        super().save_own_variables(store)
        for i, state in enumerate(self._dropout_states()):
            store[f"dropout_{i}"] = ops.convert_to_numpy(state)
        store["batches_seen"] = np.array(self.batches_seen)

    def load_own_variables(self, store: Any) -> None:
        """Restore what ``save_own_variables`` stored."""
        for i, state in enumerate(self._dropout_states()):
            state.assign(store[f"dropout_{i}"])
        self.batches_seen = int(np.array(store["batches_seen"]))

    def _dropout_states(self) -> list[keras.Variable]:
        weights = {id(weight) for weight in self.network.weights}
        return [variable for variable in self.network.variables if id(variable) not in weights]

    def uncompiled(self) -> "ImageModel":
        """A copy in float32 without the optimiser, as a study saves it."""
        copy = type(self).from_config({**self.get_config(), "dtype": "float32"})
        copy.set_weights(self.get_weights())
        copy.batches_seen = self.batches_seen
        return copy

    def inner_optimizer(self) -> keras.optimizers.Optimizer:
        """The optimiser, under mixed_float16 inside Keras's loss scaling."""
        return getattr(self.optimizer, "inner_optimizer", self.optimizer)

    def _check_compiled(self, method: str) -> None:
        if not self.compiled:
            raise InputError(
                f"{method}: expected a compiled model, received one without optimiser and loss; "
                "call `compile()` first."
            )

    def _check_shapes(self, weights: Sequence[np.ndarray], expected: list[tuple[int, ...]]) -> None:
        if [np.shape(weight) for weight in weights] != expected:
            raise InputError(
                f"Weights: expected {len(expected)} arrays with the shapes of this model "
                f"({self.image_size} pixels, {len(self.class_names)} classes), received "
                f"{len(weights)} arrays of other shapes; build the model as the one that they come "
                "from."
            )

    def _check_exports(self) -> None:
        if (backend := keras.backend.backend()) != "tensorflow":
            raise MachineError(
                f"The export to ONNX needs TensorFlow, received {backend}; save the model, and "
                "load and export it without KERAS_BACKEND."
            )

    def _image_set(self, x: Any, y: Any = None, batches: int | None = None) -> ImageSet:
        return as_image_set(x, y, self.image_size, self.class_names, batches)

    def _validation_set(self, data: Any) -> ImageSet | None:
        if data is None:
            return None
        given = data if isinstance(data, tuple | list) else (data,)
        if len(given) not in (1, 2):
            raise InputError(
                "validation_data: expected images, or a pair of images and labels, received "
                f"{len(given)} elements; leave out sample weights, since all images count alike."
            )
        return self._image_set(*given)

    def _training_set(
        self, x: Any, y: Any, batch_size: int | None, steps_per_epoch: int | None
    ) -> tuple[Any, int]:
        """The ``ImageSet`` or stream to train on, and the number of steps of an epoch."""
        if batch_size is not None:
            check_batch_size(batch_size)
        if not is_stream(x):
            images = self._image_set(x, y)
            size = batch_size or self.settings.batch_size
            return images, steps_per_epoch or -(-len(images) // size)
        if y is not None or batch_size is not None:
            raise InputError(
                "fit: expected a stream of batches by itself, received `y` or `batch_size` as "
                "well; the stream has both."
            )
        replicas = devices.replicas_of(self)
        if replicas > 1 or len(this_worker().addresses) > 1 or devices.is_distributed():
            raise InputError(
                "fit: expected an ImageSet or arrays on several devices, received a stream, "
                "of which they would lose batches; read it into arrays."
            )
        return x, steps_per_epoch or stream_length(x)


def check_batch_size(batch_size: int) -> None:
    """Refuse batches without images.

    Raises:
        InputError: it is below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: expected 1 or more, received {batch_size}.")


class CountBatches(keras.callbacks.Callback):
    """Counts the batches that a model learned from in all trainings.

    What is drawn next depends on it. It comes before callbacks that save the model.

    Args:
        steps_per_epoch: batches of an epoch.
    """

    def __init__(self, steps_per_epoch: int):
        super().__init__()
        self.steps_per_epoch = steps_per_epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model.batches_seen += self.steps_per_epoch
