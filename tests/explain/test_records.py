"""Pictures and records of hand-made explanations."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kerasmed.explain.explanation import Explanation
from kerasmed.explain.records import record_explanation
from kerasmed.fingerprint import Fingerprint

NAMES = ["clear", "lesion"]
MADE_FROM = {"kerasmed": "1.0", "model_sha256": "ab", "seed": 3, "settings": {"top": 2}}


def _quadrants(size: int = 8) -> np.ndarray:
    """Four square segments: 0 1 / 2 3."""
    rows, columns = np.mgrid[:size, :size] // (size // 2)
    return 2 * rows + columns


@pytest.fixture
def explanation() -> Explanation:
    """Four quadrants with hand-made weights; class 1 is predicted."""
    weights = np.array([[0.4, -0.4], [-0.1, 0.1], [0.0, 0.0], [-0.3, 0.3]])
    return Explanation(
        image=np.full((8, 8, 3), 100, dtype=np.uint8),
        segments=_quadrants(),
        superpixel_weights=weights,
        probabilities=np.array([0.25, 0.75], dtype=np.float32),
        explainer="lime",
        seed=3,
        num_samples=40,
        intercepts=np.array([0.2, 0.8]),
        scores=np.array([0.7, 0.9]),
        half_widths=np.abs(weights) / 4,
        stability={"top": 2, "top_overlap": 0.5, "rank_correlation": 0.25},
        warnings=["a reason"],
        duration_s=1.23456,
    )


class Explain:
    """Gives the same each time, and counts the times."""

    def __init__(self, explanation):
        self.explanation = explanation
        self.times = 0

    def __call__(self):
        self.times += 1
        return self.explanation, {"image": "scan.png", "true_class": "lesion"}


def _record(path, explain, made_from=MADE_FROM):
    return record_explanation(path, Fingerprint(made_from), NAMES, 2, explain)


def test_overlay_shows_the_image_next_to_green_and_purple(explanation):
    overlay = np.asarray(explanation.overlay(label=1, top=2)).astype(int)

    assert overlay.shape == (256, 512, 3)
    assert (overlay[:, :256] == 100).all()
    against, weak, nothing, speaks_for = (
        overlay[row, 256 + column] for row in (64, 192) for column in (64, 192)
    )
    assert min(against[0], against[2]) > 120 > 100 > against[1]
    assert speaks_for[1] > 120 > 100 > max(speaks_for[0], speaks_for[2])
    assert weak.tolist() == nothing.tolist() == [100] * 3


def test_overlay_colours_by_hand(explanation):
    overlay = np.asarray(explanation.overlay(label=1, top=2)).astype(int)

    # Purple, 0.6 opaque, for the strongest; green for the second, with three quarters its weight.
    grey = 100 / 255
    strongest = [0.4 * grey + 0.6 * c for c in (0.6, 0.15, 0.65)]
    second = [0.55 * grey + 0.45 * c for c in (0.1, 0.65, 0.25)]
    np.testing.assert_allclose(overlay[64, 256 + 64], 255 * np.array(strongest), atol=0.51)
    np.testing.assert_allclose(overlay[192, 256 + 192], 255 * np.array(second), atol=0.51)


def test_shown_superpixels_have_a_yellow_outline_inside_them(explanation):
    overlay = np.asarray(explanation.overlay(label=1, top=1))

    yellow = (overlay[:, 256:] == [255, 255, 0]).all(axis=2)
    assert yellow.any()
    assert not yellow[128:].any()
    assert not yellow[:, 128:].any()


def test_weights_of_the_other_class_are_drawn_for_it(explanation):
    one, other = (np.asarray(explanation.overlay(label, top=4)).astype(int) for label in (0, 1))

    assert one[64, 256 + 64, 1] > 100 > other[64, 256 + 64, 1]


def test_overlay_of_no_weights_is_the_image(explanation):
    blank = replace(explanation, superpixel_weights=np.zeros((4, 2)))

    assert (np.asarray(blank.overlay(label=0, top=5)) == 100).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((300, 300), (300, 600, 3)), ((8, 4), (256, 256, 3)), ((100, 100), (300, 600, 3))],
)
def test_images_are_enlarged_by_a_whole_number_to_about_256(explanation, size, expected):
    other = replace(
        explanation,
        image=np.zeros((*size, 3), dtype=np.uint8),
        segments=np.zeros(size, dtype=int),
    )

    assert np.asarray(other.overlay(label=0, top=1)).shape == expected


def test_overlay_leaves_the_explanation_as_it_was(explanation):
    before = explanation.superpixel_weights.copy()

    np.asarray(explanation.overlay(label=1, top=1))

    np.testing.assert_array_equal(explanation.superpixel_weights, before)
    assert (explanation.image == 100).all()


def test_picture_and_record_are_written(explanation, tmp_path):
    path = tmp_path / "model" / "scan.png"

    record = _record(path, Explain(explanation))

    assert sorted(p.name for p in path.parent.iterdir()) == ["scan.json", "scan.png"]
    np.testing.assert_array_equal(
        np.asarray(Image.open(path)), np.asarray(explanation.overlay(1, 2))
    )
    assert json.loads(path.with_suffix(".json").read_text()) == record
    assert record == {
        "fingerprint": Fingerprint(MADE_FROM).as_record(),
        "image": "scan.png",
        "true_class": "lesion",
        "explainer": "lime",
        "picture": "scan.png",
        "predicted_class": "lesion",
        "probabilities": {"clear": 0.25, "lesion": 0.75},
        "num_samples": 40,
        "seed": 3,
        "duration_s": 1.235,
        "warnings": ["a reason"],
        "stability": {"top": 2, "top_overlap": 0.5, "rank_correlation": 0.25},
        "r2": {"clear": 0.7, "lesion": 0.9},
        "intercept": {"clear": 0.2, "lesion": 0.8},
        "weights": {"clear": [0.4, -0.1, 0.0, -0.3], "lesion": [-0.4, 0.1, 0.0, 0.3]},
        "half_widths": {"clear": [0.1, 0.025, 0.0, 0.075], "lesion": [0.1, 0.025, 0.0, 0.075]},
        "segments": _quadrants().tolist(),
    }


def test_what_an_explainer_does_not_know_is_empty(explanation, tmp_path):
    bare = replace(
        explanation, scores=np.empty(0), half_widths=np.empty((0, 0)), stability={}, seed=None
    )

    record = _record(tmp_path / "scan.png", Explain(bare))

    assert record["r2"] == record["half_widths"] == record["stability"] == {}
    assert record["seed"] is None


def test_what_is_there_is_not_made_again(explanation, tmp_path):
    explain, path = Explain(explanation), tmp_path / "scan.png"
    first = _record(path, explain)
    times = [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]

    second = _record(path, explain)

    assert explain.times == 1
    assert first == second
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())] == times


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"settings": {"top": 3}}, {"kerasmed": "1.1"}, {"more": None}]
)
def test_what_was_made_from_something_else_is_made_again(explanation, tmp_path, change):
    explain, path = Explain(explanation), tmp_path / "scan.png"
    _record(path, explain)
    explain.explanation = replace(explanation, num_samples=41)

    record = _record(path, explain, MADE_FROM | change)

    assert explain.times == 2
    assert record["num_samples"] == 41
    written = json.loads(path.with_suffix(".json").read_text())
    assert Fingerprint(MADE_FROM | change).matches(written["fingerprint"])


@pytest.mark.parametrize("content", [b"", b'{"fingerprint": {', b"\xff\xfe", b"{}", b"[]", b"null"])
def test_spoilt_record_is_made_again(explanation, tmp_path, content):
    explain, path = Explain(explanation), tmp_path / "scan.png"
    expected = _record(path, explain)
    path.with_suffix(".json").write_bytes(content)

    assert _record(path, explain) == expected
    assert explain.times == 2
    assert json.loads(path.with_suffix(".json").read_text()) == expected


@pytest.mark.parametrize("suffix", [".png", ".json"])
def test_missing_half_is_made_again(explanation, tmp_path, suffix):
    explain, path = Explain(explanation), tmp_path / "scan.png"
    _record(path, explain)
    path.with_suffix(suffix).unlink()

    _record(path, explain)

    assert explain.times == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scan.json", "scan.png"]


def test_error_of_an_explanation_comes_through_and_leaves_nothing(tmp_path):
    def fails():
        raise ValueError("no model")

    with pytest.raises(ValueError, match="no model"):
        _record(tmp_path / "scan.png", fails)

    assert list(tmp_path.iterdir()) == []


def test_other_number_of_class_names_is_refused(explanation, tmp_path):
    with pytest.raises(ValueError, match=r"zip\(\) argument"):
        record_explanation(
            tmp_path / "scan.png", Fingerprint(MADE_FROM), ["a", "b", "c"], 2, Explain(explanation)
        )


def test_values_that_json_has_not_are_refused(explanation, tmp_path):
    endless = replace(explanation, intercepts=np.array([np.nan, 0.0]))

    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        _record(tmp_path / "scan.png", Explain(endless))

    assert not (tmp_path / "scan.json").exists()
