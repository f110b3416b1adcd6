"""CAM of tiny real classifiers against closed forms and a numerical derivative."""

import numpy as np
import pytest
from PIL import Image

from kerasmed.errors import InputError
from kerasmed.explain.segments import segment_image
from kerasmed.runtime.backend import load_keras

TEMPERATURE = 1.7


@pytest.fixture(
    scope="module", params=[32, 64, 96], ids=lambda size: f"{size // 32}x{size // 32} places"
)
def model(request):
    """Whose last maps have one place for each 32 pixels of the input, and whose logits differ."""
    load_keras()
    import keras

    from kerasmed.classify.network import build_classifier

    keras.utils.set_random_seed(0)
    model = build_classifier("MobileNet", 3, 32, request.param, "none", 0.2)
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            shift = rng.normal(0, 0.3, beta.shape).astype(np.float32)
            layer.set_weights([2 * gamma, beta + shift, mean, variance])
    head = model.get_layer("logits")
    kernel, _ = head.get_weights()
    head.set_weights([5 * kernel, np.float32([0.3, -0.2, 0.1])])
    return model


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def explainer(model):
    from kerasmed.explain.cam import CamExplainer

    return CamExplainer(model, TEMPERATURE)


def _maps_and_logits(model, image):
    import keras

    maps = model.get_layer("features").input
    inner = keras.Model(model.inputs, [maps, model.output["logits"]])
    maps, logits = inner.predict_on_batch(image[None])
    return np.array(maps)[0].astype(np.float64), np.array(logits)[0].astype(np.float64)


def _logits_of(model, maps):
    """The logits that the layers behind the last maps give."""
    features = model.get_layer("features")(maps[None].astype(np.float32))
    return np.array(model.get_layer("logits")(features))[0].astype(np.float64)


def test_network_of_the_test_is_alive(model, image):
    maps, logits = _maps_and_logits(model, image)

    assert maps.std() > 0.1
    assert np.ptp(logits) > 0.3
    np.testing.assert_allclose(_logits_of(model, maps), logits, atol=1e-5)


def test_weights_times_sizes_add_up_to_the_logits(model, explainer, image):
    """Over all places the evidence adds up to the logit without its bias.

    Enlarging keeps its mean, exactly where the factor is whole, as it is not for 3 x 3 places; so
    the mean over the pixels is that sum over the number of places.
    """
    maps, logits = _maps_and_logits(model, image)
    bias = np.array(model.get_layer("logits").bias)
    segments = segment_image(image, "grid", 9)

    explanation = explainer.explain(image, segments)

    total = np.bincount(segments.ravel()) @ explanation.superpixel_weights / segments.size
    places = maps[..., 0].size
    rtol = 0.02 if places == 9 else 1e-4
    np.testing.assert_allclose(total * places, logits - bias, rtol=rtol, atol=1e-5)


def test_one_superpixel_weighs_the_mean_evidence(model, explainer, image):
    maps, logits = _maps_and_logits(model, image)
    bias = np.array(model.get_layer("logits").bias)

    explanation = explainer.explain(image, np.full((32, 32), 7))

    assert explanation.segments.max() == 0
    places = maps[..., 0].size
    rtol = 0.02 if places == 9 else 1e-4
    np.testing.assert_allclose(
        explanation.superpixel_weights[0], (logits - bias) / places, rtol=rtol, atol=1e-5
    )


def test_weights_are_those_of_the_numerical_derivative(model, explainer, image):
    """By the definition of Grad-CAM, without its ReLU, which gives the same as CAM here."""
    maps, logits = _maps_and_logits(model, image)
    rows, columns, channels = maps.shape
    segments = segment_image(image, "grid", 16)
    step = 2.0**8  # the layers behind the maps are linear, so a large one rounds least
    checked_channels = np.random.default_rng(1).choice(channels, 5, replace=False)
    kernel = np.array(model.get_layer("logits").kernel)
    for channel in checked_channels:
        derivative = np.zeros((rows, columns, 3))
        for row, column in np.ndindex(rows, columns):
            moved = maps.copy()
            moved[row, column, channel] += step
            derivative[row, column] = (_logits_of(model, moved) - logits) / step
        expected = np.broadcast_to(kernel[channel] / (rows * columns), derivative.shape)
        np.testing.assert_allclose(derivative, expected, rtol=1e-3, atol=1e-6)
    evidence = maps @ (kernel / (rows * columns))

    weights = explainer.explain(image, segments).superpixel_weights

    for label in range(3):
        small = Image.fromarray(evidence[..., label].astype(np.float32))
        enlarged = np.asarray(small.resize((32, 32), Image.Resampling.BILINEAR))
        means = [enlarged[segments == i].mean() for i in range(16)]
        np.testing.assert_allclose(weights[:, label], means, rtol=1e-4, atol=1e-6)


def test_negative_evidence_is_kept(explainer, image):
    weights = explainer.explain(image).superpixel_weights

    assert weights.min() < 0 < weights.max()


def test_probabilities_are_of_the_logits_over_the_temperature(model, explainer, image):
    _, logits = _maps_and_logits(model, image)
    exponentials = np.exp(logits / TEMPERATURE)

    explanation = explainer.explain(image)

    np.testing.assert_allclose(
        explanation.probabilities, exponentials / exponentials.sum(), atol=1e-6
    )
    assert explanation.probabilities.dtype == np.float32
    assert explanation.predicted == logits.argmax()


def test_explanation_says_what_it_is(explainer, image):
    before = image.copy()

    explanation, again = (explainer.explain(image) for _ in range(2))

    assert (explanation.explainer, explanation.seed, explanation.num_samples) == ("cam", None, 1)
    assert explanation.superpixel_weights.shape == (explanation.segments.max() + 1, 3)
    assert explanation.superpixel_weights.dtype == np.float64
    assert explanation.stability == {}
    assert explanation.scores.size == explanation.half_widths.size == 0
    assert explanation.duration_s > 0
    np.testing.assert_array_equal(explanation.superpixel_weights, again.superpixel_weights)
    np.testing.assert_array_equal(image, before)


def test_other_images_and_segments_are_refused(explainer, image):
    with pytest.raises(InputError, match="expected uint8"):
        explainer.explain(image / 255)
    with pytest.raises(InputError, match=r"expected integers \(32, 32\)"):
        explainer.explain(image, np.zeros((32, 31), dtype=int))
