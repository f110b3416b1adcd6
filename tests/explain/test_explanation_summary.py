"""Summaries of many explanations, from records written by hand."""

import numpy as np
import pytest

from kerasmed.explain.summary import FIGURES, MAP_EDGE, figure_texts, summarise

SEGMENTS = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def _record(true_class, weights, **more):
    """Of two classes; the weights are those for the true one."""
    other = "lesion" if true_class == "clear" else "clear"
    return {
        "true_class": true_class,
        "predicted_class": "lesion",
        "weights": {true_class: weights, other: [9.0] * len(weights)},
        "segments": SEGMENTS,
        "num_samples": 100,
        "duration_s": 1.0,
        "warnings": [],
        "r2": {"clear": 0.1, "lesion": 0.8},
        "stability": {"top": 2, "top_overlap": 0.5, "rank_correlation": 0.4},
        **more,
    }


def test_figures_are_means_over_images():
    checks = {"deletion": 0.2, "insertion": 0.6, "random_deletion": 0.4, "random_insertion": 0.5}
    records = [
        _record(
            "clear",
            [1, 0, 0, 0],
            faithfulness=checks | {"curves": {}},
            region={"pointing_game": True, "intersection_over_union": 0.5},
            randomised=0.3,
        ),
        _record(
            "lesion",
            [0, 1, 0, 0],
            num_samples=300,
            duration_s=2.0,
            predicted_class="clear",
            warnings=["one", "two"],
            stability={"top": 2, "top_overlap": 0.9, "rank_correlation": 0.2},
            faithfulness={**checks, "deletion": 0.4, "curves": {}},
            region={"pointing_game": False, "intersection_over_union": 0.1},
            randomised=-0.1,
        ),
    ]

    figures = summarise({"net": records})["networks"]["net"]

    assert {key for _, key, _ in FIGURES} < set(figures)
    assert {key: figures[key] for key in figures if key != "mean_maps"} == pytest.approx(
        {
            "images": 2,
            "with_warnings": 1,
            "num_samples": 200,
            "duration_s": 1.5,
            "r2": 0.45,  # of the predicted classes: 0.8 and 0.1
            "top_overlap": 0.7,
            "rank_correlation": 0.3,
            "deletion": 0.3,
            "insertion": 0.6,
            "random_deletion": 0.4,
            "random_insertion": 0.5,
            "pointing_game": 0.5,
            "intersection_over_union": 0.3,
            "randomised": 0.1,
        }
    )


def test_what_was_not_measured_is_left_out():
    summary = summarise({"net": [_record("clear", [1, 0, 0, 0], r2={}, stability={})]})

    assert set(summary["networks"]["net"]) == {
        "images",
        "with_warnings",
        "num_samples",
        "duration_s",
        "mean_maps",
    }


def test_figures_are_of_those_images_that_have_them():
    records = [_record("clear", [1, 0, 0, 0]), _record("clear", [1, 0, 0, 0], randomised=0.4)]

    assert summarise({"net": records})["networks"]["net"]["randomised"] == 0.4


def test_mean_maps_by_hand():
    """Images of 4 x 4 pixels are smaller than the maps' edge, so each pixel is a block."""
    records = [
        _record("clear", [2.0, -1.0, 0.0, 1.0]),
        _record("clear", [0.0, -4.0, 2.0, 0.0]),
        _record("lesion", [0.0, 0.0, 0.0, -3.0]),
    ]

    maps = summarise({"net": records})["networks"]["net"]["mean_maps"]

    clear = np.array([(1.0 + 0) / 2, (-0.5 - 1) / 2, (0 + 0.5) / 2, (0.5 + 0) / 2])
    assert list(maps) == ["clear", "lesion"]
    np.testing.assert_allclose(maps["clear"], clear[np.array(SEGMENTS)])
    np.testing.assert_allclose(maps["lesion"], np.array([0, 0, 0, -1.0])[np.array(SEGMENTS)])


@pytest.mark.parametrize(
    ("shape", "edge"), [((8, 8), 8), ((8, 20), 8), ((64, 64), 32), ((50, 70), 32), ((1, 5), 1)]
)
def test_mean_maps_are_means_of_blocks(shape, edge):
    rng = np.random.default_rng(0)
    segments, weights = rng.integers(0, 6, shape), rng.standard_normal(6)
    segments.ravel()[:5] = range(5)
    weights /= np.abs(weights).max()

    (mean_map,) = summarise(
        {"net": [_record("clear", weights.tolist(), segments=segments.tolist())]}
    )["networks"]["net"]["mean_maps"].values()

    expected, counts = np.zeros((edge, edge)), np.zeros((edge, edge))
    for row in range(shape[0]):
        for column in range(shape[1]):
            block = row * edge // shape[0], column * edge // shape[1]
            expected[block] += weights[segments[row, column]]
            counts[block] += 1
    assert edge <= MAP_EDGE
    np.testing.assert_allclose(mean_map, expected / counts, atol=5.1e-4)


def test_map_of_no_weights_is_nought():
    maps = summarise({"net": [_record("clear", [0.0] * 4)]})["networks"]["net"]["mean_maps"]

    assert maps["clear"] == [[0.0] * 4] * 4


def test_agreement_by_hand():
    one = [_record("clear", [1, 2, 3, 4]), _record("lesion", [1, 2, 3, 4])]
    other = [_record("clear", [10, 20, 30, 40]), _record("lesion", [1, 2, 4, 3])]

    (agreement,) = summarise({"one": one, "other": other})["agreement"]

    # Correlations of 1 and 1 - 6 * 2 / (4 * 15) = 0.8: they deviate by 0.1 from their mean.
    assert agreement["networks"] == ["one", "other"]
    assert agreement["rank_correlation"] == pytest.approx(0.9)
    assert agreement["standard_error"] == pytest.approx(np.sqrt(2 * 0.1**2 / (2 - 1)) / np.sqrt(2))
    assert agreement["images"] == 2


def test_every_two_networks_are_compared_once():
    records = {name: [_record("clear", [1, 2, 3, 4])] for name in ("a", "b", "c")}

    summary = summarise(records)

    assert [row["networks"] for row in summary["agreement"]] == [
        ["a", "b"],
        ["a", "c"],
        ["b", "c"],
    ]
    assert list(summary["networks"]) == ["a", "b", "c"]


def test_one_image_has_no_standard_error_and_one_network_no_agreement():
    record = _record("clear", [1, 2, 3, 4])

    assert summarise({"a": [record], "b": [record]})["agreement"][0]["standard_error"] is None
    assert summarise({"a": [record]})["agreement"] == []


def test_networks_with_other_images_are_refused():
    record = _record("clear", [1, 2, 3, 4])

    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is shorter"):
        summarise({"a": [record, record], "b": [record]})


def test_record_that_does_not_say_its_true_class_is_refused():
    record = _record("clear", [1, 2, 3, 4])
    del record["true_class"]

    with pytest.raises(KeyError, match="true_class"):
        summarise({"a": [record]})


def test_figures_as_text_are_in_the_order_of_their_titles():
    figures = {"num_samples": 383.6, "r2": 0.456, "pointing_game": 0.5}

    texts = dict(zip([key for _, key, _ in FIGURES], figure_texts(figures), strict=True))

    assert {key: text for key, text in texts.items() if text} == {
        "num_samples": "384",
        "r2": "0.46",
        "pointing_game": "0.50",
    }
