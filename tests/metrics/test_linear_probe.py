import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerasmed.metrics.linear_probe import INVERSE_REGULARISATION, fit_probe, probe_accuracy


def _features(num_classes, count=90):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % num_classes
    return 5 + 3 * rng.standard_normal((count, 4)) + labels[:, None] * [2, 0, -1, 0.5], labels


@pytest.mark.parametrize("num_classes", [2, 3])
def test_logits_are_those_of_scikit_learn_on_standardised_features(num_classes):
    features, labels = _features(num_classes)
    expected = make_pipeline(
        StandardScaler(), LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000)
    ).fit(features, labels)
    logits = fit_probe(features, labels, num_classes).logits(features)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected.predict_proba(features), atol=1e-9)
    assert probe_accuracy(features, labels, features, labels) == expected.score(features, labels)


def test_weights_stand_for_repeated_images():
    features, labels = _features(2, 20)
    weights = np.where(labels == 1, 3.0, 1.0)
    rows = np.repeat(np.arange(20), weights.astype(int))
    # The same standardisation on both sides, so that only the weights differ.
    features = (features - features[rows].mean(axis=0)) / features[rows].std(axis=0)
    weighted = fit_probe(features, labels, 2, weights).logits(features)
    repeated = fit_probe(features[rows], labels[rows], 2).logits(features)
    np.testing.assert_allclose(weighted.argmax(axis=1), repeated.argmax(axis=1))


def test_class_without_an_image_is_ruled_out():
    features, labels = _features(2)
    logits = fit_probe(features, labels * 2, 4).logits(features)
    assert set(logits.argmax(axis=1)) == {0, 2}
