"""DICOM files as pictures: colour, compression, file names and files without an image."""

import io
import json
import sys
from functools import partial
from typing import Any

import numpy as np
import onnx
import pytest
from dicom_files import (
    COLOUR,
    FRAMES,
    IDENTITY,
    compressed,
    dataset_of,
    pictures,
    refusal,
    row_of,
    shown_row,
    write_dicom,
)
from PIL import Image
from pydicom import uid
from pydicom.pixels import get_decoder

from kerasmed.data.config import DataConfig, DicomConfig
from kerasmed.data.image_set import read_images
from kerasmed.data.measuring import read_measurements
from kerasmed.data.readers import read_image
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError, MachineError
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.predict import predict_files


def palette(entries: bytes, count: int, bits: int, first: int = 0) -> dict[str, Any]:
    """A colour lookup table, the same for red, green and blue."""
    header: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        header[f"{colour}PaletteColorLookupTableDescriptor"] = [count, first, bits]
        header[f"{colour}PaletteColorLookupTableData"] = entries
    return header


@pytest.fixture
def shown(tmp_path):
    """The first row that a file with the given row and header is shown as."""
    return partial(shown_row, tmp_path / "a")


def test_single_bits_are_black_and_white(tmp_path):
    # 0b01010101, least bit first (PS3.5 8.1.1).
    header = {"BitsAllocated": 1, "Columns": 8, "bits": 1}
    path = write_dicom(dataset_of(np.array([[0x55]], dtype=np.uint8), **header), tmp_path / "a.dcm")

    [picture] = pictures(path)

    assert row_of(picture) == [255, 0] * 4


def test_bits_that_nobody_decodes_are_named(tmp_path):
    dataset = dataset_of([[1, 2, 3, 4]], BitsAllocated=12)
    dataset.add_new("PixelData", "OW", bytes(6))

    assert "64 allocated bits per value, received 12" in refusal(
        write_dicom(dataset, tmp_path / "a.dcm")
    )


@pytest.mark.parametrize("name", ["Rows", "Columns"])
def test_image_without_its_size_is_refused(tmp_path, name):
    dataset = dataset_of([[1, 2]])
    delattr(dataset, name)

    assert "expected the numbers of rows and columns" in refusal(
        write_dicom(dataset, tmp_path / "a.dcm")
    )


def test_palette_of_fewer_bits_than_its_descriptor_states(shown):
    header = palette(np.array([0, 51, 255], "<u2").tobytes(), 3, 16)

    assert shown(np.array([0, 1, 2], dtype=np.uint8), bits=8, **header) == [0, 51, 255]


def test_segmentation_is_a_mask(tmp_path):
    dataset = dataset_of([[0, 1]])
    assert not pictures(write_dicom(dataset, tmp_path / "a.dcm"))[0].is_mask
    dataset.SOPClassUID = uid.SegmentationStorage

    assert pictures(write_dicom(dataset, tmp_path / "b.dcm"))[0].is_mask


def test_rgb(tmp_path):
    pixels = np.array([[[255, 0, 9], [1, 2, 3]]], dtype=np.uint8)
    path = write_dicom(
        dataset_of(pixels, bits=8, PhotometricInterpretation="RGB", **COLOUR), tmp_path / "a.dcm"
    )

    [picture] = pictures(path, window=(1, 1))

    np.testing.assert_array_equal(picture.image, pixels)
    assert picture.kind == "DICOM RGB 8 bits"


def test_rgb_by_planes(tmp_path):
    header = {**COLOUR, "PlanarConfiguration": 1, "PhotometricInterpretation": "RGB"}
    dataset = dataset_of(np.zeros((1, 2, 3), dtype=np.uint8), bits=8, **header)
    dataset.PixelData = bytes([255, 1, 0, 2, 9, 3])

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

    np.testing.assert_array_equal(picture.image, [[[255, 0, 9], [1, 2, 3]]])


def test_ybr_full(tmp_path):
    # PS3.3 C.7.6.3.1.2 for (76, 85, 255): R = 76 + 1.402 * 127 = 254.05,
    # G = 76 - 0.3441 * -43 - 0.7141 * 127 = 0.10, B = 76 + 1.772 * -43 = -0.2.
    pixels = np.array([[[76, 85, 255], [30, 128, 128]]], dtype=np.uint8)
    header = {**COLOUR, "PhotometricInterpretation": "YBR_FULL"}

    [picture] = pictures(write_dicom(dataset_of(pixels, bits=8, **header), tmp_path / "a.dcm"))

    np.testing.assert_array_equal(picture.image, [[[254, 0, 0], [30, 30, 30]]])


@pytest.mark.parametrize("interpretation", ["HSV", "YBR_PARTIAL_420"])
def test_other_colours_are_refused(tmp_path, interpretation):
    pixels = np.full((2, 2, 3), 9, dtype=np.uint8)
    header = {**COLOUR, "PhotometricInterpretation": interpretation}

    refusal(write_dicom(dataset_of(pixels, bits=8, **header), tmp_path / "a.dcm"))


def test_colour_of_16_bits_is_shown_in_the_range(tmp_path):
    pixels = np.array([[[0, 100, 200], [400, 500, 1020]]], dtype=np.uint16)
    header = {**COLOUR, "PhotometricInterpretation": "RGB"}
    path = write_dicom(dataset_of(pixels, bits=16, **header), tmp_path / "a.dcm")

    [picture] = pictures(path, grey_range=(0, 1020))

    assert np.asarray(picture.image).tolist() == [[[0, 25, 50], [100, 125, 255]]]
    assert pictures(path)[0].needs_range


def test_palettes(shown):
    row = np.array([0, 5, 6, 7, 200], dtype=np.uint8)
    eight = palette(bytes([10, 20, 200, 250]), 4, 8, first=4)
    words = np.array([10 * 257, 20 * 257, 200 * 257, 250 * 257], dtype="<u2")
    sixteen = palette(words.tobytes(), 4, 16, first=4)

    assert shown(row, bits=8, **eight) == [10, 20, 200, 250, 250]
    assert shown(row, bits=8, **sixteen) == [10, 20, 200, 250, 250]


def test_palette_of_three_different_channels(tmp_path):
    header = palette(bytes([10, 20]), 2, 8)
    header["BluePaletteColorLookupTableData"] = bytes([255, 0])
    path = write_dicom(
        dataset_of(np.array([[0, 1]], dtype=np.uint8), bits=8, **header), tmp_path / "a.dcm"
    )

    [picture] = pictures(path)

    np.testing.assert_array_equal(picture.image, [[[10, 10, 255], [20, 20, 0]]])


def test_palette_of_8_bits_in_words(shown):
    header = palette(np.array([10, 200], dtype="<u2").tobytes(), 2, 8)

    assert shown(np.array([0, 1], dtype=np.uint8), bits=8, **header) == [10, 200]


@pytest.mark.parametrize("count", [3, 299])
def test_palette_of_8_bits_of_other_lengths(shown, count):
    # pydicom 3.0.2 keeps the position in the palette as uint8, as wide as the entries are.
    entries = bytes([10, *[20] * (count - 2), 200])
    row = np.array([0, 1, count - 2, count - 1, 999], dtype=np.uint16)

    assert shown(row, bits=16, **palette(entries, count, 8)) == [10, 20, 20, 200, 200]


def test_segmented_palette(shown):
    header = palette(b"", 2, 16)
    for colour in ("Red", "Green", "Blue"):
        del header[f"{colour}PaletteColorLookupTableData"]
        segments = np.array([0, 2, 10 * 257, 200 * 257], dtype="<u2").tobytes()
        header[f"Segmented{colour}PaletteColorLookupTableData"] = segments

    assert shown(np.array([0, 1], dtype=np.uint8), bits=8, **header) == [10, 200]


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
    ],
    ids=lambda syntax: syntax.name,
)
def test_every_plain_syntax_shows_the_same(tmp_path, syntax):
    dtype = ">u2" if syntax == uid.ExplicitVRBigEndian else "<u2"
    dataset = dataset_of(np.array([[0, 64, 255, 300]], dtype=dtype), **IDENTITY)
    dataset.file_meta.TransferSyntaxUID = syntax

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 64, 255, 255]


def test_rle_is_read(tmp_path):
    dataset = dataset_of(FRAMES, NumberOfFrames=3, **IDENTITY)
    dataset.compress(uid.RLELossless)

    frames = pictures(write_dicom(dataset, tmp_path / "a.dcm"), frames="split")

    assert [row_of(picture) for picture in frames] == FRAMES[:, 0].tolist()


def test_jpeg_in_colour_is_read(tmp_path):
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 255
    packed = io.BytesIO()
    Image.fromarray(red).save(packed, "JPEG", quality=95)
    dataset = dataset_of(red, bits=8, PhotometricInterpretation="YBR_FULL_422", **COLOUR)

    [picture] = pictures(
        write_dicom(
            compressed(dataset, uid.JPEGBaseline8Bit, packed.getvalue()), tmp_path / "a.dcm"
        )
    )

    np.testing.assert_allclose(np.asarray(picture.image, dtype=int), red, atol=2)


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.MPEG2MPML])
def test_compression_that_nobody_decodes_is_named(tmp_path, syntax, monkeypatch):
    if syntax == uid.JPEGLSLossless:
        # As on a machine without any of the libraries, whatever this one has.
        decoder = get_decoder(syntax)
        monkeypatch.setattr(decoder, "_available", {})
    path = write_dicom(
        compressed(dataset_of([[1, 2]]), syntax, b"\xff\xd8\xff\xd9"), tmp_path / "a.dcm"
    )

    message = refusal(path)

    assert syntax.name in message
    assert "install one that pydicom lists for it" in message
    assert "decompress the files" in message


def test_jpeg_of_12_bits_asks_for_a_library(tmp_path, monkeypatch):
    decoder = get_decoder(uid.JPEGExtended12Bit)
    only_pillow = {k: v for k, v in decoder._available.items() if k == "pillow"}
    monkeypatch.setattr(decoder, "_available", only_pillow)
    dataset = compressed(dataset_of([[1, 2]]), uid.JPEGExtended12Bit, b"\xff\xd8\xff\xd9")

    message = refusal(write_dicom(dataset, tmp_path / "a.dcm"))

    assert uid.JPEGExtended12Bit.name in message
    assert "install" in message


def test_file_without_pixels_is_refused(tmp_path):
    dataset = dataset_of([[1, 2]])
    del dataset.PixelData

    assert "expected pixels" in refusal(write_dicom(dataset, tmp_path / "a.dcm"))


@pytest.mark.parametrize("kept", [0, 100, 132, 140, 250, -100, -2])
def test_truncated_file_is_refused(tmp_path, kept):
    path = write_dicom(dataset_of(np.ones((8, 8), dtype=np.uint16)), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:kept])

    refusal(path)


@pytest.mark.parametrize("kept", [-6, -40])
def test_truncated_rle_is_refused(tmp_path, kept):
    dataset = dataset_of(np.arange(64, dtype=np.uint16).reshape(8, 8))
    dataset.compress(uid.RLELossless)
    path = write_dicom(dataset, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:kept])

    refusal(path)


@pytest.mark.parametrize("content", [b"", b"patient,label\n1,2\n" * 20, b"\x89PNG\r\n\x1a\n"])
def test_what_is_not_dicom_is_refused(tmp_path, content):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)

    assert "content is broken or not what its name says" in refusal(path)


def test_missing_pydicom_is_named(tmp_path, monkeypatch):
    path = write_dicom(dataset_of([[1, 2]]), tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)

    message = refusal(path, MachineError)

    assert ".dcm files need the package pydicom; run pip install 'kerasmed[medical]'" in message


def test_missing_pydicom_skips_no_image(tmp_path, monkeypatch):
    for name in ("x", "y"):
        write_dicom(dataset_of([[1, 2]]), tmp_path / "set" / name / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    data = DataConfig(source=tmp_path / "set", on_bad_image="skip")

    with pytest.raises(MachineError, match="kerasmed\\[medical\\]"):
        read_images(data, tmp_path / "cache")
    with pytest.raises(MachineError, match="kerasmed\\[medical\\]"):
        read_measurements(data, tmp_path / "cache")


NAMES = ["a.dcm", "a.DCM", "a.dicom", "IM0001", "1.2.840.113619.2.5.1762583153"]


@pytest.mark.parametrize("name", NAMES)
def test_dicom_is_recognised_by_content(tmp_path, name):
    for folder in ("x", "y"):
        write_dicom(dataset_of([[0, 64, 255]], **IDENTITY), tmp_path / folder / name)

    source = open_source(DataConfig(source=tmp_path))
    [picture] = pictures(source.entries[0].path)

    assert [entry.path.name for entry in source.entries] == [name, name]
    assert row_of(picture) == [0, 64, 255]
    assert read_image(source.entries[0].path, 16).shape == (16, 16, 3)


def test_numbered_file_that_is_not_dicom_is_refused(tmp_path):
    for folder in ("x", "y"):
        write_dicom(dataset_of([[1, 2]]), tmp_path / folder / NAMES[-1])
    foreign = tmp_path / "x" / "1.2.840.113619.2.5.1"
    foreign.write_bytes(bytes(200))

    with pytest.raises(DataError) as caught:
        open_source(DataConfig(source=tmp_path))

    assert str(caught.value).startswith(f"{foreign} has an unsupported file extension")


def test_missing_numbered_file_is_refused_as_missing(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / NAMES[-1], 16)


def test_dicom_outside_the_class_folders_is_refused(tmp_path):
    for folder in ("x", "y"):
        write_dicom(dataset_of([[1, 2]]), tmp_path / folder / NAMES[-1])
    stray = write_dicom(dataset_of([[1, 2]]), tmp_path / NAMES[-1])

    with pytest.raises(DataError, match="outside the class folders") as caught:
        open_source(DataConfig(source=tmp_path))

    assert str(stray) in str(caught.value)


def test_padding_behind_the_pixels_is_no_warning(tmp_path):
    dataset = dataset_of([[0, 64, 255]], **IDENTITY)
    dataset.PixelData += bytes(20)

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 64, 255]


def test_model_file_reads_with_the_window_that_it_was_trained_with(model_path, tmp_path):
    header = {"WindowCenter": 2048, "WindowWidth": 4096}
    path = write_dicom(dataset_of(np.full((4, 4), 64, np.uint16), **header), tmp_path / "a")
    model = onnx.load(model_path)
    formats = DataConfig(source=tmp_path, dicom=DicomConfig(window=(128, 256))).formats
    model.metadata_props.add(key="kerasmed.formats", value=json.dumps(formats))
    windowed = tmp_path / "windowed.onnx"
    onnx.save(model, windowed)

    assert (OnnxClassifier(model_path).read([path]) == 4).all()  # 64 / 4095 * 255
    assert (OnnxClassifier(windowed).read([path]) == 64).all()
    [record] = predict_files(OnnxClassifier(windowed), [path])
    assert record["probabilities"]["r"] == pytest.approx(1 / 3)
