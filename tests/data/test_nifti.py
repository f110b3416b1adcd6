"""NIfTI volumes: which plane, which way up, and which grey."""

import gzip
import json
import sys
import tracemalloc
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from kerasmed.cli.main import main
from kerasmed.data.config import DataConfig, Formats, NiftiConfig, SplitConfig
from kerasmed.data.duplicates import find_duplicates
from kerasmed.data.groups import group_images
from kerasmed.data.image_set import read_images
from kerasmed.data.measuring import read_measurements
from kerasmed.data.nifti import count_values
from kerasmed.data.readers import Picture, read_image, read_pictures
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError, KerasmedError, MachineError

nibabel = pytest.importorskip("nibabel")

# Value 100 x + 10 y + z at x from left to right, y from back to front, z from low to high.
X, Y, Z = np.meshgrid(range(2), range(3), range(4), indexing="ij")
VOLUME = (100 * X + 10 * Y + Z).astype(np.int16)
AS_IT_IS = (0.0, 255.0)  # shows a value from 0 to 255 as itself
RAS = np.eye(4)


def save(volume: np.ndarray, path: Path, affine: np.ndarray = RAS, **header: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(volume, affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def pictures(path: Path, **settings: Any) -> list[Picture]:
    own = {name: settings.pop(name) for name in ("grey_range", "nan_value") if name in settings}
    return list(read_pictures(path, Formats(nifti=NiftiConfig(**settings), **own)))


def pixels_of(picture: Picture) -> list[list[int]]:
    pixels = np.asarray(picture.image)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


def shown(path: Path, **settings: Any) -> list[list[list[int]]]:
    """Rows of each slice, top first, each from the left of the page."""
    return [pixels_of(picture) for picture in pictures(path, **settings)]


def refusal(path: Path, error: type[KerasmedError] = DataError, **settings: Any) -> str:
    with pytest.raises(error) as caught:
        pictures(path, **settings)
    message = str(caught.value)
    assert message.startswith((f"Cannot read {path}: ", f"{path} is NIfTI: "))
    assert "\n" not in message
    assert any(
        word in message for word in ("replace", "remove", "correct", "install", "save", "set data.")
    )
    return message


# Planes, written out from the formula: the left side is on the left, and front or top is up.
AXIAL = [[[20 + z, 120 + z], [10 + z, 110 + z], [z, 100 + z]] for z in range(4)]
CORONAL = [
    [[3, 103], [2, 102], [1, 101], [0, 100]],
    [[13, 113], [12, 112], [11, 111], [10, 110]],
    [[23, 123], [22, 122], [21, 121], [20, 120]],
]
SAGITTAL = [
    [[3, 13, 23], [2, 12, 22], [1, 11, 21], [0, 10, 20]],  # x = 0, from back to front
    [[103, 113, 123], [102, 112, 122], [101, 111, 121], [100, 110, 120]],
]
PLANES = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL}


def turned(degrees: float) -> np.ndarray:
    """An affine turned about the vertical axis."""
    angle = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return affine


# The same head stored in other directions: the columns of an affine are where its axes point.
STORED = {
    "RAS": (VOLUME, RAS),
    "LPS": (VOLUME[::-1, ::-1], np.diag([-1.0, -1.0, 1.0, 1.0])),
    "LAS, 2 mm": (VOLUME[::-1], np.diag([-2.0, 2.0, 2.0, 1.0])),
    "RAI": (VOLUME[:, :, ::-1], np.diag([1.0, 1.0, -1.0, 1.0])),
    "SRA": (VOLUME.transpose(2, 0, 1), np.eye(4)[:, [2, 0, 1, 3]]),
    "oblique": (VOLUME, turned(20)),
}


@pytest.mark.parametrize("axis", PLANES)
@pytest.mark.parametrize("stored", STORED)
def test_planes(tmp_path, axis, stored):
    path = save(*STORED[stored][:1], tmp_path / "a.nii", STORED[stored][1])

    assert shown(path, axis=axis, grey_range=AS_IT_IS) == PLANES[axis]


def test_axial_is_what_is_taken_by_default(tmp_path):
    assert shown(save(VOLUME, tmp_path / "a.nii"), grey_range=AS_IT_IS) == AXIAL


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII", "a.NII.GZ", "1.2.nii.gz"])
def test_suffixes(tmp_path, name):
    path = save(VOLUME, tmp_path / name)

    assert shown(path, grey_range=AS_IT_IS) == AXIAL
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.lower().endswith(".gz")


def test_slices_are_numbered_along_the_axis(tmp_path):
    path = save(VOLUME[:, :, ::-1], tmp_path / "a.nii", np.diag([1.0, 1.0, -1.0, 1.0]))

    slices = pictures(path)

    assert [picture.frame for picture in slices] == [0, 1, 2, 3]
    assert {picture.kind for picture in slices} == {"NIfTI"}
    assert {picture.patient for picture in slices} == {None}


@pytest.mark.parametrize(
    ("slices", "frames"),
    [
        ((0.0, 1.0), [0, 1, 2, 3]),
        ((0.25, 0.75), [1, 2]),
        ((0.0, 0.5), [0, 1]),
        ((0.3, 0.7), [1, 2]),  # 1.2 to 2.8: whatever part of a slice lies within
        ((0.0, 0.01), [0]),
        ((0.99, 1.0), [3]),
        ((0.5, 0.51), [2]),
    ],
)
def test_slices_are_a_fraction_of_the_volume(tmp_path, slices, frames):
    shown_slices = pictures(save(VOLUME, tmp_path / "a.nii"), slices=slices, grey_range=AS_IT_IS)

    assert [picture.frame for picture in shown_slices] == frames
    assert [pixels_of(picture) for picture in shown_slices] == [AXIAL[frame] for frame in frames]


@pytest.mark.parametrize(("fraction", "count"), [(0.28, 25), (0.07, 100)])
def test_fractions_that_are_whole_slices(tmp_path, fraction, count):
    path = save(np.zeros((2, 2, count), dtype=np.int16), tmp_path / "a.nii")

    assert len(pictures(path, slices=(0, fraction))) == 7


# Grey


def test_range_is_black_at_its_low_and_white_at_its_high_end(tmp_path):
    # (v - 100) / 200 * 255: 25.5 at 120 is avoided; 63.75 at 150, 191.25 at 250.
    volume = np.array([0, 100, 150, 250, 300, 1000], dtype=np.int16).reshape(6, 1, 1)

    [rows] = shown(save(volume, tmp_path / "a.nii"), grey_range=(100, 300))

    assert rows == [[0, 0, 64, 191, 255, 255]]


@pytest.mark.parametrize("range_of", ["set", "volume"])
def test_a_volume_alone_is_shown_from_its_0_1st_to_its_99_9th_percentile(tmp_path, range_of):
    # Of 0 to 2000 these are the values at 0.001 * 2000 = 2 and 0.999 * 2000 = 1998, so that the
    # grey is (v - 2) / 1996 * 255: 1000 is half way.
    path = save(np.arange(2001, dtype=np.float32).reshape(2001, 1, 1), tmp_path / "a.nii")

    [picture] = pictures(path, range=range_of)

    [row] = pixels_of(picture)
    assert [row[v] for v in (0, 2, 10, 1990, 1998, 2000)] == [0, 0, 1, 254, 255, 255]
    assert picture.needs_range == (range_of == "set")


def test_range_of_the_volume_goes_before_that_of_the_set(tmp_path):
    path = save(np.linspace(0, 1, 16).reshape(4, 4, 1), tmp_path / "a.nii")

    assert pictures(path, range="volume", grey_range=(0, 1000))[0].image.getextrema()[0][1] == 255
    assert pictures(path, grey_range=(0, 1000))[0].image.getextrema()[0][1] == 0


def test_percentiles_are_of_the_volume_and_not_of_the_slice(tmp_path):
    # Each sagittal slice has one value; (v - 2) / 1996 * 255 as above.
    volume = np.arange(2001, dtype=np.float32)[:, None, None].repeat(2, axis=1)
    path = save(volume.repeat(2, axis=2), tmp_path / "a.nii")

    slices = shown(path, axis="sagittal")

    assert [slices[v][0][0] for v in (0, 667, 1333, 2000)] == [0, 85, 170, 255]


def test_slices_left_out_do_not_change_the_grey(tmp_path):
    path = save(VOLUME, tmp_path / "a.nii")

    assert shown(path, slices=(0.5, 1)) == shown(path)[2:]


def test_slope_and_intercept_of_the_header(tmp_path):
    # NIfTI-1: the floats at bytes 112 and 116 are scl_slope and scl_inter; 2 * stored + 10.
    path = save(np.array([0, 45, 100, 120], dtype=np.int16).reshape(4, 1, 1), tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([2, 10], dtype="<f4").tobytes()
    path.write_bytes(content)

    assert shown(path, grey_range=AS_IT_IS) == [[[10, 100, 210, 250]]]


@pytest.mark.parametrize("value", [0, 7, -3.5])
def test_constant_volume_is_black(tmp_path, value):
    path = save(np.full((2, 2, 1), value, dtype=np.float32), tmp_path / "a.nii")

    assert shown(path) == [[[0, 0], [0, 0]]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64, ">i2"])
def test_every_type_of_number(tmp_path, dtype):
    assert shown(save(VOLUME.astype(dtype), tmp_path / "a.nii"), grey_range=AS_IT_IS) == AXIAL


# Refusals


@pytest.mark.parametrize(
    ("value", "nan_value", "grey"),
    [(np.nan, None, 0), (np.nan, 200, 200), (np.inf, None, 255), (-np.inf, None, 0)],
)
def test_values_that_are_no_numbers_spoil_no_others(tmp_path, value, nan_value, grey):
    volume = VOLUME.astype(np.float32)
    volume[0, 0, 0] = value  # at the lower left of the lowest slice

    [lowest, *_] = pictures(
        save(volume, tmp_path / "a.nii"), grey_range=AS_IT_IS, nan_value=nan_value
    )

    assert pixels_of(lowest) == [*AXIAL[0][:2], [grey, 100]]
    assert bool(lowest.notes) == (np.isnan(value) and nan_value is None)


def test_missing_values_do_not_count_for_the_range(tmp_path):
    volume = np.full((64, 64, 1), np.nan, np.float32)
    volume[:, 0, 0] = np.linspace(100, 200, 64)

    [picture] = pictures(save(volume, tmp_path / "a.nii"))

    assert picture.needs_range
    assert len(np.unique(picture.image)) == 64  # black for the missing ones too


def test_values_beyond_float32_are_white(tmp_path):
    path = save(np.array([[[0, 1e300]]]), tmp_path / "a.nii")

    assert shown(path, axis="sagittal", grey_range=AS_IT_IS) == [[[255], [0]]]


def test_four_dimensions_are_refused(tmp_path):
    path = save(np.zeros((2, 2, 2, 3), dtype=np.int16), tmp_path / "a.nii")

    message = refusal(path)

    assert "received 3 of (2, 2, 2); set data.nifti.frames: split" in message


@pytest.mark.parametrize("axis", PLANES)
def test_volumes_of_a_fourth_dimension_are_numbered_one_after_the_other(tmp_path, axis):
    path = save(np.stack([VOLUME, VOLUME + 1], axis=3), tmp_path / "a.nii")

    frames = pictures(path, axis=axis, frames="split", grey_range=AS_IT_IS)

    assert [picture.frame for picture in frames] == list(range(2 * len(PLANES[axis])))
    second = (np.array(PLANES[axis]) + 1).tolist()
    assert [pixels_of(picture) for picture in frames] == PLANES[axis] + second


def test_each_of_several_volumes_may_have_a_range_of_its_own(tmp_path):
    path = save(np.stack([VOLUME, 100 * VOLUME], axis=3), tmp_path / "a.nii")

    slices = shown(path, frames="split", range="volume")

    assert slices[:4] == slices[4:]


@pytest.mark.parametrize("more", [(1,), (1, 1)])
def test_further_dimensions_of_one_are_accepted(tmp_path, more):
    path = save(VOLUME.reshape(*VOLUME.shape, *more), tmp_path / "a.nii")

    assert shown(path, grey_range=AS_IT_IS) == AXIAL


@pytest.mark.parametrize("axis", PLANES)
def test_a_picture_of_two_dimensions_is_one_slice(tmp_path, axis):
    path = save(VOLUME[:, :, 0], tmp_path / "a.nii")

    assert shown(path, axis=axis, grey_range=AS_IT_IS) == AXIAL[:1]


def test_one_dimension_is_refused(tmp_path):
    assert "received (4,) of int16" in refusal(save(VOLUME[0, 0], tmp_path / "a.nii"))


# Headers


def header_of(path: Path, **fields: Any) -> Path:
    """The file with values in its header that nibabel would not write."""
    content = bytearray(path.read_bytes())
    for name, value in fields.items():
        dtype, offset = nibabel.Nifti1Header.template_dtype.fields[name]
        content[offset : offset + dtype.itemsize] = np.array(value).astype(dtype.base).tobytes()
    path.write_bytes(content)
    return path


ZERO = {name: np.zeros(4) for name in ("srow_x", "srow_y", "srow_z")}
TURNED_Q = {"quatern_b": 0, "quatern_c": 0, "quatern_d": 1, "qoffset_x": 0}  # by 180 degrees


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"sform_code": 1, "qform_code": 1, **ZERO, **TURNED_Q}, "sform"),
        ({"sform_code": 1, "qform_code": 1, **TURNED_Q, "srow_x": [np.nan] * 4}, "sform"),
        ({"sform_code": 0, "qform_code": 1, **TURNED_Q}, None),
    ],
)
def test_the_first_orientation_that_is_one_is_taken(tmp_path, fields, note):
    path = save(VOLUME[::-1, ::-1], tmp_path / "a.nii")

    slices = pictures(header_of(path, **fields), grey_range=AS_IT_IS)

    assert [pixels_of(picture) for picture in slices] == AXIAL
    assert [note in line for line in slices[0].notes] == ([True] if note else [])


@pytest.mark.parametrize("offset", [2.0**29, 3e38])
def test_values_that_begin_far_away_are_refused(tmp_path, offset):
    path = header_of(save(VOLUME, tmp_path / "a.nii"), vox_offset=offset)
    assert "within 268,435,456 bytes, received the vox_offset" in refusal(path)


def test_extensions_of_the_header_are_not_read(tmp_path):
    size = 2**24
    plain = save(VOLUME, tmp_path / "a.nii").read_bytes()
    extension = np.array([size, 6], "<i4").tobytes() + bytes(size - 8)
    header = bytearray(plain[:348])
    header[108:112] = np.float32(352 + size).tobytes()  # vox_offset
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(header + b"\1\0\0\0" + extension + plain[352:], 1))
    tracemalloc.start()
    try:
        assert count_values(path) == VOLUME.size
        slices = shown(path, grey_range=AS_IT_IS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert slices == AXIAL
    assert peak < size / 4


def test_without_any_orientation_the_axes_are_as_they_are_stored(tmp_path):
    fields = {"sform_code": 1, "qform_code": 1, **ZERO, "quatern_b": 9, "pixdim": [0] * 8}
    # nibabel's base affine has the first axis run to the left.
    path = header_of(save(VOLUME, tmp_path / "a.nii"), **fields)

    assert len(shown(path, grey_range=AS_IT_IS)) == 4


@pytest.mark.parametrize(
    "fields",
    [
        {"vox_offset": 0},
        {"vox_offset": np.nan},
        {"magic": b"ni1"},
        {"bitpix": 7},
        {"pixdim": [3, -1, -1, -1, 0, 0, 0, 0]},
        {"qform_code": 99, "sform_code": -3},
        {"xyzt_units": 255},
        {"intent_code": 12345},
    ],
)
def test_headers_are_not_refused_for_what_the_values_do_not_need(tmp_path, fields, capfd):
    path = header_of(save(VOLUME, tmp_path / "a.nii"), **fields)

    slices = shown(path, grey_range=AS_IT_IS)

    assert sorted(np.ravel(slices)) == sorted(np.ravel(AXIAL))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("slope", "intercept", "factor", "offset"),
    [(2, np.nan, 2, 0), (0, 7, 1, 0), (np.nan, 7, 1, 0), (np.inf, 7, 1, 0), (0.5, 8, 0.5, 8)],
)
def test_half_of_a_rescaling(tmp_path, slope, intercept, factor, offset):
    # nifti1.h: a slope of 0 means that there is no rescaling.
    values = np.array([0, 40, 100], dtype=np.int16)
    path = save(values.reshape(3, 1, 1), tmp_path / "a.nii")

    [[row]] = shown(
        header_of(path, scl_slope=slope, scl_inter=intercept), grey_range=AS_IT_IS, axis="axial"
    )

    assert row == (values * factor + offset).tolist()


@pytest.mark.parametrize(("written", "named"), [("a.nii.gz", "b.nii"), ("a.nii", "b.nii.gz")])
def test_name_does_not_decide_whether_a_file_is_packed(tmp_path, written, named):
    path = save(VOLUME, tmp_path / written).rename(tmp_path / named)

    assert shown(path, grey_range=AS_IT_IS) == AXIAL


def test_second_version_of_the_format(tmp_path):
    nibabel.save(nibabel.Nifti2Image(VOLUME, RAS), tmp_path / "a.nii")

    assert shown(tmp_path / "a.nii", grey_range=AS_IT_IS) == AXIAL


def test_volume_of_one_slice_is_one_image(tmp_path):
    path = save(VOLUME[:, :, :1], tmp_path / "a.nii")

    assert shown(path, grey_range=AS_IT_IS) == AXIAL[:1]
    assert read_image(path, 16, {"grey_range": AS_IT_IS}).shape == (16, 16, 3)


def test_volume_where_one_image_is_wanted_is_refused(tmp_path):
    path = save(VOLUME, tmp_path / "a.nii")

    with pytest.raises(DataError, match="holds several images: expected one") as caught:
        read_image(path, 16, {"grey_range": AS_IT_IS})

    assert str(path) in str(caught.value)


def test_volume_without_slices_is_refused(tmp_path):
    refusal(save(np.zeros((2, 2, 0), dtype=np.int16), tmp_path / "a.nii"))


def test_colour_is_refused(tmp_path):
    rgb = np.zeros((2, 2, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])

    assert "expected a grey volume" in refusal(save(rgb, tmp_path / "a.nii"))


def test_complex_numbers_are_refused(tmp_path):
    message = refusal(save(VOLUME.astype(np.complex64), tmp_path / "a.nii"))

    assert "complex64" in message


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.9])
def test_truncated_volume_is_refused(tmp_path, name, kept):
    noise = np.random.default_rng(0).integers(0, 4096, (8, 8, 8), dtype=np.int16)
    path = save(noise, tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])

    refusal(path)


TEXT = b"path,label\n1,2\n" * 40


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nii", TEXT),
        ("a.nii.gz", TEXT),
        ("a.nii.gz", gzip.compress(TEXT, mtime=0)),
        ("a.nii", b"\x89PNG\r\n\x1a\n"),
    ],
)
def test_what_is_not_nifti_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)

    refusal(tmp_path / name)


def test_missing_file_is_refused(tmp_path):
    refusal(tmp_path / "none.nii.gz")


def test_missing_nibabel_is_named(tmp_path, monkeypatch):
    path = save(VOLUME, tmp_path / "a.nii")
    monkeypatch.setitem(sys.modules, "nibabel", None)

    message = refusal(path, MachineError)

    assert ".nii files need the package nibabel; run pip install 'kerasmed[medical]'" in message


# Volumes as a set


def noise(seed: int, slices: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 4096, (8, 8, slices), dtype=np.int16)


def groups_of(folder: Path, cache: Path) -> dict[str, str]:
    """The group of each slice, by its name below the folder."""
    data = DataConfig(source=folder, image_size=16, grey_range=(0, 4096))
    images = read_images(data, cache / "images")
    measurements = read_measurements(data, cache / "prints")
    # Only equal pixels: noise has near-duplicates by chance.
    pairs = find_duplicates(measurements, None).pairs
    groups = group_images(images.files, pairs, SplitConfig(near_duplicate_bits=None), folder)
    names = [file.name.removeprefix(f"{folder}/") for file in images.files]
    return dict(zip(names, groups, strict=True))


def test_slices_of_a_volume_are_one_group(tmp_path):
    save(noise(0), tmp_path / "set" / "x" / "a.nii.gz")
    save(noise(1), tmp_path / "set" / "y" / "b.nii.gz")
    save(noise(2), tmp_path / "set" / "y" / "c.nii")

    groups = groups_of(tmp_path / "set", tmp_path)

    assert groups["x/a.nii.gz#0"] == groups["x/a.nii.gz#1"]
    assert groups["y/c.nii#0"] == groups["y/c.nii#1"]
    assert len(groups) == 6
    assert len(set(groups.values())) == 3


def test_volumes_with_an_equal_slice_are_one_group(tmp_path):
    same = noise(0, 1)
    for path, seed in (("x/a.nii", 1), ("y/b.nii", 2), ("y/c.nii", 3)):
        own = noise(seed, 1) if path == "y/c.nii" else same
        volume = np.concatenate([noise(seed, 1), own], axis=2)
        save(volume, tmp_path / "set" / path)
    data = DataConfig(source=tmp_path / "set", grey_range=(0, 8000))
    images = read_images(data, tmp_path / "images")
    measurements = read_measurements(data, tmp_path / "prints")

    pairs = find_duplicates(measurements, None).pairs
    groups = group_images(images.files, pairs, SplitConfig(), tmp_path / "set")

    assert len({file.sha256 for file in images.files}) == 6
    assert groups[:2] == [groups[0]] * 2 == groups[2:4]
    assert groups[4] == groups[5] != groups[0]


def test_a_copy_of_a_volume_is_in_its_group(tmp_path):
    save(noise(0), tmp_path / "set" / "x" / "a.nii")
    save(noise(0), tmp_path / "set" / "y" / "b.nii")
    save(noise(1), tmp_path / "set" / "y" / "c.nii")

    groups = groups_of(tmp_path / "set", tmp_path)

    assert len({groups[name] for name in groups if "c.nii" not in name}) == 1
    assert len(set(groups.values())) == 2


def test_blank_slices_are_no_copies(tmp_path):
    # belong together, so that the whole set is one group, which no setting but slices loosens.
    for seed, path in enumerate(("x/a.nii", "y/b.nii")):
        save(np.pad(noise(seed), ((0, 0), (0, 0), (1, 0))), tmp_path / "set" / path)

    groups = groups_of(tmp_path / "set", tmp_path)

    assert groups["x/a.nii#1"] != groups["y/b.nii#1"]


def test_no_volume_crosses_roles(tmp_path, capfd):
    for seed in range(12):
        path = tmp_path / "set" / ("sick", "well")[seed % 2] / f"{seed}.nii.gz"
        save(noise(seed, 3), path, descrip=b"SECRET", db_name=b"SECRET", aux_file=b"SECRET")
    config = tmp_path / "x.yaml"
    values = {
        "name": "x",
        "data": {"source": "x", "image_size": 32, "nifti": {"slices": [0.4, 1]}},
        "split": {"train": 0.4, "test": 0.2, "near_duplicate_bits": None},
    }
    config.write_text(yaml.safe_dump(values))
    run = tmp_path / "run"

    arguments = ["data", "split", str(config), "--data", str(tmp_path / "set"), "--out", str(run)]
    assert main(arguments) == 0

    roles, frames = defaultdict(set), defaultdict(list)
    for file in json.loads((run / "split.json").read_text())["files"]:
        roles[file["path"]].add(file["role"])
        frames[file["path"]].append(file["frame"])
    assert len(roles) == 12
    assert {len(volume_roles) for volume_roles in roles.values()} == {1}
    assert all(numbers == [1, 2] for numbers in frames.values())
    written = [path for path in run.rglob("*") if path.is_file()]
    assert not any(b"SECRET" in path.read_bytes() for path in written)
    assert "SECRET" not in "".join(capfd.readouterr())


def test_volume_outside_the_class_folders_is_refused(tmp_path):
    for path in ("x/a.nii.gz", "y/b.nii.gz"):
        save(VOLUME, tmp_path / path)
    stray = save(VOLUME, tmp_path / "c.nii.gz")

    with pytest.raises(DataError, match="outside the class folders") as caught:
        open_source(DataConfig(source=tmp_path))

    assert str(stray) in str(caught.value)
