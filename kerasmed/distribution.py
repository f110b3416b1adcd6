"""Training on several devices of one machine, each of which takes a part of every batch."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras

from kerasmed.config import Distribution
from kerasmed.errors import ConfigError
from kerasmed.runtime import Runtime, list_devices

# Images in a batch of the validation and of the previews.
PREDICTED_AT_ONCE = 32


@contextmanager
def on_all_devices(distribution: Distribution) -> Iterator[None]:
    """On JAX, spread what is built and run inside over the devices; around a whole training."""
    if distribution == "mirrored" and keras.backend.backend() == "jax":
        with keras.distribution.DataParallel().scope():
            yield
    else:
        yield


def mirrored_variables(distribution: Distribution) -> AbstractContextManager[Any]:
    """On TensorFlow, the scope in which a network that is to be trained is built and compiled.

    Others are built outside: such a network predicts every batch once on each device.
    """
    if distribution == "mirrored" and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.MirroredStrategy([name.upper() for name in list_devices()]).scope()
    return nullcontext()


def check_batch(batch_size: int, runtime: Runtime, key: str) -> None:
    """Refuse a batch that cannot be divided among the devices.

    Raises:
        ConfigError: naming the setting.
    """
    replicas = runtime.replicas
    if batch_size % replicas:
        raise ConfigError(
            f"{key}: expected a multiple of the {replicas} devices that runtime.distribution: "
            f"mirrored divides a batch among, received {batch_size}; change it, or set "
            "runtime.distribution: none."
        )
    if runtime.backend == "jax" and PREDICTED_AT_ONCE % replicas:
        raise ConfigError(
            "runtime.distribution: mirrored on JAX also divides the batches of "
            f"{PREDICTED_AT_ONCE} that it validates on: expected 2, 4, 8, 16 or 32 devices, "
            f"received {replicas}; hide some of them, on GPUs by CUDA_VISIBLE_DEVICES."
        )


class ClippedOverReplicas(keras.optimizers.Optimizer):
    """An optimiser that clips the gradient of the whole batch.

    Under a TensorFlow strategy Keras clips the gradient of each device's part before it adds them
    up. Here all devices hold their mean first; the norm to clip to shrinks alike, and the sum that
    Keras then takes is that of the whole batch.
    """

    def __init__(self, *, global_clipnorm: float | None = None, **kwargs: Any):
        if global_clipnorm is not None:
            global_clipnorm /= _replicas_here()
        super().__init__(global_clipnorm=global_clipnorm, **kwargs)

    def apply(self, grads: list[Any], trainable_variables: list[Any] | None = None) -> None:
        """One step from the gradients of a device's part of the batch."""
        if _replicas_here() > 1:
            import tensorflow as tf

            context = tf.distribute.get_replica_context()
            grads = context.all_reduce(tf.distribute.ReduceOp.MEAN, list(grads))
        super().apply(grads, trainable_variables)


def _replicas_here() -> int:
    """Devices of TensorFlow's strategy in whose scope this is."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
