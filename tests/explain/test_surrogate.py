"""LIME against the `lime` package, plain loops and models whose answer is known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from lime.lime_base import LimeBase
from PIL import Image
from sklearn.metrics import pairwise_distances

from kerasmed.errors import InputError
from kerasmed.explain.overlay import draw_overlay, write_explanation
from kerasmed.explain.segments import segment_image
from kerasmed.explain.surrogate import (
    Explanation,
    apply_masks,
    draw_masks,
    explain_image,
    fit_surrogate,
    mean_colours,
)

NAMES = ["clear", "lesion"]


@pytest.fixture
def image() -> np.ndarray:
    """A ramp with a bright square in the upper left, and grain."""
    rows, columns = np.mgrid[:32, :32]
    canvas = np.stack([3 * rows, 3 * columns, 60 + 0 * rows], axis=2)
    canvas[4:12, 4:12] = 230
    grain = np.random.default_rng(0).integers(0, 12, (32, 32, 3))
    return (canvas + grain).astype(np.uint8)


def square_brightness(images: np.ndarray) -> np.ndarray:
    """A model that looks at the bright square alone."""
    lesion = images[:, 4:12, 4:12].mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - lesion, lesion], axis=1).astype(np.float32)


def quadrants(size: int = 8) -> np.ndarray:
    """Four square segments: 0 1 / 2 3."""
    rows, columns = np.mgrid[:size, :size] // (size // 2)
    return 2 * rows + columns


@pytest.mark.parametrize("method", ["slic", "quickshift"])
def test_segments_are_numbered_from_0_without_a_gap(image, method):
    image = image.repeat(4, axis=0).repeat(4, axis=1)

    segments = segment_image(image, method, 20)

    assert segments.shape == (128, 128)
    assert segments.dtype == np.int64
    assert np.unique(segments).tolist() == list(range(segments.max() + 1))
    assert segments.max() >= 4


@pytest.mark.parametrize("method", ["slic", "quickshift"])
def test_segments_repeat(image, method):
    first, second = (segment_image(image, method, 20) for _ in range(2))

    np.testing.assert_array_equal(first, second)


def test_slic_aims_at_the_wanted_number(image):
    few, many = (int(segment_image(image, "slic", n).max()) + 1 for n in (8, 60))

    assert 4 <= few <= 16
    assert 30 <= many <= 90


@pytest.mark.parametrize("method", ["slic", "quickshift"])
def test_constant_image_has_segments(method):
    segments = segment_image(np.full((32, 32, 3), 90, dtype=np.uint8), method, 16)

    assert np.unique(segments).tolist() == list(range(segments.max() + 1))


def test_first_mask_keeps_all_and_the_rest_about_half():
    masks = draw_masks(40, 500, seed=0)

    assert (masks.shape, masks.dtype) == ((500, 40), np.bool_)
    assert masks[0].all()
    assert masks[1:].mean() == pytest.approx(0.5, abs=0.02)


def test_seed_governs_the_masks():
    np.testing.assert_array_equal(draw_masks(20, 30, seed=4), draw_masks(20, 30, seed=4))
    assert (draw_masks(20, 30, seed=4) != draw_masks(20, 30, seed=5)).any()


def test_mean_colours_by_hand():
    image = np.array([[[0, 10, 255], [3, 10, 254]], [[1, 0, 0], [1, 1, 1]]], dtype=np.uint8)
    segments = np.array([[0, 0], [1, 0]])

    fill = mean_colours(image, segments)

    # Segment 0: (0 + 3 + 1) / 3, (10 + 10 + 1) / 3, (255 + 254 + 1) / 3, cut off as `lime` does.
    assert fill.dtype == np.uint8
    assert fill.tolist() == [[[1, 7, 170], [1, 7, 170]], [[1, 0, 0], [1, 7, 170]]]


def test_mean_colours_agree_with_limes_loop(image):
    segments = segment_image(image, "slic", 20)

    expected = image.copy()
    for segment in np.unique(segments):  # lime 0.2.0.1, lime_image.py, explain_instance
        inside = segments == segment
        expected[inside] = tuple(np.mean(image[inside][:, c]) for c in range(3))
    np.testing.assert_array_equal(mean_colours(image, segments), expected)


def test_apply_masks_agrees_with_limes_loop(image):
    segments = segment_image(image, "slic", 20)
    fill = mean_colours(image, segments)
    masks = draw_masks(int(segments.max()) + 1, 12, seed=0)

    shown = apply_masks(image, fill, segments, masks)

    assert (shown.dtype, shown.shape) == (np.uint8, (12, 32, 32, 3))
    for mask, masked in zip(masks, shown, strict=True):  # lime_image.py, data_labels
        expected = image.copy()
        for segment in np.flatnonzero(~mask):
            expected[segments == segment] = fill[segments == segment]
        np.testing.assert_array_equal(masked, expected)


@pytest.mark.parametrize(("segments", "samples"), [(5, 40), (30, 200), (50, 30)])
def test_regression_agrees_with_lime(segments, samples):
    rng = np.random.default_rng(segments)
    masks = draw_masks(segments, samples, seed=1)
    masks[3] = False  # keeps nothing
    logits = masks @ rng.standard_normal((segments, 3)) + rng.standard_normal((samples, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    data = masks.astype(int)
    distances = pairwise_distances(data, data[:1], metric="cosine").ravel()
    lime = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)), random_state=0)

    weights, intercepts, scores = fit_surrogate(masks, probabilities)

    assert (weights.shape, intercepts.shape, scores.shape) == ((segments, 3), (3,), (3,))
    for label in range(3):
        intercept, pairs, score, _ = lime.explain_instance_with_data(
            data, probabilities, distances, label, segments, feature_selection="none"
        )
        expected = [weight for _, weight in sorted(pairs)]
        np.testing.assert_allclose(weights[:, label], expected, atol=1e-6)
        assert intercepts[label] == pytest.approx(intercept, abs=1e-6)
        assert scores[label] == pytest.approx(score, abs=1e-6)


def test_linear_model_is_recovered_by_hand():
    masks = draw_masks(4, 4000, seed=0)
    probabilities = np.stack([0.1 + 0.5 * masks[:, 2] - 0.05 * masks[:, 0]] * 2, axis=1)

    weights, intercepts, scores = fit_surrogate(masks, probabilities)

    np.testing.assert_allclose(weights[:, 0], [-0.05, 0, 0.5, 0], atol=0.01)
    np.testing.assert_allclose(intercepts, 0.1, atol=0.01)
    assert scores.min() > 0.99


def test_prediction_that_never_changes_has_no_weights_and_is_explained():
    weights, intercepts, scores = fit_surrogate(draw_masks(6, 50, seed=0), np.full((50, 2), 0.3))

    np.testing.assert_allclose(weights, 0, atol=1e-12)
    np.testing.assert_allclose(intercepts, 0.3)
    assert scores.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("segmentation", "scale"), [("slic", 1), ("quickshift", 4)])
def test_superpixels_that_decide_are_found(image, segmentation, scale):
    image = image.repeat(scale, axis=0).repeat(scale, axis=1)

    def predict(images):
        return square_brightness(images[:, ::scale, ::scale])

    explanation = explain_image(image, predict, 400, segmentation, 16)

    square = explanation.segments[4 * scale : 12 * scale, 4 * scale : 12 * scale]
    weights = explanation.superpixel_weights[:, 1]
    elsewhere = np.delete(weights, np.unique(square))
    assert len(elsewhere) > 1
    assert weights.argmax() in square
    assert np.abs(elsewhere).max() < 0.2 * weights.max()
    np.testing.assert_allclose(explanation.superpixel_weights[:, 0], -weights, atol=1e-6)


def test_only_the_superpixel_that_decides_has_weight(image):
    segments = segment_image(image, "slic", 16)
    inside = segments == 5
    fill = mean_colours(image, segments)

    def keeps_segment(images):
        kept = (images[:, inside] == image[inside]).all(axis=(1, 2)).astype(np.float32)
        return np.stack([1 - kept, kept], axis=1)

    assert (fill[inside] != image[inside]).any()
    weights = explain_image(image, keeps_segment, 600, "slic", 16).superpixel_weights[:, 1]

    assert weights.argmax() == 5
    assert weights[5] > 0.8
    assert np.abs(np.delete(weights, 5)).max() < 0.05


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batch_size_changes_nothing(image, batch_size):
    first = explain_image(image, square_brightness, 50, superpixels=12)
    second = explain_image(image, square_brightness, 50, superpixels=12, batch_size=batch_size)

    np.testing.assert_array_equal(first.segments, second.segments)
    np.testing.assert_allclose(first.superpixel_weights, second.superpixel_weights, atol=1e-6)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-6)


def test_no_batch_is_larger_than_asked(image):
    sizes = []

    def predict(images):
        assert images.dtype == np.uint8
        sizes.append(len(images))
        return square_brightness(images)

    explain_image(image, predict, 25, superpixels=12, batch_size=10)

    assert sizes == [10, 10, 5]


def test_seed_repeats_and_another_seed_draws_other_masks(image):
    first, second, other = (
        explain_image(image, square_brightness, 50, superpixels=12, seed=seed).superpixel_weights
        for seed in (0, 0, 1)
    )

    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-6


def test_probabilities_are_those_of_the_whole_image(image):
    explanation = explain_image(image, square_brightness, 30, superpixels=12)

    np.testing.assert_array_equal(explanation.probabilities, square_brightness(image[None])[0])
    assert explanation.probabilities.dtype == np.float32


def test_image_is_left_as_it_was(image):
    before = image.copy()

    explain_image(image, square_brightness, 30, superpixels=12)

    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("segmentation", ["slic", "quickshift"])
def test_constant_image_has_nothing_to_explain(segmentation):
    constant = np.full((32, 32, 3), 90, dtype=np.uint8)

    explanation = explain_image(constant, square_brightness, 30, segmentation, 12)

    np.testing.assert_allclose(explanation.superpixel_weights, 0, atol=1e-9)
    assert explanation.scores.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_probabilities_that_are_not_finite_are_refused(image, value):
    with pytest.raises(InputError, match="received NaN or infinity from the predict function"):
        explain_image(image, lambda images: np.full((len(images), 2), value), 20, superpixels=12)


@pytest.mark.parametrize(
    ("dtype", "shape"), [(np.float32, (32, 32, 3)), (np.uint8, (32, 32)), (np.uint8, (3, 32, 32))]
)
def test_other_images_are_refused(dtype, shape):
    with pytest.raises(InputError, match="expected uint8"):
        explain_image(np.zeros(shape, dtype=dtype), square_brightness)


@pytest.fixture
def explanation() -> Explanation:
    """Four quadrants with hand-made weights; class 1 is predicted."""
    weights = np.array([[0.4, -0.4], [-0.1, 0.1], [0.0, 0.0], [-0.3, 0.3]])
    return Explanation(
        image=np.full((8, 8, 3), 100, dtype=np.uint8),
        segments=quadrants(),
        superpixel_weights=weights,
        intercepts=np.array([0.2, 0.8]),
        scores=np.array([0.7, 0.9]),
        probabilities=np.array([0.25, 0.75], dtype=np.float32),
    )


def test_as_lime_holds_the_same_values(explanation):
    result = explanation.as_lime()

    assert result.top_labels == [1, 0]
    assert result.local_exp[0] == [(0, 0.4), (3, -0.3), (1, -0.1), (2, 0.0)]
    assert result.intercept == {0: 0.2, 1: 0.8}
    assert result.score == {0: 0.7, 1: 0.9}
    assert result.local_pred == pytest.approx({0: 0.2, 1: 0.8})


def test_as_lime_serves_get_image_and_mask(explanation):
    result = explanation.as_lime()

    _, speaks_for = result.get_image_and_mask(0, positive_only=True, num_features=1)
    hidden, _ = result.get_image_and_mask(0, positive_only=True, hide_rest=True)
    _, both = result.get_image_and_mask(1, positive_only=False, num_features=2)

    np.testing.assert_array_equal(speaks_for, quadrants() == 0)
    np.testing.assert_array_equal(hidden[..., 0], 100 * (quadrants() == 0))
    np.testing.assert_array_equal(both, np.choose(quadrants(), [-1, 0, 0, 1]))


def test_overlay_shows_the_image_beside_green_and_red(explanation):
    overlay = draw_overlay(explanation, label=1, top=2).astype(int)

    assert overlay.shape == (256, 512, 3)
    assert (overlay[:, :256] == 100).all()
    against, weak, nothing, speaks_for = (
        overlay[row, 256 + column] for row in (64, 192) for column in (64, 192)
    )
    assert against[0] > 150 > 100 > against[1]
    assert speaks_for[1] > 130 > 100 > speaks_for[0]
    assert weak.tolist() == nothing.tolist() == [100] * 3


def test_overlay_of_no_weights_is_the_image(explanation):
    blank = replace(explanation, superpixel_weights=np.zeros((4, 2)))

    assert (draw_overlay(blank, label=0, top=5) == 100).all()


def test_large_image_is_not_enlarged(explanation):
    large = replace(
        explanation, image=np.zeros((300, 300, 3), dtype=np.uint8), segments=quadrants(300)
    )

    assert draw_overlay(large, label=0, top=1).shape == (300, 600, 3)


def test_written_picture_and_values_agree(explanation, tmp_path):
    path = tmp_path / "model" / "scan.png"

    write_explanation(explanation, NAMES, {"image": "scan.png", "seed": 3}, 2, path)

    assert sorted(p.name for p in path.parent.iterdir()) == ["scan.json", "scan.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(path)), draw_overlay(explanation, 1, 2))
    values = json.loads(path.with_suffix(".json").read_text())
    assert values == {
        "image": "scan.png",
        "seed": 3,
        "predicted_class": "lesion",
        "probabilities": {"clear": 0.25, "lesion": 0.75},
        "r2": {"clear": 0.7, "lesion": 0.9},
        "intercept": {"clear": 0.2, "lesion": 0.8},
        "weights": {"clear": [0.4, -0.1, 0.0, -0.3], "lesion": [-0.4, 0.1, 0.0, 0.3]},
        "segments": quadrants().tolist(),
    }
