"""Training on several devices, of one machine or several, that divide every batch."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, TypeVar

import keras

from kerasmed.errors import ConfigError
from kerasmed.parallel import workers
from kerasmed.parallel.config import Distribution
from kerasmed.parallel.resolve import Runtime
from kerasmed.runtime.backend import list_devices

T = TypeVar("T")


def on_all_devices(distribution: Distribution) -> AbstractContextManager[Any]:
    """On JAX, a scope for a whole training that spreads it over the devices."""
    if distribution != "none" and keras.backend.backend() == "jax":
        return keras.distribution.DataParallel(auto_shard_dataset=False).scope()
    return nullcontext()


def mirrored_variables(distribution: Distribution) -> AbstractContextManager[Any]:
    """On TensorFlow, the scope in which a network is built and compiled for training.

    Build other networks outside: one built inside predicts every batch once on each device.
    """
    if keras.backend.backend() != "tensorflow" or distribution == "none":
        return nullcontext()
    if distribution == "multi_worker":
        return workers.strategy().scope()
    return _mirrored_strategy(tuple(name.upper() for name in list_devices())).scope()


@cache
def _mirrored_strategy(names: tuple[str, ...]) -> Any:
    """One for all scopes, since a model is compiled in the strategy that it was built in."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(list(names))


@contextmanager
def on_one_device() -> Iterator[None]:
    """Build and predict on the first device of this process, also inside ``on_all_devices``."""
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def is_distributed() -> bool:
    """Whether what is built now is spread over devices by TensorFlow or Keras."""
    return keras.distribution.distribution() is not None or replicas_here() > 1


def outside_strategies(act: Callable[[], T]) -> T:
    """What ``act`` returns, called in a thread, which no scope of TensorFlow or Keras reaches.

    A network that is built, or predicts, within a scope gives every batch to each device.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result()


def replicas_of(model: keras.Model) -> int:
    """The number of devices of the TensorFlow strategy in whose scope a model was built."""
    strategy = getattr(model, "distribute_strategy", None)
    return 1 if strategy is None else strategy.num_replicas_in_sync


def check_batch(batch_size: int, runtime: Runtime, key: str) -> None:
    """Refuse a batch that cannot be divided among the devices.

    Raises:
        ConfigError: the batch size is not a multiple of the number of devices.
    """
    if batch_size % runtime.replicas:
        raise ConfigError(
            f"{key}: expected a multiple of the {runtime.replicas} devices that "
            f"runtime.distribution: {runtime.distribution} divides a batch among, received "
            f"{batch_size}; change it, or set runtime.distribution: none."
        )


def fit(
    model: keras.Model,
    batches: Any,
    callbacks: list[keras.callbacks.Callback],
    steps_per_epoch: int,
    initial_epoch: int,
    epochs: int,
    verbose: str | int = 0,
) -> keras.callbacks.History:
    """``keras.Model.fit``, also over TensorFlow's workers, which Keras lacks (its issue 20585).

    Args:
        model: compiled in ``mirrored_variables``.
        batches: an endless sequence of this process's slice of each batch; over workers a
            ``PyDataset``.
        callbacks: called at the start and end of the training, of epochs and of batches.
        steps_per_epoch, initial_epoch, epochs, verbose: as for ``keras.Model.fit``.
    """
    if workers.strategy() is not None:
        events = keras.callbacks.CallbackList(callbacks, add_history=True, model=model)
        _fit_over_workers(model, batches, events, steps_per_epoch, initial_epoch, epochs)
        return model.history
    return keras.Model.fit(
        model,
        batches,
        steps_per_epoch=steps_per_epoch,
        initial_epoch=initial_epoch,
        epochs=epochs,
        callbacks=callbacks,
        shuffle=False,
        verbose=verbose,
    )


def _fit_over_workers(
    model: keras.Model,
    batches: keras.utils.PyDataset,
    events: keras.callbacks.CallbackList,
    steps_per_epoch: int,
    initial_epoch: int,
    epochs: int,
) -> None:
    import tensorflow as tf

    strategy = workers.strategy()
    local_replicas = strategy.num_replicas_in_sync // len(workers.this_worker().addresses)

    @tf.function(reduce_retracing=True)
    def step(batch):
        strategy.run(model.train_step, args=(batch,))

    def divided(batch: Any) -> Any:
        def slice_of_device(context: Any) -> Any:
            device = context.replica_id_in_sync_group % local_replicas

            def sliced(array: Any) -> Any:
                size = len(array) // local_replicas
                return tf.constant(array[size * device : size * (device + 1)])

            return keras.tree.map_structure(sliced, batch)

        return strategy.experimental_distribute_values_from_function(slice_of_device)

    model.stop_training = False
    events.on_train_begin()
    logs: dict[str, float] = {}
    with ThreadPoolExecutor(batches.workers) as pool:
        fetched = (pool.submit(batches.__getitem__, index) for index in itertools.count())
        pending = deque(itertools.islice(fetched, batches.workers))
        for epoch in range(initial_epoch, epochs):
            events.on_epoch_begin(epoch)
            model.reset_metrics()
            for index in range(steps_per_epoch):
                batch = pending.popleft().result()
                pending.append(next(fetched))
                events.on_train_batch_begin(index)
                step(divided(batch))
                events.on_train_batch_end(index)
            logs = {key: float(value) for key, value in model.get_metrics_result().items()}
            events.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
    events.on_train_end(logs)


class ClippedOverReplicas(keras.optimizers.Optimizer):
    """An optimiser that clips the gradient of the whole batch.

    Under a TensorFlow strategy Keras clips the gradient of each device's slice, then adds them up.
    Here every device first adds them up, clips the sum, and contributes an equal fraction of it.
    """

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        replicas = replicas_here()
        if replicas == 1:
            return super()._clip_gradients(grads)
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, list(grads))
        return [keras.ops.divide(clipped, replicas) for clipped in super()._clip_gradients(sums)]


def replicas_here() -> int:
    """The number of devices of TensorFlow's strategy in scope; 1 on other backends."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
