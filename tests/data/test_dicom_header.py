"""DICOM headers that lack elements, or contradict their pixels."""

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from dicom_files import (
    COLOUR,
    IDENTITY,
    compressed,
    dataset_of,
    pictures,
    row_of,
    shown_row,
    write_dicom,
)
from PIL import Image
from pydicom import uid


@pytest.fixture
def shown(tmp_path):
    """The first row that a file with the given row and header is shown as."""
    return partial(shown_row, tmp_path / "a")


def test_bits_above_those_stored_are_not_looked_at(tmp_path):
    # Old files keep overlays there (PS3.5 8.1.2, retired), and say where.
    dataset = dataset_of([[0x8000, 0x1800, 0x0FFF]])
    dataset.add_new((0x6000, 0x0102), "US", 12)

    assert row_of(pictures(write_dicom(dataset, tmp_path / "a.dcm"))[0]) == [0, 128, 255]


def test_values_above_the_bits_stored_are_shown_where_no_overlay_lies_there(tmp_path):
    dataset = dataset_of(np.array([[0, 4000, 8000, 16000]], np.uint16), bits=12)

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"), grey_range=(0, 16000))

    assert row_of(picture) == [0, 64, 128, 255]
    assert "more bits than BitsStored" in picture.notes[0]


def test_a_missing_sign_is_seen_in_the_pixels(tmp_path):
    dataset = dataset_of(np.array([[-1024, -3, 40, 900]], np.int16), bits=16, signed=True)
    del dataset.PixelRepresentation

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

    assert picture.values.tolist() == [[-1024, -3, 40, 900]]


def test_values_in_the_upper_bits_are_shifted_down(shown):
    # Left-aligned: 12 bits stored in bits 4 to 15.
    row = np.array([0, 819, 2457, 4095], np.uint16) << 4
    assert shown(row, HighBit=15) == [0, 51, 153, 255]
    # (x + 2048) / 4095 * 255, signed.
    row = np.array([-2048, -1229, 409, 2047], np.int16) << 4
    assert shown(row, HighBit=15, signed=True) == [0, 51, 153, 255]


MISSING = [
    *("BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "BitsAllocated"),
    *("PhotometricInterpretation",),
]


@pytest.mark.parametrize("empty", [False, True], ids=["missing", "empty"])
@pytest.mark.parametrize("name", MISSING)
def test_grey_image_without_an_element_that_its_pixels_give(tmp_path, name, empty):
    dataset = dataset_of(np.array([[0, 64, 255, 4000]], np.uint16), bits=16, **IDENTITY)
    dataset.add_new("PixelData", "OW", dataset.PixelData)  # which pydicom needs no bits for
    if empty:
        setattr(dataset, name, None)
    else:
        delattr(dataset, name)

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 64, 255, 255]
    assert [name in note for note in picture.notes] == ([] if name == "HighBit" else [True])


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize(
    "names",
    [
        *(["PlanarConfiguration"], ["SamplesPerPixel"], ["BitsStored"]),
        ["SamplesPerPixel", "PhotometricInterpretation"],
        ["SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"],
    ],
    ids="+".join,
)
def test_colour_image_without_elements_that_its_pixels_give(tmp_path, names, planar):
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
    pixels = np.stack([ramp, ramp + 100, 255 - ramp], axis=2)
    dataset = dataset_of(pixels, bits=8, **COLOUR)
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = planar
    dataset.PixelData = (np.moveaxis(pixels, 2, 0) if planar else pixels).tobytes()
    for name in names:
        delattr(dataset, name)

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

    np.testing.assert_array_equal(np.asarray(picture.image), pixels)


@pytest.mark.parametrize("planar", [0, 1])
def test_grey_in_three_colours_without_planar_configuration(tmp_path, planar):
    grey = np.random.default_rng(0).integers(0, 40, (16, 16)).cumsum(axis=0).astype(np.uint8)
    pixels = grey[..., None].repeat(3, axis=2)
    dataset = dataset_of(pixels, bits=8, **COLOUR)
    dataset.PhotometricInterpretation = "RGB"
    dataset.PixelData = (np.moveaxis(pixels, 2, 0) if planar else pixels).tobytes()
    del dataset.PlanarConfiguration

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

    np.testing.assert_array_equal(np.asarray(picture.image), pixels)


@pytest.mark.parametrize("high", [12, 13, 15])
def test_values_in_the_lowest_bits_are_not_shifted_whatever_highbit_says(tmp_path, high):
    dataset = dataset_of([[0, 819, 2457, 4095]], HighBit=high)

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

    assert picture.values.tolist() == [[0, 819, 2457, 4095]]


def test_bright_text_on_a_dark_picture_is_no_sign(tmp_path):
    dataset = dataset_of(np.array([[0, 60, 255, 3]], np.uint8), bits=8)
    del dataset.PixelRepresentation

    assert row_of(pictures(write_dicom(dataset, tmp_path / "a.dcm"))[0]) == [0, 60, 255, 3]


@pytest.mark.parametrize("name", [" monochrome1", "Monochrome1 "])
def test_photometric_interpretation_in_any_letters(shown, name):
    assert shown([0, 4095], PhotometricInterpretation=name) == [255, 0]


SYNTAXES = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.JPEGBaseline8Bit,
    uid.JPEG2000Lossless,
]


def without_header(path: Path, keep_meta: bool) -> Path:
    """The file without its preamble, and without its meta header too."""
    content = path.read_bytes()[132:]
    length = int.from_bytes(content[8:12], "little")
    path.write_bytes(content if keep_meta else content[12 + length :])
    return path


@pytest.mark.parametrize("keep_meta", [True, False], ids=["no preamble", "no meta header"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("name", ["a.dcm", "1.2.840.7", "IM1"])
def test_files_without_preamble_are_read(tmp_path, syntax, keep_meta, name):
    pixels = np.full((16, 16), 100, np.uint8)
    dataset = dataset_of(pixels, bits=8)
    if syntax.is_compressed:
        stream = io.BytesIO()
        kind = "JPEG" if syntax == uid.JPEGBaseline8Bit else "JPEG2000"
        options = {} if kind == "JPEG" else {"no_jp2": True, "irreversible": False}
        Image.fromarray(pixels).save(stream, kind, **options)
        dataset = compressed(dataset, syntax, stream.getvalue())
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    path = without_header(write_dicom(dataset, tmp_path / name), keep_meta)

    [picture] = pictures(path)

    assert np.abs(np.asarray(picture.image).astype(int) - 100).max() <= 1
