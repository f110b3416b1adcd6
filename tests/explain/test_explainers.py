"""Explainers through one contract, and each against its reference on models whose answer is known.

The references: the `lime` package, Shapley values over all subsets, occlusion by hand.
"""

from itertools import combinations
from math import factorial

import numpy as np
import pytest
from lime.lime_image import LimeImageExplainer

from kerasmed.errors import InputError
from kerasmed.explain.config import ExplainConfig
from kerasmed.explain.explainers import EXPLAINERS, build_explainer
from kerasmed.explain.kernel_shap import KernelShapExplainer
from kerasmed.explain.lime import SETTLED_OVERLAP, SETTLED_WIDTH, LimeExplainer
from kerasmed.explain.masks import draw_masks, fill_of, kernel_weights
from kerasmed.explain.occlusion import OcclusionExplainer
from kerasmed.explain.perturbation import ROUND, PerturbedImage
from kerasmed.explain.segments import segment_image
from kerasmed.explain.surrogate import fit_surrogate, top_overlap

SETTINGS = ExplainConfig(
    num_samples=300, min_samples=128, superpixels=16, segmentation="grid", hide=0
)
SQUARE = 5  # of the grid: rows and columns 8 to 15

every_explainer = pytest.mark.parametrize("name", EXPLAINERS)


@pytest.fixture
def image() -> np.ndarray:
    """A ramp with a bright square in the upper left, and grain."""
    rows, columns = np.mgrid[:32, :32]
    canvas = np.stack([30 + 3 * rows, 30 + 3 * columns, 60 + 0 * rows], axis=2)
    canvas[8:16, 8:16] = 230
    grain = np.random.default_rng(0).integers(0, 12, (32, 32, 3))
    return (canvas + grain).astype(np.uint8)


def _explain(name, image, predict, segments=None, seed=0, **changes):
    settings = ExplainConfig(**{**SETTINGS.model_dump(), **changes})
    return build_explainer(name, predict, settings, seed).explain(image, segments)


def _two(positive: np.ndarray) -> np.ndarray:
    return np.stack([1 - positive, positive], axis=1)


def square_brightness(images: np.ndarray) -> np.ndarray:
    """A model that looks only at the bright square."""
    return _two(images[:, 8:16, 8:16].mean(axis=(1, 2, 3)) / 255).astype(np.float32)


class Counting:
    """A model that notes how many images each call gave it."""

    def __init__(self, predict):
        self.predict = predict
        self.calls: list[int] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        self.calls.append(len(images))
        return self.predict(images)


class Noise:
    """A model that looks at nothing."""

    def __init__(self):
        self.rng = np.random.default_rng(3)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return _two(self.rng.random(len(images)))


def _patches(size: int = 12) -> np.ndarray:
    """Five segments of different sizes on 8 x 12 pixels."""
    return np.array([[0, 1, 2], [3, 4, 4]]).repeat(size // 3, axis=0).repeat(size // 3, axis=1)


def _working_together(segments: np.ndarray):
    """A model of five segments, each shown or black, that is far from additive."""
    places = [np.argwhere(segments == i)[0] for i in range(5)]

    def predict(images: np.ndarray) -> np.ndarray:
        a, b, c, d, e = (images[:, row, column].max(axis=1) > 0 for row, column in places)
        logits = 2.0 * a - 1.5 * b + 3.0 * (c & d) - 2.0 * (a & e) + 1.0 * (b & d & e) - 0.5
        return _two(1 / (1 + np.exp(-logits)))

    return predict


@every_explainer
def test_every_explainer_finds_what_the_model_looks_at(image, name):
    explanation = _explain(name, image, square_brightness)

    weights = explanation.superpixel_weights
    assert weights.shape == (16, 2)
    assert weights.dtype == np.float64
    assert weights[:, 1].argmax() == SQUARE
    assert np.abs(np.delete(weights[:, 1], SQUARE)).max() < 0.05 * weights[SQUARE, 1]
    np.testing.assert_allclose(weights[:, 0], -weights[:, 1], atol=1e-6)
    assert explanation.predicted == 1
    assert explanation.explainer == name
    np.testing.assert_array_equal(explanation.segments, segment_image(image, "grid", 16))


@pytest.mark.parametrize(("segmentation", "scale"), [("slic", 1), ("quickshift", 4)])
@every_explainer
def test_superpixels_that_overlap_the_square_are_found(image, name, segmentation, scale):
    image = image.repeat(scale, axis=0).repeat(scale, axis=1)

    def predict(images):
        return square_brightness(images[:, ::scale, ::scale])

    explanation = _explain(name, image, predict, segmentation=segmentation)

    square = explanation.segments[8 * scale : 16 * scale, 8 * scale : 16 * scale]
    weights = explanation.superpixel_weights[:, 1]
    elsewhere = np.delete(weights, np.unique(square))
    assert len(elsewhere) > 1
    assert weights.argmax() in square
    assert np.abs(elsewhere).max() < 0.2 * weights.max()


@every_explainer
def test_probabilities_are_those_of_the_whole_image(image, name):
    explanation = _explain(name, image, square_brightness)

    np.testing.assert_array_equal(explanation.probabilities, square_brightness(image[None])[0])
    assert explanation.probabilities.dtype == np.float32


@every_explainer
def test_image_and_segments_are_left_as_they_were(image, name):
    segments = segment_image(image, "grid", 9) + 3
    before, segments_before = image.copy(), segments.copy()

    _explain(name, image, square_brightness, segments)

    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(segments, segments_before)


@every_explainer
def test_explanation_repeats_and_the_seed_is_noted(image, name):
    segments = _patches()
    small, predict = image[8:16, 8:20], _working_together(segments)
    first, second, other = (
        _explain(name, small, predict, segments, seed, num_samples=30, min_samples=30)
        for seed in (7, 7, 8)
    )

    np.testing.assert_array_equal(first.superpixel_weights, second.superpixel_weights)
    draws = name != "occlusion"
    assert (first.superpixel_weights != other.superpixel_weights).any() == draws
    assert (first.seed, other.seed) == ((7, 8) if draws else (None, None))


@every_explainer
def test_given_segments_of_any_ids_are_taken(image, name):
    grid = segment_image(image, "grid", 16)
    expected = _explain(name, image, square_brightness)

    explanation = _explain(name, image, square_brightness, 7 * grid - 30, segmentation="slic")

    np.testing.assert_array_equal(explanation.segments, grid)
    np.testing.assert_array_equal(explanation.superpixel_weights, expected.superpixel_weights)


@every_explainer
def test_constant_image_has_nothing_to_explain(name):
    constant = np.full((32, 32, 3), 90, dtype=np.uint8)

    explanation = _explain(name, constant, square_brightness, hide="mean")

    np.testing.assert_allclose(explanation.superpixel_weights, 0, atol=1e-9)
    assert "the probability does not change, whatever is hidden" in explanation.warnings


@every_explainer
def test_one_superpixel_is_enough(image, name):
    explanation = _explain(name, image, square_brightness, superpixels=1)

    assert explanation.superpixel_weights.shape == (1, 2)
    assert explanation.superpixel_weights[0, 1] > 0


@every_explainer
def test_number_of_samples_is_what_the_model_saw(image, name):
    model = Counting(square_brightness)

    explanation = _explain(name, image, model)

    assert explanation.num_samples == sum(model.calls)
    if name == "occlusion":
        assert explanation.num_samples == 16 + 1
    assert explanation.duration_s > 0


@pytest.mark.parametrize("name", ["lime", "kernel_shap"])
def test_images_come_in_rounds(image, name):
    model = Counting(square_brightness)

    _explain(name, image, model, min_samples=300)

    assert model.calls == [ROUND, ROUND, 300 - 2 * ROUND]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@every_explainer
def test_batches_inside_the_model_change_nothing(image, name, batch_size):
    def in_batches(images):
        starts = range(0, len(images), batch_size)
        return np.concatenate([square_brightness(images[i : i + batch_size]) for i in starts])

    whole, split = (_explain(name, image, predict) for predict in (square_brightness, in_batches))

    assert whole.num_samples == split.num_samples
    np.testing.assert_allclose(whole.superpixel_weights, split.superpixel_weights, atol=1e-6)


@every_explainer
def test_settings_arrive(name):
    settings = ExplainConfig(
        num_samples=40,
        min_samples=20,
        sampling="glime",
        segmentation="slic",
        superpixels=7,
        hide=9,
        top=2,
    )

    built = build_explainer(name, square_brightness, settings, 11)

    values = {**settings.model_dump(), "seed": 11}
    assert {key: getattr(built, key) for key in built.takes} == {
        key: values[key] for key in built.takes
    }
    assert built.name == name


@every_explainer
def test_defaults_are_those_of_the_settings(name):
    built, defaults = EXPLAINERS[name](square_brightness), ExplainConfig()

    for key in set(built.takes) - {"seed"}:
        assert getattr(built, key) == getattr(defaults, key)


BAD = {
    "NaN": (lambda n: np.full((n, 2), np.nan), "received NaN or infinity from the predict"),
    "infinity": (lambda n: np.full((n, 2), np.inf), "received NaN or infinity from the predict"),
    "few rows": (lambda n: np.full((n - 1, 2), 0.5), r"the shape \(\d+, 2\) from the predict"),
    "one column": (lambda n: np.ones((n, 1)), r"the shape \(\d+, 1\) from the predict"),
    "1-D": (lambda n: np.full(n, 0.5), r"the shape \(\d+,\) from the predict"),
    "logits": (lambda n: np.full((n, 2), 3.0), r"rows such as \[3.0, 3.0\] .* apply a softmax"),
    "negative": (lambda n: np.tile([-0.5, 1.5], (n, 1)), r"rows such as \[-0.5, 1.5\] .* softmax"),
}


@pytest.mark.parametrize(("probabilities", "message"), BAD.values(), ids=BAD)
@every_explainer
def test_other_predictions_are_refused(image, name, probabilities, message):
    with pytest.raises(
        InputError, match=rf"expected \(\d+, classes\) numbers of 0 to 1.*{message}"
    ):
        _explain(name, image, lambda images: probabilities(len(images)))


@pytest.mark.parametrize("answer", [[[0.5, 0.5], [1.0]], np.array([["a", "b"]]), None])
@every_explainer
def test_predictions_that_are_no_numbers_are_refused(image, name, answer):
    with pytest.raises(InputError, match=r"Probabilities: expected .* from the predict function"):
        _explain(name, image, lambda _: answer)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_samples": 9}, {"num_samples": 50.0}, {"min_samples": 0}, {"top": 0}, {"seed": -1},
        {"superpixels": 0}, {"sampling": "shapley"}, {"predict": None},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(InputError, match=r"expected .*[,;] received"):
        LimeExplainer(**{"predict": square_brightness, **settings})


@pytest.mark.parametrize("wrong", [None, [[0]], "scan.png"])
@every_explainer
def test_what_is_no_array_is_refused(name, wrong):
    with pytest.raises(InputError, match="Images: expected uint8"):
        _explain(name, wrong, square_brightness)


def test_other_classes_in_a_later_round_are_refused(image):
    def grows(images):
        probabilities = square_brightness(images)
        return probabilities if len(images) == ROUND else np.pad(probabilities, ((0, 0), (0, 1)))

    with pytest.raises(InputError, match=r"expected \(44, 2\) .* the shape \(44, 3\)"):
        _explain("kernel_shap", image, grows)


@pytest.mark.parametrize("together", ["all", "any"])
def test_stability_is_not_overstated_where_three_superpixels_act_together(together):
    """The overlap with other runs that a run states, against the overlap of all runs."""
    segments = np.arange(49).reshape(7, 7).repeat(4, axis=0).repeat(4, axis=1)
    image = np.full((28, 28, 3), 255, np.uint8)

    def predict(images):
        shown = images[:, 2::4, 2::4, 0].reshape(len(images), 49)[:, [3, 17, 40]] > 0
        positive = 0.05 + 0.9 * getattr(shown, together)(axis=1)
        return np.stack([1 - positive, positive], axis=1)

    runs = [
        LimeExplainer(predict, num_samples=256, min_samples=256, hide=0, seed=seed).explain(
            image, segments
        )
        for seed in range(12)
    ]
    stated = np.mean([run.stability["top_overlap"] for run in runs])
    weights = np.array([run.superpixel_weights[:, runs[0].predicted] for run in runs])
    one, other = (np.array(rows) for rows in zip(*combinations(weights, 2), strict=True))
    assert stated < top_overlap(one, other, 5) + 0.25


def test_bad_prediction_of_a_later_round_is_refused(image):
    def fails_later(images):
        probabilities = square_brightness(images)
        return probabilities if len(images) == ROUND else probabilities * np.nan

    with pytest.raises(InputError, match=r"expected \(44, 2\) .* received NaN"):
        _explain("kernel_shap", image, fails_later)


def test_rounding_of_probabilities_is_not_refused(image):
    def rounded(images):
        return square_brightness(images).astype(np.float16)

    assert _explain("lime", image, rounded).superpixel_weights[:, 1].argmax() == SQUARE


@pytest.mark.parametrize(
    ("dtype", "shape"), [(np.float32, (32, 32, 3)), (np.uint8, (32, 32)), (np.uint8, (3, 32, 32))]
)
@every_explainer
def test_other_images_are_refused(name, dtype, shape):
    with pytest.raises(InputError, match="expected uint8"):
        _explain(name, np.zeros(shape, dtype=dtype), square_brightness)


@every_explainer
def test_segments_of_another_size_are_refused(image, name):
    with pytest.raises(InputError, match=r"expected integers \(32, 32\)"):
        _explain(name, image, square_brightness, np.zeros((16, 32), dtype=int))


@every_explainer
def test_other_fill_is_refused(image, name):
    with pytest.raises(InputError, match='"mean" or a grey level of 0 to 255, received 300'):
        EXPLAINERS[name](square_brightness, hide=300).explain(image)


@pytest.mark.parametrize("explainer", [LimeExplainer, KernelShapExplainer])
def test_too_few_samples_are_refused(explainer):
    with pytest.raises(InputError, match="expected a whole number of 10 or more, received 9"):
        explainer(square_brightness, num_samples=9)


def test_unknown_sampling_is_refused():
    with pytest.raises(InputError, match=r"expected one of orthogonal, .*; received 'gibbs'"):
        LimeExplainer(square_brightness, sampling="gibbs")


def _three_classes(images: np.ndarray) -> np.ndarray:
    """Softmax of three mixtures of sixteen pixels, bent by tanh."""
    pixels = images[:, 3::8, 3::8].astype(np.float64).mean(axis=3).reshape(len(images), -1) / 255
    mixing = np.random.default_rng(5).standard_normal((16, 3))
    exponentials = np.exp(2 * np.tanh(pixels @ mixing))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("hide_color", "hide"), [(None, "mean"), (0, 0)])
def test_lime_agrees_with_the_lime_package(image, hide_color, hide):
    segments = segment_image(image, "slic", 20)
    count, samples = int(segments.max()) + 1, 150
    result = LimeImageExplainer(random_state=7).explain_instance(
        image,
        _three_classes,
        segmentation_fn=lambda _: segments,
        random_seed=1,
        num_samples=samples,
        top_labels=2,
        hide_color=hide_color,
    )
    masks = np.random.RandomState(7).randint(0, 2, samples * count).reshape(samples, count) == 1
    masks[0] = True

    perturbed = PerturbedImage(image, segments, fill_of(image, segments, hide), _three_classes)
    surrogate = fit_surrogate(
        masks, perturbed.probabilities(masks), kernel_weights(masks.mean(axis=1)), paired=False
    )

    assert len(result.top_labels) == 2
    for label in result.top_labels:
        expected = [weight for _, weight in sorted(result.local_exp[label])]
        assert np.abs(expected).max() > 0.001
        np.testing.assert_allclose(surrogate.weights[:, label], expected, atol=1e-6)
        assert surrogate.intercepts[label] == pytest.approx(result.intercept[label], abs=1e-6)
    # `lime` keeps only one score, that of the class it fits last: the predicted one.
    assert surrogate.scores[result.top_labels[0]] == pytest.approx(result.score, abs=1e-6)


@pytest.mark.parametrize("hide", ["mean", 0])
def test_lime_agrees_with_the_lime_package_within_noise_from_its_own_masks(image, hide):
    segments = segment_image(image, "slic", 9)
    expected = LimeImageExplainer(random_state=0).explain_instance(
        image,
        _three_classes,
        segmentation_fn=lambda _: segments,
        random_seed=1,
        num_samples=2000,
        batch_size=500,
        top_labels=1,
        hide_color=None if hide == "mean" else 0,
    )
    (label,) = expected.top_labels

    explanation = _explain(
        "lime", image, _three_classes, segments, hide=hide, num_samples=2000, min_samples=2000
    )

    assert explanation.predicted == label
    weights = np.array([weight for _, weight in sorted(expected.local_exp[label])])
    difference = np.abs(explanation.superpixel_weights[:, label] - weights)
    assert difference.max() < 3 * explanation.half_widths[:, label].max()
    assert difference.max() < 0.2 * np.abs(weights).max()


def test_glime_and_independent_estimate_the_same(image):
    segments = segment_image(image, "slic", 9)
    one, other = (
        _explain(
            "lime",
            image,
            _three_classes,
            segments,
            sampling=sampling,
            num_samples=4000,
            min_samples=4000,
        )
        for sampling in ("independent", "glime")
    )

    noise = np.hypot(one.half_widths, other.half_widths)
    assert (np.abs(one.superpixel_weights - other.superpixel_weights) / noise).max() < 2
    assert np.abs(one.superpixel_weights).max() > 10 * noise.max()


@pytest.mark.parametrize("sampling", ["orthogonal", "paired", "independent", "glime"])
def test_lime_by_every_sampling_finds_the_only_superpixel_that_decides(image, sampling):
    segments = segment_image(image, "slic", 16)
    inside = segments == 6
    assert (fill_of(image, segments, "mean")[inside] != image[inside]).any()

    def keeps_segment(images):
        return _two((images[:, inside] == image[inside]).all(axis=(1, 2)).astype(np.float32))

    explanation = _explain(
        "lime",
        image,
        keeps_segment,
        segments,
        sampling=sampling,
        hide="mean",
        num_samples=600,
        min_samples=600,
    )

    weights = explanation.superpixel_weights[:, 1]
    assert weights.argmax() == 6
    assert weights[6] > 0.9
    assert np.abs(np.delete(weights, 6)).max() < 0.05
    assert explanation.scores.min() > 0.95


def graded_brightness(images: np.ndarray) -> np.ndarray:
    """A model that looks at eight squares of the grid, at each half as much again as at the next.

    So that the strongest superpixels are worth ranking.
    """
    squares = images.reshape(len(images), 4, 8, 4, 8, 3).mean(axis=(2, 4, 5)).reshape(-1, 16) / 255
    square_weights = np.where(np.arange(16) < 8, 1.5 ** -np.arange(16), 0)
    return _two(squares @ square_weights / square_weights.sum())


def test_lime_stops_early_where_the_ranking_has_settled(image):
    model = Counting(graded_brightness)

    explanation = _explain("lime", image, model, num_samples=1000)

    assert explanation.num_samples == sum(model.calls) < 1000
    assert explanation.num_samples % ROUND == 0
    assert explanation.stability["top_overlap"] >= SETTLED_OVERLAP
    assert explanation.warnings == []


def test_lime_does_not_stop_before_the_least_number(image):
    early = _explain("lime", image, graded_brightness, min_samples=10)
    later = _explain("lime", image, graded_brightness, min_samples=200)

    assert (early.num_samples, later.num_samples) == (ROUND, 2 * ROUND)


def test_lime_goes_on_to_the_end_where_nothing_settles(image):
    assert _explain("lime", image, Noise(), num_samples=500).num_samples == 500


def scattered(images: np.ndarray) -> np.ndarray:
    """Noise that is the same for the same image."""
    return _two(np.modf(0.618 * images.sum(axis=(1, 2, 3)))[0])


@pytest.mark.parametrize(
    ("predict", "top", "stops"),
    [
        (graded_brightness, 5, True),
        (square_brightness, 5, True),  # the others have no weight, and need not settle
        (square_brightness, 1, True),
        (scattered, 5, False),
        (scattered, 16, False),  # all are the strongest, but none is known well
    ],
)
def test_lime_stops_after_the_first_round_that_has_settled(image, predict, top, stops):
    settings = {"num_samples": 700, "top": top, "min_samples": 10}
    expected = 700
    for count in range(ROUND, 700, ROUND):
        explanation = _explain("lime", image, predict, **{**settings, "num_samples": count})
        sizes = np.abs(explanation.superpixel_weights[:, explanation.predicted])
        strongest = [i for i in np.argsort(-sizes)[:top] if sizes[i] >= 0.1 * sizes.max()]
        widest = explanation.half_widths[strongest, explanation.predicted].max()
        settled = explanation.stability["top_overlap"] >= SETTLED_OVERLAP
        if settled and widest <= SETTLED_WIDTH * sizes.max():
            expected = count
            break

    assert _explain("lime", image, predict, **settings).num_samples == expected
    assert (expected < 700) == stops


@pytest.mark.parametrize("sampling", ["orthogonal", "paired", "independent", "glime"])
def test_lime_is_the_regression_on_its_masks(image, sampling):
    segments = segment_image(image, "slic", 9)
    masks = draw_masks(int(segments.max()) + 1, 200, 6, sampling)
    perturbed = PerturbedImage(image, segments, np.zeros_like(image), _three_classes)
    expected = fit_surrogate(
        masks,
        perturbed.probabilities(masks),
        np.ones(200) if sampling == "glime" else kernel_weights(masks.mean(axis=1)),
        paired=sampling in ("orthogonal", "paired"),
    )

    explanation = _explain(
        "lime",
        image,
        _three_classes,
        segments,
        seed=6,
        sampling=sampling,
        num_samples=200,
        min_samples=200,
    )

    np.testing.assert_array_equal(explanation.superpixel_weights, expected.weights)
    np.testing.assert_array_equal(explanation.half_widths, expected.half_widths)
    np.testing.assert_array_equal(explanation.intercepts, expected.intercepts)
    np.testing.assert_array_equal(explanation.scores, expected.scores)
    assert explanation.stability == expected.stability(explanation.predicted, 5, 6)


@pytest.mark.parametrize("least", [300, 5000])
def test_lime_never_stops_early_where_least_and_most_are_equal(image, least):
    assert _explain("lime", image, graded_brightness, min_samples=least).num_samples == 300


def test_lime_that_stops_gives_what_as_many_samples_give(image):
    stopped = _explain("lime", image, graded_brightness, num_samples=1000)
    count = stopped.num_samples
    expected = _explain("lime", image, graded_brightness, num_samples=count, min_samples=count)

    np.testing.assert_array_equal(stopped.superpixel_weights, expected.superpixel_weights)
    np.testing.assert_array_equal(stopped.half_widths, expected.half_widths)
    assert stopped.stability == expected.stability


def test_lime_reports_the_stability_of_as_many_as_are_shown(image):
    explanation = _explain("lime", image, graded_brightness, top=3)

    assert set(explanation.stability) == {"top", "top_overlap", "rank_correlation"}
    assert explanation.stability["top"] == 3
    assert explanation.half_widths.shape == (16, 2)
    assert explanation.scores.shape == (2,)


def test_one_superpixel_that_decides_alone_is_no_reason_for_a_warning(image):
    explanation = _explain("lime", image, square_brightness, num_samples=1000)

    assert explanation.scores.min() > 0.99
    assert explanation.stability["top"] < 5
    assert explanation.warnings == []
    assert explanation.num_samples < 1000


@pytest.mark.parametrize("name", ["kernel_shap", "occlusion"])
def test_other_explainers_warn_of_one_superpixel(image, name):
    explanation = _explain(name, image, square_brightness, superpixels=1)

    assert explanation.warnings == ["there is one superpixel, so nothing to compare"]


def test_kernel_shap_warns_of_fewer_samples_than_superpixels(image):
    segments = np.arange(image.shape[0] * image.shape[1]).reshape(image.shape[:2])

    explanation = _explain("kernel_shap", image, square_brightness, segments, num_samples=100)

    assert f"100 samples are fewer than the {segments.size} superpixels" in explanation.warnings


def test_the_row_at_fault_is_shown(image):
    def predict(images):
        probabilities = np.full((len(images), 2), 0.5)
        probabilities[-1] = -0.2, 1.2
        return probabilities

    with pytest.raises(InputError, match=r"such as \[-0\.2, 1\.2\] from the predict function"):
        _explain("occlusion", image, predict)


def test_lime_warns_of_one_superpixel(image):
    explanation = _explain("lime", image, square_brightness, superpixels=1)

    assert "there is one superpixel, so nothing to compare" in explanation.warnings


def test_lime_warns_of_fewer_samples_than_superpixels():
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)

    explanation = _explain(
        "lime", noise, square_brightness, superpixels=5000, num_samples=100, min_samples=100
    )

    count = explanation.segments.max() + 1
    assert count > 4900
    assert explanation.superpixel_weights.shape == (count, 2)
    assert f"100 samples are fewer than the {count} superpixels" in explanation.warnings


def test_lime_warns_of_a_probability_that_does_not_change():
    constant = np.full((32, 32, 3), 90, dtype=np.uint8)

    explanation = _explain("lime", constant, square_brightness, hide="mean")

    assert explanation.warnings == ["the probability does not change, whatever is hidden"]
    assert explanation.scores.tolist() == [1.0, 1.0]


def test_lime_warns_of_a_model_of_noise(image):
    poor, unstable = _explain("lime", image, Noise()).warnings

    assert poor.startswith("the surrogate explains ")
    assert poor.endswith("% of the changes of the probability, less than 30%")
    assert unstable.startswith("the strongest superpixels by other masks would have")
    assert unstable.endswith(" with these, less than 0.5")


def _shapley_by_all_subsets(image, segments, predict, count):
    """Mean gain of each segment over all orders in which they may be shown."""

    def value(shown):
        masked = np.where(np.isin(segments, shown)[..., None], image, np.uint8(0))
        return predict(masked[None])[0]

    values = np.zeros((count, 2))
    for segment in range(count):
        others = [i for i in range(count) if i != segment]
        for size in range(count):
            probability = factorial(size) * factorial(count - 1 - size) / factorial(count)
            for shown in combinations(others, size):
                values[segment] += probability * (value([*shown, segment]) - value(list(shown)))
    return values


def test_kernel_shap_agrees_with_shapley_values_over_all_subsets(image):
    """Within 0.01, from 4000 drawn masks of 32 that there are."""
    segments, small = _patches(), image[8:16, 8:20]
    predict = _working_together(segments)
    expected = _shapley_by_all_subsets(small, segments, predict, 5)

    explanation = _explain("kernel_shap", small, predict, segments, num_samples=4000)

    np.testing.assert_allclose(explanation.superpixel_weights, expected, atol=0.01)
    assert np.abs(expected).min() > 0.05


def test_kernel_shap_of_an_additive_model_is_exact(image):
    def mean_of_all(images):
        return _two(images.mean(axis=(1, 2, 3)) / 255)

    weights = _explain("kernel_shap", image, mean_of_all, num_samples=200).superpixel_weights[:, 1]

    grid = segment_image(image, "grid", 16)
    expected = [image[grid == i].sum() / image.size / 255 for i in range(16)]
    np.testing.assert_allclose(weights, expected, atol=1e-5)


@pytest.mark.parametrize("samples", [10, 11, 300])
def test_kernel_shap_weights_add_up_to_what_hiding_everything_takes(image, samples):
    explanation = _explain("kernel_shap", image, _three_classes, num_samples=samples)

    whole, nothing = _three_classes(np.stack([image, np.zeros_like(image)]))
    np.testing.assert_allclose(explanation.intercepts, nothing, atol=1e-12)
    np.testing.assert_allclose(
        explanation.superpixel_weights.sum(axis=0), whole - nothing, atol=1e-12
    )


def test_kernel_shap_of_one_superpixel_is_the_whole_difference(image):
    explanation = _explain("kernel_shap", image, square_brightness, superpixels=1)

    assert explanation.superpixel_weights[0, 1] == pytest.approx(explanation.probabilities[1])
    assert explanation.num_samples == 2


def test_occlusion_by_hand():
    segments = np.array([[0, 0, 1, 1], [2, 2, 3, 3]])
    image = np.array([0, 51, 102, 255], dtype=np.uint8)[segments][..., None].repeat(3, axis=2)

    def mean_grey(images):
        return _two(images.mean(axis=(1, 2, 3)) / 255)

    explanation = OcclusionExplainer(mean_grey, hide=0).explain(image, segments)

    # The mean is 408 / 4 = 102 of 255; without each segment it falls by a quarter of its grey.
    np.testing.assert_allclose(explanation.probabilities, [0.6, 0.4])
    np.testing.assert_allclose(
        explanation.superpixel_weights[:, 1], [0, 0.05, 0.1, 0.25], atol=1e-12
    )
    np.testing.assert_allclose(
        explanation.superpixel_weights[:, 0], [0, -0.05, -0.1, -0.25], atol=1e-12
    )
    np.testing.assert_allclose(explanation.intercepts, [1, 0], atol=1e-12)
    assert (explanation.num_samples, explanation.scores.size) == (5, 0)


@pytest.mark.parametrize(("hide", "expected"), [("mean", 0.0), (0, 0.2), (255, -0.8)])
def test_occlusion_depends_on_what_hidden_superpixels_show(hide, expected):
    image = np.full((2, 2, 3), 51, dtype=np.uint8)

    def mean_grey(images):
        return _two(images.mean(axis=(1, 2, 3)) / 255)

    explanation = OcclusionExplainer(mean_grey, hide=hide).explain(
        image, np.zeros((2, 2), dtype=int)
    )

    assert explanation.superpixel_weights[0, 1] == pytest.approx(expected)
