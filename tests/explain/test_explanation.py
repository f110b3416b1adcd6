"""An explanation as the `lime` package's result, by hand."""

from dataclasses import replace

import numpy as np
import pytest
from lime.lime_image import ImageExplanation

from kerasmed.explain.explanation import Explanation

QUADRANTS = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])


@pytest.fixture
def explanation() -> Explanation:
    """Four quadrants with hand-made weights; class 1 is predicted."""
    return Explanation(
        image=np.full((4, 4, 3), 100, dtype=np.uint8),
        segments=QUADRANTS,
        superpixel_weights=np.array([[0.4, -0.4], [-0.1, 0.1], [0.0, 0.0], [-0.3, 0.3]]),
        probabilities=np.array([0.25, 0.75], dtype=np.float32),
        explainer="lime",
        seed=0,
        num_samples=30,
        intercepts=np.array([0.2, 0.8]),
        scores=np.array([0.7, 0.9]),
    )


def test_values_are_those_that_lime_would_hold(explanation):
    assert isinstance(explanation.as_lime(), ImageExplanation)
    assert explanation.predicted == 1
    assert explanation.as_lime().top_labels == [1, 0]
    assert explanation.as_lime().local_exp == {
        0: [(0, 0.4), (3, -0.3), (1, -0.1), (2, 0.0)],
        1: [(0, -0.4), (3, 0.3), (1, 0.1), (2, 0.0)],
    }
    assert explanation.as_lime().intercept == {0: 0.2, 1: 0.8}
    assert explanation.as_lime().score == 0.9
    assert explanation.as_lime().local_pred == pytest.approx([0.8])


def test_local_prediction_is_intercept_and_all_weights(explanation):
    other = replace(explanation, superpixel_weights=np.arange(8).reshape(4, 2) / 10)

    assert other.as_lime().local_pred == pytest.approx([0.8 + 1.6])


def test_superpixels_that_speak_for_a_class_are_shown(explanation):
    _, mask = explanation.as_lime().get_image_and_mask(0, positive_only=True, num_features=1)
    _, of_other = explanation.as_lime().get_image_and_mask(1, positive_only=True, num_features=5)

    np.testing.assert_array_equal(mask, QUADRANTS == 0)
    np.testing.assert_array_equal(of_other, np.isin(QUADRANTS, [1, 3]))


def test_the_rest_is_hidden(explanation):
    shown, mask = explanation.as_lime().get_image_and_mask(0, positive_only=True, hide_rest=True)

    np.testing.assert_array_equal(shown[..., 0], 100 * (QUADRANTS == 0))
    np.testing.assert_array_equal(mask, QUADRANTS == 0)


def test_both_signs_are_shown(explanation):
    shown, mask = explanation.as_lime().get_image_and_mask(1, positive_only=False, num_features=2)

    np.testing.assert_array_equal(mask, np.choose(QUADRANTS, [-1, 0, 0, 1]))
    assert shown.shape == (4, 4, 3)


def test_superpixels_against_a_class_are_shown(explanation):
    _, mask = explanation.as_lime().get_image_and_mask(
        1, positive_only=False, negative_only=True, num_features=5
    )

    np.testing.assert_array_equal(mask, QUADRANTS == 0)


def test_image_is_left_as_it_was(explanation):
    explanation.as_lime().get_image_and_mask(1, positive_only=False)

    assert (explanation.image == 100).all()


def test_equal_probabilities_keep_the_order_of_the_classes(explanation):
    tied = replace(
        explanation,
        probabilities=np.float32([0.25, 0.5, 0.25]),
        superpixel_weights=np.zeros((4, 3)),
        intercepts=np.zeros(3),
        scores=np.ones(3),
    )

    assert tied.as_lime().top_labels == [1, 0, 2]
    assert tied.predicted == 1


def test_without_a_surrogate_there_are_no_scores(explanation):
    other = replace(explanation, scores=np.empty(0))

    assert other.as_lime().score is None
    assert other.half_widths.size == 0
    assert (other.stability, other.warnings) == ({}, [])


def test_explanations_do_not_share_their_notes(explanation):
    other = replace(explanation)
    first, second = (
        Explanation(
            image=other.image,
            segments=QUADRANTS,
            superpixel_weights=other.superpixel_weights,
            probabilities=other.probabilities,
            explainer="occlusion",
            seed=None,
            num_samples=5,
            intercepts=other.intercepts,
        )
        for _ in range(2)
    )
    first.warnings.append("spoilt")

    assert second.warnings == []


def test_class_that_is_not_there_is_refused(explanation):
    with pytest.raises(KeyError, match="Label not in explanation"):
        explanation.as_lime().get_image_and_mask(2)


def test_both_signs_alone_at_once_are_refused(explanation):
    with pytest.raises(ValueError, match="cannot be true at the same time"):
        explanation.as_lime().get_image_and_mask(0, positive_only=True, negative_only=True)
