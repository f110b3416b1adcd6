"""Every segmentation through one contract; borders and grids by hand."""

from typing import get_args

import numpy as np
import pytest

from kerasmed.errors import InputError
from kerasmed.explain.config import ExplainConfig
from kerasmed.explain.segments import SEGMENTATIONS, segment_image, superpixels_of


def _ramp(height: int, width: int) -> np.ndarray:
    """Bright enough everywhere that nothing of it is a border, with a little grain."""
    rows, columns = np.mgrid[:height, :width]
    ramp = np.stack([60 + 120 * rows // height, 60 + 120 * columns // width, 80 + 0 * rows], axis=2)
    grain = np.random.default_rng(0).integers(0, 12, ramp.shape)
    return (ramp + grain).astype(np.uint8)


def _scan(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc with a dark hole on a border that is nearly black, and where the disc is."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    disc = rows**2 + columns**2 < (0.4 * size) ** 2
    hole = rows**2 + columns**2 < (0.1 * size) ** 2
    image = np.where(disc[..., None], _ramp(size, size), np.uint8(9))
    image[hole] = 0
    return image, disc


def _blobs(size: int) -> np.ndarray:
    """Sixteen plain squares of different colours."""
    colours = np.random.default_rng(1).integers(60, 256, (4, 4, 3))
    return colours.repeat(size // 4, axis=0).repeat(size // 4, axis=1).astype(np.uint8)


IMAGES = {
    "coloured": _blobs(128),
    "constant": np.full((32, 32, 3), 90, dtype=np.uint8),
    "black": np.zeros((32, 32, 3), dtype=np.uint8),
    "small": _ramp(16, 16),
    "wide": _ramp(24, 60),
    "scan": _scan()[0],
}


@pytest.mark.parametrize("superpixels", [1, 20, 5000])
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("method", SEGMENTATIONS)
def test_every_segmentation_keeps_the_contract(method, image, superpixels):
    before = image.copy()

    segments, again = (segment_image(image, method, superpixels) for _ in range(2))

    assert (segments.shape, segments.dtype) == (image.shape[:2], np.int64)
    assert np.unique(segments).tolist() == list(range(segments.max() + 1))
    np.testing.assert_array_equal(segments, again)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("method", SEGMENTATIONS)
def test_every_segmentation_tells_different_squares_apart(method):
    segments = segment_image(IMAGES["coloured"], method, 16)

    middles = segments[16::32, 16::32]
    assert len(np.unique(middles)) == 16


def test_settings_offer_what_the_table_holds():
    offered = get_args(ExplainConfig.model_fields["segmentation"].annotation)

    assert set(offered) == set(SEGMENTATIONS)


@pytest.mark.parametrize("method", ["slic", "grid", "foreground"])
def test_wanted_number_is_aimed_at(method):
    few, many = (int(segment_image(_ramp(64, 64), method, n).max()) + 1 for n in (8, 60))

    assert 4 <= few <= 16
    assert 30 <= many <= 90


def test_quickshift_chooses_its_own_number():
    one, other = (segment_image(IMAGES["coloured"], "quickshift", n) for n in (2, 200))

    np.testing.assert_array_equal(one, other)


def test_felzenszwalb_leaves_no_crumbs():
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)

    few, many = (segment_image(noise, "felzenszwalb", n) for n in (10, 100))

    assert np.bincount(few.ravel()).min() >= 40 * 40 // (4 * 10)
    assert few.max() < many.max()


def test_unknown_segmentation_is_refused():
    with pytest.raises(InputError, match=r"expected one of quickshift, .*; received 'watershed'"):
        segment_image(IMAGES["small"], "watershed", 10)


def test_black_border_of_a_scan_is_one_superpixel_and_the_rest_is_split():
    image, disc = _scan()

    segments = segment_image(image, "foreground", 12)

    (border,) = np.unique(segments[~disc])
    inside = np.unique(segments[disc])
    assert border not in inside
    assert 6 <= len(inside) <= 24
    assert segments.max() == len(inside)
    # The same number is spent on the black as well without it.
    assert len(np.unique(segment_image(image, "slic", 12)[disc])) < len(inside)


def test_black_that_no_corner_touches_is_no_border():
    image, disc = _scan()
    middle = image.max(axis=2) == 0

    segments = segment_image(image, "foreground", 12)

    assert middle.any()
    assert not np.isin(segments[middle], segments[~disc]).any()


@pytest.mark.parametrize("rows", [slice(20), slice(-20, None)])
@pytest.mark.parametrize("columns", [slice(20), slice(-20, None)])
def test_border_at_one_corner_alone_is_found(rows, columns):
    image = _ramp(48, 48)
    image[rows, columns] = 10
    black = image.max(axis=2) == 10

    segments = segment_image(image, "foreground", 12)

    (border,) = np.unique(segments[black])
    np.testing.assert_array_equal(segments == border, black)


@pytest.mark.parametrize(("grey", "is_border"), [(24, True), (25, False)])
def test_border_is_black_up_to_grey_level_24(grey, is_border):
    image, disc = _scan()
    image[~disc] = grey

    alike = np.array_equal(segment_image(image, "foreground", 30), segment_image(image, "slic", 30))

    assert alike != is_border


@pytest.mark.parametrize("name", ["coloured", "constant", "black", "small", "wide"])
def test_without_a_border_foreground_is_slic(name):
    segments, expected = (segment_image(IMAGES[name], m, 20) for m in ("foreground", "slic"))

    np.testing.assert_array_equal(segments, expected)


def test_thin_dark_lines_are_no_border():
    image = _ramp(48, 48)
    image[:, :2] = 0
    image[-2:] = 0
    segments, expected = (segment_image(image, method, 20) for method in ("foreground", "slic"))

    np.testing.assert_array_equal(segments, expected)


def test_thin_dark_line_from_the_border_into_the_scan_belongs_to_the_scan():
    image, _ = _scan()
    image[32:34, :20] = 0

    segments = segment_image(image, "foreground", 12)

    assert segments[32, 0] == segments[0, 0]
    assert not (segments[32:34, 10:20] == segments[0, 0]).any()


@pytest.mark.parametrize(
    ("shape", "superpixels", "expected"),
    [
        ((4, 6), 6, [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2),
        ((3, 3), 1, [[0, 0, 0]] * 3),
        ((5, 5), 4, [[0, 0, 0, 1, 1]] * 3 + [[2, 2, 2, 3, 3]] * 2),
        ((2, 2), 50, [[0, 1], [2, 3]]),
        ((1, 4), 2, [[0, 0, 1, 1]]),
    ],
)
def test_grid_by_hand(shape, superpixels, expected):
    segments = segment_image(np.zeros((*shape, 3), dtype=np.uint8), "grid", superpixels)

    assert segments.tolist() == expected


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([[1, 2], [3, 3]], [[0, 1], [2, 2]]),
        ([[-5, 7], [7, 0]], [[0, 2], [2, 1]]),
        ([[100, 100], [3, 900]], [[1, 1], [0, 2]]),
        ([[8, 8], [8, 8]], [[0, 0], [0, 0]]),
    ],
)
@pytest.mark.parametrize("dtype", [np.int16, np.int64])
def test_given_superpixels_of_any_ids_are_renumbered_in_their_order(ids, expected, dtype):
    image = np.zeros((2, 2, 3), dtype=np.uint8)

    segments = superpixels_of(image, np.array(ids, dtype=dtype), "slic", 50)

    assert segments.dtype == np.int64
    assert segments.tolist() == expected


def test_unsigned_ids_are_taken_too():
    image = np.zeros((1, 3, 3), dtype=np.uint8)

    assert superpixels_of(image, np.uint8([[255, 0, 255]]), "slic", 50).tolist() == [[1, 0, 1]]


def test_without_given_superpixels_they_are_made():
    image = _ramp(32, 32)

    np.testing.assert_array_equal(
        superpixels_of(image, None, "grid", 16), segment_image(image, "grid", 16)
    )


@pytest.mark.parametrize(
    ("segments", "received"),
    [
        (np.zeros((16, 16)), r"received float64 \(16, 16\)"),
        (np.zeros((16, 16), dtype=bool), r"received bool \(16, 16\)"),
        (np.zeros((16, 8), dtype=int), r"received int64 \(16, 8\)"),
        (np.zeros((16, 16, 1), dtype=int), r"received int64 \(16, 16, 1\)"),
    ],
)
def test_other_superpixels_are_refused(segments, received):
    with pytest.raises(InputError, match=rf"expected integers \(16, 16\), one .*, {received}"):
        superpixels_of(IMAGES["small"], segments, "slic", 50)


def test_other_images_are_refused():
    with pytest.raises(InputError, match=r"expected uint8 \(batch, .*received float32"):
        superpixels_of(np.zeros((16, 16, 3), dtype=np.float32), None, "slic", 50)


def test_cavity_that_a_thin_line_joins_to_the_border_is_no_border():
    image = _ramp(64, 64)
    image[:6] = 0
    image[20:50, 20:50] = 0
    image[6:20, 32] = 0

    segments = segment_image(image, "foreground", 12)

    assert segments[0, 0] != segments[35, 35]


def test_scan_that_gets_one_superpixel_is_still_apart_from_its_border():
    image, disc = _scan()

    segments = segment_image(image, "foreground", 1)

    assert np.unique(segments).tolist() == [0, 1]
    assert len(np.unique(segments[disc])) == 1
