import numpy as np
import pytest

from kerasmed.classify.calibration import calibrated_loss, fit_temperature, mean_cross_entropy
from kerasmed.classify.network import build_classifier, predict_outputs


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4000, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((4000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    assert fit_temperature(3.0 * logits, labels) == pytest.approx(3.0, rel=0.1)


def test_temperature_stays_moderate_where_every_image_is_right():
    labels = np.arange(52) % 4
    logits = 6.0 * np.eye(4)[labels]
    temperature = fit_temperature(logits, labels)
    confidence = 1 / (1 + 3 * np.exp(-6 / temperature))
    assert confidence == pytest.approx((52 + 1) / (52 + 4), abs=0.01)


def test_outputs_do_not_depend_on_batch_size(phantoms):
    model = build_classifier("MobileNet", 2, 16, 32, "none", 0.2)
    one = predict_outputs(model, phantoms.images, batch_size=3)
    other = predict_outputs(model, phantoms.images, batch_size=16)
    assert one["logits"].shape == (20, 2)
    for key in one:
        np.testing.assert_allclose(one[key], other[key], atol=1e-5)


def test_network_that_is_right_more_often_is_better_however_sure_it_is():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)

    def logits(right: float, size: float) -> np.ndarray:
        predicted = np.where(rng.random(200) < right, labels, (labels + 1) % 4)
        return size * np.eye(4)[predicted]

    modest, sure = logits(0.78, 2.5), logits(0.92, 16.0)

    assert mean_cross_entropy(sure, labels) > mean_cross_entropy(modest, labels)
    assert calibrated_loss(sure, labels) < calibrated_loss(modest, labels)
