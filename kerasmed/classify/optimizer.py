"""Adam over the whole batch, its learning rate, and the layers that it trains."""

import keras

from kerasmed.classify.config import ClassifierConfig
from kerasmed.parallel.devices import ClippedOverReplicas
from kerasmed.parallel.resolve import Runtime
from kerasmed.runtime.backend import precision_policy


def freeze_lower_layers(model: keras.Model, trained_fraction: float) -> None:
    """Leave only this fraction of the backbone's layers trainable, counted from its output."""
    layers = _layers_of_backbone(model)
    for layer in layers[: round(len(layers) * (1 - trained_fraction))]:
        layer.trainable = False


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


def compiled(
    model: keras.Model, settings: ClassifierConfig, runtime: Runtime, steps_per_epoch: int
) -> keras.Model:
    """The compiled model that `fit` trains, from images to logits."""
    freeze_lower_layers(model, settings.finetune_fraction)
    if runtime.replicas > 1 and runtime.backend == "tensorflow":
        for layer in _layers_of_backbone(model):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True  # over the whole batch; JAX does so by itself
    steps = max(1, steps_per_epoch * settings.finetune_epochs)
    # Keras scales the loss if this outer model's policy is mixed_float16.
    with precision_policy(runtime.precision):
        trained = keras.Model(model.input, model.output["logits"])
    trained.compile(
        optimizer=ClippedAdam(
            learning_rate=cosine_schedule(settings.finetune_learning_rate, steps),
            global_clipnorm=1.0,
        ),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=settings.label_smoothing
        ),
        weighted_metrics=["accuracy"],
        jit_compile=runtime.jit_compile,
    )
    trained.optimizer.build(trained.trainable_variables)
    return trained
