"""The last layer, fitted by logistic regression on frozen features."""

from typing import Any

import keras
import numpy as np

from kerasmed.classify.batches import Sources, balancing_weights
from kerasmed.classify.calibration import calibrated_loss, mean_cross_entropy
from kerasmed.classify.config import ClassifierConfig
from kerasmed.classify.network import predict_outputs
from kerasmed.data.image_set import ImageSet
from kerasmed.metrics.linear_probe import fit_probe

# Probabilities up to this one are left out, since each is a row of features.
_NEGLIGIBLE = 0.01


def fit_head(
    network: keras.Model,
    train: ImageSet,
    validation: ImageSet | None,
    settings: ClassifierConfig,
    sources: Sources | None = None,
) -> dict[str, Any]:
    """Fit the last layer by logistic regression on frozen features; returns a history row."""
    sources = sources or Sources(len(train))
    shown = sources.shown()
    class_weights = balancing_weights(train.targets, settings.class_weights, shown)
    row: dict[str, Any] = {"phase": "head", "epoch": 1}
    features = predict_outputs(network, train.images)["features"]
    inputs, labels = features, train.labels
    weights = class_weights[labels] * shown * sources.weights()
    if train.probabilities is not None:
        # An image that is of several classes, each with a probability, counts as one of each.
        images, labels = np.nonzero(train.probabilities > _NEGLIGIBLE)
        inputs = features[images]
        of_images = train.probabilities[images, labels] * (shown * sources.weights())[images]
        weights = class_weights[labels] * of_images
    probe = fit_probe(
        inputs, labels, len(train.class_names), weights, settings.head_inverse_regularisation
    )
    network.get_layer("logits").set_weights([probe.kernel, probe.bias])
    judged = [("", features, train.labels, mean_cross_entropy)]
    if validation is not None:
        of_validation = predict_outputs(network, validation.images)["features"]
        judged.append(("val_", of_validation, validation.labels, calibrated_loss))
    for prefix, inputs, labels, loss in judged:
        logits = probe.logits(inputs)
        row[f"{prefix}loss"] = round(loss(logits, labels), 5)
        row[f"{prefix}accuracy"] = round(float((logits.argmax(axis=1) == labels).mean()), 5)
    return row
