"""The regression against `lime`, and its intervals and stability against other masks."""

import numpy as np
import pytest
from lime.lime_base import LimeBase
from scipy.stats import spearmanr
from sklearn.metrics import pairwise_distances

from kerasmed.explain.masks import PAIRED, draw_masks, kernel_weights
from kerasmed.explain.surrogate import Surrogate, fit_surrogate, rank_correlation, top_overlap


def _fit(masks: np.ndarray, probabilities: np.ndarray, paired: bool = False) -> Surrogate:
    return fit_surrogate(masks, probabilities, kernel_weights(masks.mean(axis=1)), paired)


def _soft(masks: np.ndarray) -> np.ndarray:
    """Probabilities of a made-up network: not linear, and some superpixels work together."""
    coefficients = np.linspace(2.0, -0.5, masks.shape[1]) ** 3 / 4
    together = 1.5 * masks[:, 0] * masks[:, 1] - masks[:, 2] * masks[:, 3] * masks[:, 4]
    logits = masks @ coefficients + together - coefficients.sum() / 2 - 0.2
    positive = 1 / (1 + np.exp(-logits))
    return np.stack([1 - positive, positive], axis=1)


def _explained(segments: int, samples: int, seed: int, sampling: str) -> Surrogate:
    masks = draw_masks(segments, samples, seed, sampling)
    return _fit(masks, _soft(masks), sampling in PAIRED)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(("segments", "samples"), [(1, 20), (5, 40), (30, 200), (50, 30)])
def test_regression_agrees_with_lime(segments, samples, paired):
    rng = np.random.default_rng(segments)
    masks = draw_masks(segments, samples, 1, "independent")
    masks[3] = False  # keeps nothing
    logits = masks @ rng.standard_normal((segments, 3)) + rng.standard_normal((samples, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    data = masks.astype(int)
    distances = pairwise_distances(data, data[:1], metric="cosine").ravel()
    lime = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)), random_state=0)

    surrogate = _fit(masks, probabilities, paired)

    assert surrogate.weights.shape == surrogate.half_widths.shape == (segments, 3)
    assert surrogate.intercepts.shape == surrogate.scores.shape == (3,)
    for label in range(3):
        intercept, pairs, score, _ = lime.explain_instance_with_data(
            data, probabilities, distances, label, segments, feature_selection="none"
        )
        expected = [weight for _, weight in sorted(pairs)]
        np.testing.assert_allclose(surrogate.weights[:, label], expected, atol=1e-6)
        assert surrogate.intercepts[label] == pytest.approx(intercept, abs=1e-6)
        assert surrogate.scores[label] == pytest.approx(score, abs=1e-6)


def test_float32_probabilities_are_fitted_in_float64():
    masks = draw_masks(8, 100, 0, "independent")

    surrogate = _fit(masks, _soft(masks).astype(np.float32))

    assert surrogate.weights.dtype == surrogate.half_widths.dtype == np.float64
    np.testing.assert_allclose(surrogate.weights, _fit(masks, _soft(masks)).weights, atol=1e-6)


@pytest.mark.parametrize("sampling", ["independent", "orthogonal"])
def test_linear_model_is_recovered(sampling):
    masks = draw_masks(4, 4000, 0, sampling)
    positive = 0.1 + 0.5 * masks[:, 2] - 0.05 * masks[:, 0]

    surrogate = _fit(masks, np.stack([positive, 1 - positive], axis=1), sampling in PAIRED)

    np.testing.assert_allclose(surrogate.weights[:, 0], [-0.05, 0, 0.5, 0], atol=0.002)
    np.testing.assert_allclose(surrogate.weights[:, 1], [0.05, 0, -0.5, 0], atol=0.002)
    np.testing.assert_allclose(surrogate.intercepts, [0.1, 0.9], atol=0.002)
    assert surrogate.scores.min() > 0.999
    assert surrogate.half_widths.max() < 1e-3


def test_classes_are_fitted_apart():
    masks = draw_masks(6, 80, 0, "independent")
    one = _fit(masks, _soft(masks))
    doubled = _fit(masks, np.concatenate([_soft(masks), _soft(masks)[:, ::-1]], axis=1))

    np.testing.assert_allclose(doubled.weights[:, :2], one.weights, atol=1e-12)
    np.testing.assert_allclose(doubled.weights[:, 2:], one.weights[:, ::-1], atol=1e-12)


def test_prediction_that_never_changes_has_no_weights_and_is_explained():
    surrogate = _fit(draw_masks(6, 50, 0, "independent"), np.full((50, 2), 0.3))

    np.testing.assert_allclose(surrogate.weights, 0, atol=1e-12)
    np.testing.assert_allclose(surrogate.half_widths, 0, atol=1e-12)
    np.testing.assert_allclose(surrogate.intercepts, 0.3)
    assert surrogate.scores.tolist() == [1.0, 1.0]


def test_influence_is_what_the_weights_lose_without_a_sample():
    """The jackknife: fitted again without each sample in turn."""
    masks = draw_masks(5, 30, 0, "independent")
    probabilities, sample_weights = _soft(masks), kernel_weights(masks.mean(axis=1))

    surrogate = fit_surrogate(masks, probabilities, sample_weights, paired=False)

    for i in range(30):
        without = (np.delete(rows, i, axis=0) for rows in (masks, probabilities, sample_weights))
        change = surrogate.weights - fit_surrogate(*without, paired=False).weights
        np.testing.assert_allclose(surrogate.influences[i], change, atol=1e-12)
    squares = np.square(surrogate.influences).sum(axis=0)
    np.testing.assert_allclose(surrogate.half_widths, 1.959964 * np.sqrt(squares))


@pytest.mark.parametrize("samples", [29, 30])
def test_influences_of_a_pair_are_added_up(samples):
    masks = draw_masks(5, samples, 0, "paired")
    single, pairs = (_fit(masks, _soft(masks), paired) for paired in (False, True))

    expected = [single.influences[0]]
    expected += [single.influences[i : i + 2].sum(axis=0) for i in range(1, samples, 2)]

    np.testing.assert_allclose(pairs.influences, expected, atol=1e-14)
    np.testing.assert_array_equal(pairs.weights, single.weights)
    squares = np.square(expected).sum(axis=0)
    np.testing.assert_allclose(pairs.half_widths, 1.959964 * np.sqrt(squares))


REPETITIONS = 200


@pytest.fixture(scope="module", params=["independent", "orthogonal"])
def repetitions(request) -> tuple[Surrogate, list[Surrogate]]:
    """A fit of very many samples, and fits of few by many seeds."""
    large = _explained(20, 40_000, 10**6, request.param)
    return large, [_explained(20, 300, seed, request.param) for seed in range(REPETITIONS)]


def test_intervals_cover_the_weights_of_very_many_samples(repetitions):
    large, small = repetitions

    covered = [np.abs(fit.weights - large.weights) <= fit.half_widths for fit in small]

    assert 0.90 <= np.mean(covered) <= 0.995
    assert large.half_widths.max() < 0.2 * small[0].half_widths.min()


def test_intervals_cover_the_mean_of_as_many_samples(repetitions):
    """Where ridge shrinks nothing more: what the intervals promise."""
    _, small = repetitions
    mean = np.mean([fit.weights for fit in small], axis=0)

    covered = [np.abs(fit.weights - mean) <= fit.half_widths for fit in small]

    assert 0.93 <= np.mean(covered) <= 0.99


def test_half_widths_are_as_wide_as_the_weights_scatter(repetitions):
    _, small = repetitions
    scatter = np.std([fit.weights for fit in small], axis=0, ddof=1).mean()

    claimed = np.mean([fit.half_widths for fit in small]) / 1.959964

    assert 0.95 <= claimed / scatter <= 1.3


@pytest.mark.parametrize("top", [6, 10])
def test_stability_is_near_what_other_masks_really_give(repetitions, top):
    _, small = repetitions
    weights = np.stack([fit.weights[:, 1] for fit in small])
    real = top_overlap(weights[::2], weights[1::2], top)
    real_correlation = rank_correlation(weights[::2], weights[1::2])

    stabilities = [fit.stability(1, top, seed=i) for i, fit in enumerate(small[:50])]

    assert real < 0.95
    for key, expected in (("top_overlap", real), ("rank_correlation", real_correlation)):
        assert np.mean([entry[key] for entry in stabilities]) == pytest.approx(expected, abs=0.15)


def test_stability_of_pure_noise_is_low():
    masks = draw_masks(40, 300, 0, "independent")
    noise = np.random.default_rng(1).random(300)

    stability = _fit(masks, np.stack([noise, 1 - noise], axis=1)).stability(0, 5, 0)

    assert stability["top_overlap"] < 0.3
    assert stability["rank_correlation"] < 0.4


def test_stability_of_an_exact_model_is_full():
    masks = draw_masks(6, 500, 0, "independent")
    positive = masks @ [0.3, 0.2, 0.1, 0.05, 0.025, 0.0125]

    stability = _fit(masks, np.stack([positive, 1 - positive], axis=1)).stability(0, 3, 0)

    assert stability == pytest.approx({"top": 3, "top_overlap": 1, "rank_correlation": 1}, abs=0.01)


def test_superpixels_that_hardly_matter_are_not_among_the_strongest():
    masks = draw_masks(6, 500, 0, "independent")
    positive = masks @ [0.02, 0.5, 0.01, 0.3, 0.0, 0.04]  # a tenth of the largest is 0.05
    surrogate = _fit(masks, np.stack([positive, 1 - positive], axis=1))

    assert surrogate.strongest(0, 5).tolist() == [1, 3]
    assert surrogate.strongest(0, 1).tolist() == [1]
    assert surrogate.stability(0, 5, 0)["top"] == 2


def test_seed_governs_the_draws_of_stability():
    surrogate = _explained(20, 100, 0, "independent")

    assert surrogate.stability(0, 5, 3) == surrogate.stability(0, 5, 3)
    assert surrogate.stability(0, 5, 3) != surrogate.stability(0, 5, 4)


@pytest.mark.parametrize(
    ("one", "other", "top", "expected"),
    [
        ([[3, -2, 1, 0]], [[3, 2, 1, 0]], 2, 1.0),
        ([[3, -2, 1, 0]], [[0, -2, 1, 3]], 2, 1 / 3),  # {0, 1} and {1, 3}
        ([[3, -2, 1, 0]], [[0, 1, 2, 3]], 2, 0.0),
        ([[3, 2, 1, 0], [3, 2, 1, 0]], [[3, 2, 1, 0], [0, 1, 2, 3]], 2, 0.5),
        ([[3, 2]], [[2, 3]], 5, 1.0),
        ([[1, 1, 1]], [[2, 2, 2]], 1, 1.0),  # of equal ones the first
    ],
)
def test_overlap_by_hand(one, other, top, expected):
    assert top_overlap(np.array(one), np.array(other), top) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([[1, 2, 3]], [[10, 20, 90]], 1.0),
        ([[1, 2, 3]], [[3, 2, 1]], -1.0),
        ([[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [3, 2, 1]], 0.0),
        ([[1, 2, 3]], [[2, 1, 3]], 0.5),  # 1 - 6 * 2 / (3 * 8)
        ([[1, 2, 3]], [[7, 7, 7]], 0.0),
        ([[5]], [[6]], 0.0),
    ],
)
def test_rank_correlation_by_hand(one, other, expected):
    assert rank_correlation(np.array(one), np.array(other)) == pytest.approx(expected)


def test_rank_correlation_is_scipys():
    one, other = np.random.default_rng(0).integers(0, 6, (2, 7, 12))  # with many ties

    expected = np.mean([spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)])

    assert rank_correlation(one, other) == pytest.approx(expected)


def test_rank_correlation_is_that_of_scipy_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.integers(0, 6, (2, 12))
        expected = spearmanr(first, second).statistic
        assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-12)
