"""The last layer, fitted by logistic regression on frozen features."""

from typing import Any

import keras
import numpy as np

from kerasmed.classify.calibration import calibrated_loss, mean_cross_entropy
from kerasmed.classify.classifier import predict_outputs
from kerasmed.classify.config import ClassifierConfig
from kerasmed.data.image_set import ImageSet
from kerasmed.metrics.linear_probe import fit_probe


def fit_head(
    model: keras.Model,
    train: ImageSet,
    validation: ImageSet,
    settings: ClassifierConfig,
    class_weights: np.ndarray,
) -> dict[str, Any]:
    """Fit the last layer by logistic regression on frozen features; returns a history row."""
    features = predict_outputs(model, train.images)["features"]
    probe = fit_probe(
        features,
        train.labels,
        len(class_weights),
        class_weights[train.labels],
        settings.head_inverse_regularisation,
    )
    model.get_layer("logits").set_weights([probe.kernel, probe.bias])
    row: dict[str, Any] = {"phase": "head", "epoch": 1}
    validation_features = predict_outputs(model, validation.images)["features"]
    for prefix, inputs, labels, loss in (
        ("", features, train.labels, mean_cross_entropy),
        ("val_", validation_features, validation.labels, calibrated_loss),
    ):
        logits = probe.logits(inputs)
        row[f"{prefix}loss"] = round(loss(logits, labels), 5)
        row[f"{prefix}accuracy"] = round(float((logits.argmax(axis=1) == labels).mean()), 5)
    return row
