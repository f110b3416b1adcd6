"""Adam over the whole batch, its learning rate, and the layers that it trains."""

from collections.abc import Collection

import keras

from kerasmed.parallel.devices import ClippedOverReplicas, replicas_here


def freeze_lower_layers(
    model: keras.Model, trained_fraction: float, frozen: Collection[str] = ()
) -> set[str]:
    """Leave only this fraction of the backbone's layers trainable, counted from its output.

    Layers that are frozen for another reason stay so, such as the batch normalisation of pretrained
    networks.

    Args:
        model: a classifier's network.
        trained_fraction: 0 to 1.
        frozen: names of the layers that an earlier call froze; they become trainable first.

    Returns:
        The names of the layers that it froze.
    """
    layers = _layers_of_backbone(model)
    for layer in layers:
        if layer.name in frozen:
            layer.trainable = True
    lower = layers[: round(len(layers) * (1 - trained_fraction))]
    names = {layer.name for layer in lower if layer.trainable}
    for layer in lower:
        layer.trainable = False
    return names


def synchronize_normalization(model: keras.Model) -> None:
    """Within a strategy of TensorFlow, normalise over the whole batch; JAX does so by itself."""
    if replicas_here() > 1:
        for layer in _layers_of_backbone(model):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


def _layers_of_backbone(model: keras.Model) -> list[keras.layers.Layer]:
    return next(layer for layer in model.layers if isinstance(layer, keras.Model)).layers


@keras.saving.register_keras_serializable("kerasmed")
class ClippedAdam(ClippedOverReplicas, keras.optimizers.Adam):
    """Adam (Kingma and Ba, arXiv:1412.6980) with the gradient of the whole batch clipped."""


def cosine_schedule(peak: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """A rate that rises to its peak within a twentieth of the steps, then falls by a cosine to 0.

    Args:
        peak: the highest rate.
        steps: number of steps of the whole training.
    """
    warmup_steps = max(1, steps // 20)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=peak,
        warmup_steps=warmup_steps,
        decay_steps=max(1, steps - warmup_steps),  # Keras counts them from the peak on
    )
