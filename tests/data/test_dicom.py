"""DICOM files: grey values by the book, and nothing of the header that names anybody."""

import io
import json
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.data.config import DataConfig, DicomConfig, Formats
from kerasmed.data.decoding import read_images
from kerasmed.data.fingerprinting import read_fingerprints
from kerasmed.data.readers import Picture, read_image, read_pictures
from kerasmed.data.sources import open_source
from kerasmed.errors import DataError, KerasmedError, MachineError
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.predict import predict_files

pydicom = pytest.importorskip("pydicom")  # optional: what follows imports it

from pydicom import Dataset, uid  # noqa: E402
from pydicom.dataset import FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels import get_decoder  # noqa: E402

COLOUR = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
# A linear window that shows x as x, for x from 0 to 255: PS3.3 C.11.2.1.2.1 gives, from the lower
# end 127.5 - 255 / 2 = 0 to the upper end 255, ((x - 127.5) / 255 + 0.5) * 255 = x.
IDENTITY = {"WindowCenter": 128, "WindowWidth": 256}
WORDS = ("replace", "remove", "correct", "install", "set data.", "convert", "decompress")


def dataset_of(pixels: Any, bits: int = 12, signed: bool = False, **header: Any) -> Dataset:
    """One frame (height, width), several where NumberOfFrames says so, or RGB."""
    pixels = np.asarray(pixels, dtype=None if isinstance(pixels, np.ndarray) else np.uint16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = "1.2.3"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    colour = header.get("SamplesPerPixel", 1) > 1
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = pixels.tobytes()
    for name, value in header.items():
        setattr(dataset, name, value)
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def compressed(dataset: Dataset, syntax: uid.UID, *frames: bytes) -> Dataset:
    """The same header over frames that somebody else has compressed."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(list(frames))
    dataset["PixelData"].is_undefined_length = True
    return dataset


def with_bytes(path: Path, old: bytes, new: bytes) -> Path:
    """The file with a value that pydicom would not write."""
    content = path.read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    return path


def table(entries: list[int], first: int = 0, bits: int = 8, vr: str = "US") -> list[Dataset]:
    """A modality or VOI lookup table (PS3.3 C.11.1.1 and C.11.2.1.1)."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    packed = np.array(entries, dtype="<u2").tobytes()
    item.add_new("LUTData", vr, packed if vr == "OW" else entries)
    return [item]


def palette(entries: bytes, count: int, bits: int, first: int = 0) -> dict[str, Any]:
    """The same table for red, green and blue."""
    header: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        header[f"{colour}PaletteColorLookupTableDescriptor"] = [count, first, bits]
        header[f"{colour}PaletteColorLookupTableData"] = entries
    return header


def pictures(path: Path, **settings: Any) -> list[Picture]:
    own = {name: settings.pop(name) for name in ("grey_range", "nan_value") if name in settings}
    return list(read_pictures(path, Formats(dicom=DicomConfig(**settings), **own)))


def row_of(picture: Picture) -> list[int]:
    """The first row of a grey picture."""
    pixels = np.asarray(picture.image)
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


@pytest.fixture
def shown(tmp_path):
    """The row of grey values that a file with the given row and header is shown as."""

    def shown(row: Any, window: tuple[float, float] | None = None, **header: Any) -> list[int]:
        row = row if isinstance(row, np.ndarray) else np.array(row, dtype=np.uint16)
        [picture] = pictures(save(dataset_of(row[None], **header), tmp_path / "a"), window=window)
        return row_of(picture)

    return shown


def refusal(path: Path, error: type[KerasmedError] = DataError, **settings: Any) -> str:
    with pytest.raises(error) as caught:
        pictures(path, **settings)
    message = str(caught.value)
    assert message.startswith((f"Cannot read {path}: ", f"{path} is DICOM: "))
    assert "\n" not in message
    assert any(word in message for word in WORDS)
    return message


# Windows


def test_rescaled_values_go_through_the_files_window(shown):
    # 2 * stored - 1024 is -1024, -2, 0, 2, 128, 254, 256 and 7166 of the identity window.
    row = [0, 511, 512, 513, 576, 639, 640, 4095]
    header = {"RescaleSlope": 2, "RescaleIntercept": -1024, **IDENTITY}

    assert shown(row, **header) == [0, 0, 0, 2, 128, 254, 255, 255]


def test_window_at_its_ends_and_in_the_middle(shown):
    # Centre 40, width 401: the ends are 39.5 - 200 = -160.5 and 239.5, the value is
    # (x + 160.5) / 400 * 255; -161 is below, -160 gives 0.3, 40 gives 127.8, 239 gives 254.7.
    row = np.array([-1024, -161, -160, -159, 40, 239, 240, 3000], dtype=np.int16)
    header = {"WindowCenter": 40, "WindowWidth": 401, "bits": 16, "signed": True}

    assert shown(row, **header) == [0, 0, 0, 1, 128, 255, 255, 255]


def test_width_of_one_parts_black_from_white(shown):
    # PS3.3 C.11.2.1.2.1: with width 1, x <= c - 0.5 is black and everything else white.
    assert shown([99, 100, 101], WindowCenter=100, WindowWidth=1) == [0, 255, 255]


def test_chosen_window_overrides_the_files(shown):
    header = {"WindowCenter": 3000, "WindowWidth": 10}

    assert shown([0, 64, 255, 4095], window=(128, 256), **header) == [0, 64, 255, 255]


def test_chosen_window_overrides_the_files_voi_table(shown):
    header = {"VOILUTSequence": table([255, 0])}

    assert shown([0, 64, 255, 4095], window=(128, 256), **header) == [0, 64, 255, 255]


def test_chosen_window_is_in_rescaled_units(shown):
    header = {"RescaleSlope": 1, "RescaleIntercept": -1000}

    assert shown([0, 1000, 1064, 1255, 4095], window=(128, 256), **header) == [0, 0, 64, 255, 255]


def test_first_of_several_windows_is_taken(shown):
    header = {"WindowCenter": [128, 50], "WindowWidth": [256, 10]}

    assert shown([0, 50, 100, 255], **header) == [0, 50, 100, 255]


def test_linear_exact_window(shown):
    # PS3.3 C.11.2.1.3.2 with centre 100, width 200: x / 200 * 255; 63.75 at 50, 191.25 at 150.
    header = {"WindowCenter": 100, "WindowWidth": 200, "VOILUTFunction": "LINEAR_EXACT"}

    assert shown([0, 50, 150, 200, 4095], **header) == [0, 64, 191, 255, 255]


def test_sigmoid_window(shown):
    # PS3.3 C.11.2.1.3.1 with centre 100, width 100: 255 / (1 + exp(-4 * (x - 100) / 100)) is
    # 255 / (1 + e^4) = 4.59 at 0, 255 / (1 + e^2) = 30.40 at 50, 250.41 at 200.
    header = {"WindowCenter": 100, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"}

    assert shown([0, 50, 200], **header) == [5, 30, 250]


def test_sigmoid_far_from_its_centre(shown):
    header = {"WindowCenter": 2048, "WindowWidth": 4, "VOILUTFunction": "SIGMOID"}

    assert shown([0, 4095], **header) == [0, 255]


def test_chosen_window_is_linear_whatever_the_files_own_was(shown):
    header = {"WindowCenter": 100, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"}

    assert shown([0, 64, 255, 4095], window=(128, 256), **header) == [0, 64, 255, 255]


def test_chosen_window_narrower_than_one(shown):
    # function of DICOM needs 1, so that every file is refused, and blamed.
    # 0.01 * stored is 0, 0.25 and 0.5 of a window from 0 to 0.5.
    header = {"RescaleSlope": 0.01, "RescaleIntercept": 0}

    assert shown([0, 10, 50, 4095], window=(0.25, 0.5), **header) == [0, 51, 255, 255]


BAD_NUMBERS = [b"0   ", b"-5  ", b"NaN ", b"inf ", b"50,5", b"wide", b"1e9x"]


@pytest.mark.parametrize("width", BAD_NUMBERS)
def test_width_that_is_none_leaves_the_range(tmp_path, width):
    dataset = dataset_of([[0, 64, 255]], WindowCenter=100, WindowWidth="4321")
    path = with_bytes(save(dataset, tmp_path / "a.dcm"), b"4321", width)

    [alone] = pictures(path)
    [ranged] = pictures(path, grey_range=(0, 255))

    assert (alone.needs_range, ranged.needs_range) == (True, False)
    assert row_of(ranged) == [0, 64, 255]
    assert alone.notes == ("a window with an invalid centre or width is ignored",)


@pytest.mark.parametrize("width", BAD_NUMBERS)
def test_after_a_width_that_is_none_comes_the_next_window(tmp_path, width):
    header = {"WindowCenter": [50, 128], "WindowWidth": ["4321", 256]}
    path = save(dataset_of([[0, 64, 255]], **header), tmp_path / "a.dcm")

    [picture] = pictures(with_bytes(path, b"4321", width))

    assert row_of(picture) == [0, 64, 255]
    assert len(picture.notes) == 1


def test_window_of_an_unknown_function_leaves_the_range(tmp_path):
    dataset = dataset_of([[0, 64, 255]], VOILUTFunction="CUBIC", **IDENTITY)

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"), grey_range=(0, 510))

    assert row_of(picture) == [0, 32, 128]
    assert picture.notes == ("a window with an unknown VOI LUT function is ignored",)


def test_after_a_window_that_is_none_comes_the_table(tmp_path):
    dataset = dataset_of(
        [[0, 1, 2]], WindowCenter=0, WindowWidth=0, VOILUTSequence=table([0, 100, 200])
    )

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 100, 200]


@pytest.mark.parametrize("entries", [[], None])
def test_table_without_entries_leaves_the_range(tmp_path, entries):
    items = table([1, 2])
    if entries is None:
        del items[0].LUTData
    else:
        items[0].LUTData = entries
    dataset = dataset_of([[0, 64, 255]], VOILUTSequence=items)

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"), grey_range=(0, 255))

    assert row_of(picture) == [0, 64, 255]
    assert picture.notes == ("an empty lookup table is ignored",)


# 10 and 20 stored are 10 and 20 with the slope's default, 1010 and 1020 with an intercept alone.
@pytest.mark.parametrize("slope", BAD_NUMBERS[:1] + BAD_NUMBERS[2:])
def test_slope_that_is_none_is_one_and_the_intercept_is_kept(tmp_path, slope):
    header = {"RescaleSlope": "4321", "RescaleIntercept": 1000}
    path = with_bytes(save(dataset_of([[10, 20]], **header), tmp_path / "a.dcm"), b"4321", slope)

    [picture] = pictures(path, grey_range=(1000, 1255))

    assert row_of(picture) == [10, 20]
    assert picture.notes == ("an invalid RescaleSlope is ignored (1 is used)",)


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ({"RescaleIntercept": 1000}, [1010, 1020]),
        ({"RescaleIntercept": 1000, "RescaleSlope": None}, [1010, 1020]),
        ({"RescaleSlope": 3}, [30, 60]),
        ({"RescaleSlope": 3, "RescaleIntercept": None}, [30, 60]),
        ({"RescaleType": "HU"}, [10, 20]),
    ],
)
def test_missing_half_of_a_rescaling_takes_its_default(tmp_path, header, shown):
    path = save(dataset_of([[10, 20]], **header), tmp_path / "a.dcm")

    [picture] = pictures(path)

    assert picture.values.ravel().tolist() == shown
    assert picture.notes == ()


def test_window_over_half_of_a_rescaling(shown):
    header = {"RescaleIntercept": -1024, "WindowCenter": -24, "WindowWidth": 2000}

    # PS3.3 C.11.2.1.2: from -1023.5 (black) to 975.5 (white); 500 stored is -524.
    assert shown([0, 500, 2000], **header) == [0, 64, 255]


@pytest.mark.parametrize(
    "empty",
    [
        ("WindowCenter", "WindowWidth"),
        ("RescaleSlope", "RescaleIntercept"),
        ("VOILUTFunction",),
    ],
)
def test_empty_elements_are_as_good_as_none(tmp_path, empty):
    full = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": 2047.5, "WindowWidth": 4095}
    dataset = dataset_of([[0, 2049, 4095]], **(full if empty == ("VOILUTFunction",) else {}))
    for name in empty:
        setattr(dataset, name, None)

    [picture] = pictures(save(dataset, tmp_path / "a"))

    assert row_of(picture) == [0, 128, 255]


# No window: the whole stored range


def test_without_window_the_stored_bits_span_black_to_white(shown):
    # 12 bits: x / 4095 * 255; 63.8 at 1024, 127.6 at 2049.
    assert shown([0, 1024, 2049, 4095]) == [0, 64, 128, 255]


def test_without_window_signed(shown):
    # 12 bits: -2048 to 2047; (x + 2048) / 4095 * 255 is 127.53 at 0.
    row = np.array([-2048, -1024, 0, 2047], dtype=np.int16)

    assert shown(row, signed=True) == [0, 64, 128, 255]


def test_without_window_16_and_8_bits(shown):
    assert shown([0, 257, 65535], bits=16) == [0, 1, 255]
    assert shown(np.array([0, 7, 255], dtype=np.uint8), bits=8) == [0, 7, 255]


def test_without_window_a_rescaling_changes_nothing(shown):
    header = {"RescaleSlope": 2.5, "RescaleIntercept": -1024}

    assert shown([0, 1024, 2049, 4095], **header) == [0, 64, 128, 255]


def test_single_bits_are_black_and_white(tmp_path):
    # 0b01010101, least bit first (PS3.5 8.1.1).
    header = {"BitsAllocated": 1, "Columns": 8, "bits": 1}
    path = save(dataset_of(np.array([[0x55]], dtype=np.uint8), **header), tmp_path / "a.dcm")

    [picture] = pictures(path)

    assert row_of(picture) == [255, 0] * 4


def test_bits_above_those_stored_are_not_looked_at(tmp_path):
    # Old files keep overlays there (PS3.5 8.1.2, retired), and say where.
    dataset = dataset_of([[0x8000, 0x1800, 0x0FFF]])
    dataset.add_new((0x6000, 0x0102), "US", 12)

    assert row_of(pictures(save(dataset, tmp_path / "a.dcm"))[0]) == [0, 128, 255]


def test_values_above_the_bits_stored_are_shown_where_no_overlay_lies_there(tmp_path):
    dataset = dataset_of(np.array([[0, 4000, 8000, 16000]], np.uint16), bits=12)

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"), grey_range=(0, 16000))

    assert row_of(picture) == [0, 64, 128, 255]
    assert "more bits than BitsStored" in picture.notes[0]


def test_a_stale_window_over_8_bits_is_seen(tmp_path):
    row = np.arange(256, dtype=np.uint8)[None]
    dataset = dataset_of(row, bits=8, WindowCenter=2048, WindowWidth=4096)

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

    assert len(set(row_of(picture))) == 17
    assert len(np.unique(picture.values)) == 256


def test_a_missing_sign_is_seen_in_the_pixels(tmp_path):
    dataset = dataset_of(np.array([[-1024, -3, 40, 900]], np.int16), bits=16, signed=True)
    del dataset.PixelRepresentation

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

    assert picture.values.tolist() == [[-1024, -3, 40, 900]]


def test_values_in_the_upper_bits_are_shifted_down(shown):
    # Left-aligned: 12 bits stored in bits 4 to 15.
    row = np.array([0, 819, 2457, 4095], np.uint16) << 4
    assert shown(row, HighBit=15) == [0, 51, 153, 255]
    # (x + 2048) / 4095 * 255, signed.
    row = np.array([-2048, -1229, 409, 2047], np.int16) << 4
    assert shown(row, HighBit=15, signed=True) == [0, 51, 153, 255]


# What a header leaves out


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

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

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

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

    np.testing.assert_array_equal(np.asarray(picture.image), pixels)


@pytest.mark.parametrize("planar", [0, 1])
def test_grey_in_three_colours_without_planar_configuration(tmp_path, planar):
    grey = np.random.default_rng(0).integers(0, 40, (16, 16)).cumsum(axis=0).astype(np.uint8)
    pixels = grey[..., None].repeat(3, axis=2)
    dataset = dataset_of(pixels, bits=8, **COLOUR)
    dataset.PhotometricInterpretation = "RGB"
    dataset.PixelData = (np.moveaxis(pixels, 2, 0) if planar else pixels).tobytes()
    del dataset.PlanarConfiguration

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

    np.testing.assert_array_equal(np.asarray(picture.image), pixels)


@pytest.mark.parametrize("high", [12, 13, 15])
def test_values_in_the_lowest_bits_are_not_shifted_whatever_highbit_says(tmp_path, high):
    dataset = dataset_of([[0, 819, 2457, 4095]], HighBit=high)

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

    assert picture.values.tolist() == [[0, 819, 2457, 4095]]


def test_bright_text_on_a_dark_picture_is_no_sign(tmp_path):
    dataset = dataset_of(np.array([[0, 60, 255, 3]], np.uint8), bits=8)
    del dataset.PixelRepresentation

    assert row_of(pictures(save(dataset, tmp_path / "a.dcm"))[0]) == [0, 60, 255, 3]


@pytest.mark.parametrize("name", [" monochrome1", "Monochrome1 "])
def test_photometric_interpretation_in_any_letters(shown, name):
    assert shown([0, 4095], PhotometricInterpretation=name) == [255, 0]


def test_bits_that_nobody_decodes_are_named(tmp_path):
    dataset = dataset_of([[1, 2, 3, 4]], BitsAllocated=12)
    dataset.add_new("PixelData", "OW", bytes(6))

    assert "64 allocated bits per value, received 12" in refusal(save(dataset, tmp_path / "a.dcm"))


@pytest.mark.parametrize("name", ["Rows", "Columns"])
def test_image_without_its_size_is_refused(tmp_path, name):
    dataset = dataset_of([[1, 2]])
    delattr(dataset, name)

    assert "expected the numbers of rows and columns" in refusal(save(dataset, tmp_path / "a.dcm"))


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
    path = without_header(save(dataset, tmp_path / name), keep_meta)

    [picture] = pictures(path)

    assert np.abs(np.asarray(picture.image).astype(int) - 100).max() <= 1


def test_padding_does_not_count_for_the_range(tmp_path):
    row = np.array([[-2000] * 50 + list(range(100))], np.int16)
    header = {"PixelPaddingValue": -2000, "bits": 16, "signed": True}

    [picture] = pictures(save(dataset_of(row, **header), tmp_path / "a.dcm"))

    assert np.isnan(picture.values).sum() == 50
    assert row_of(picture)[:50] == [0] * 50
    assert len(set(row_of(picture)[50:])) == 100


def test_segmentation_of_several_frames_is_a_mask(tmp_path):
    dataset = dataset_of(FRAMES, NumberOfFrames=3, SOPClassUID=uid.SegmentationStorage)

    assert [p.is_mask for p in pictures(save(dataset, tmp_path / "a.dcm"))] == [True] * 3


def test_palette_of_fewer_bits_than_its_descriptor_states(shown):
    header = palette(np.array([0, 51, 255], "<u2").tobytes(), 3, 16)

    assert shown(np.array([0, 1, 2], dtype=np.uint8), bits=8, **header) == [0, 51, 255]


def test_missing_values_are_black_in_a_window_of_monochrome1(tmp_path):
    dataset = dataset_of([[1, 2, 3]], PhotometricInterpretation="MONOCHROME1")
    dataset.WindowCenter, dataset.WindowWidth = 0.5, 1
    dataset.VOILUTFunction = "LINEAR_EXACT"
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.FloatPixelData = np.float32([0, np.nan, 1]).tobytes()
    dataset.BitsAllocated = 32

    assert row_of(pictures(save(dataset, tmp_path / "a.dcm"))[0]) == [255, 0, 0]


def test_segmentation_is_a_mask(tmp_path):
    dataset = dataset_of([[0, 1]])
    assert not pictures(save(dataset, tmp_path / "a.dcm"))[0].is_mask
    dataset.SOPClassUID = uid.SegmentationStorage

    assert pictures(save(dataset, tmp_path / "b.dcm"))[0].is_mask


# Slope, inversion, tables


def test_negative_slope_with_a_window(shown):
    # -stored + 255 is 255, 155, 0 and -45 of the identity window.
    header = {"RescaleSlope": -1, "RescaleIntercept": 255, **IDENTITY}

    assert shown([0, 100, 255, 300], **header) == [255, 155, 0, 0]


def test_negative_slope_without_a_window(shown):
    # _shown takes the least stored value for black. -stored is 0, -1024, -2049, -4095.
    header = {"RescaleSlope": -1, "RescaleIntercept": 0}

    assert shown([0, 1024, 2049, 4095], **header) == [255, 191, 127, 0]


def test_monochrome1_is_inverted(shown):
    header = {"PhotometricInterpretation": "MONOCHROME1"}

    assert shown([0, 1024, 2049, 4095], **header) == [255, 191, 127, 0]
    assert shown([0, 1, 100, 255, 4095], **header, **IDENTITY) == [255, 254, 155, 0, 0]


# Below, at and above the table: first entry below it, last above (PS3.3 C.11.2.1.1).
VOI_ROW, VOI_ENTRIES, VOI_SHOWN = [0, 10, 11, 12, 13, 200], [0, 50, 200, 255], [0, 0, 50, 200]


def test_voi_table(shown):
    header = {"VOILUTSequence": table(VOI_ENTRIES, first=10)}

    assert shown(VOI_ROW, **header) == [*VOI_SHOWN, 255, 255]


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_voi_table_from_a_negative_value_on(tmp_path, syntax):
    # -1024 is 64512 without a sign, as implicit VR gives it.
    items = table(list(range(4096)), bits=12)
    items[0].add_new("LUTDescriptor", "SS", [4096, -1024, 12])
    header = {"RescaleSlope": 1, "RescaleIntercept": -1024, "VOILUTSequence": items}
    dataset = dataset_of([[0, 819, 2457, 4095]], **header)
    dataset.file_meta.TransferSyntaxUID = syntax

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 51, 153, 255]
    assert not picture.needs_range


def test_voi_table_from_a_large_value_on_where_none_is_negative(tmp_path):
    items = table([0, 100, 200, 255], first=65000)
    dataset = dataset_of([[0, 65001, 65002, 65535]], bits=16, VOILUTSequence=items)

    assert row_of(pictures(save(dataset, tmp_path / "a.dcm"))[0]) == [0, 100, 200, 255]


@pytest.mark.parametrize("bits", [8, 16])
def test_voi_table_of_other_bits_than_its_descriptor_names(tmp_path, bits):
    # 12 bits, whether it says 8 (all white) or 16 (nearly black).
    items = table([0, 819, 2457, 4095], bits=bits)

    [picture] = pictures(save(dataset_of([[0, 1, 2, 3]], VOILUTSequence=items), tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 51, 153, 255]
    assert len(picture.notes) == 1


def test_voi_table_of_a_big_endian_file(tmp_path):
    items = table([0, 819, 2457, 4095], bits=12)
    items[0].add_new("LUTData", "OW", np.array([0, 819, 2457, 4095], ">u2").tobytes())
    dataset = dataset_of(np.array([[0, 1, 2, 3]], ">u2"), VOILUTSequence=items)
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 51, 153, 255]


def test_voi_table_of_bytes_packed_into_words(tmp_path):
    items = table([1, 2], bits=8)
    items[0].LUTDescriptor = [4, 0, 8]
    items[0].add_new("LUTData", "OW", bytes([0, 51, 153, 255]))

    [picture] = pictures(save(dataset_of([[0, 1, 2, 3]], VOILUTSequence=items), tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 51, 153, 255]


def test_voi_table_of_10_bits(shown):
    # x / 1023 * 255: 49.9 at 200, 199.4 at 800.
    header = {"VOILUTSequence": table([0, 200, 800, 1023], first=10, bits=10)}

    assert shown(VOI_ROW, **header) == [0, 0, 50, 199, 255, 255]


@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
def test_table_of_words(shown, name):
    # to unpack OW, the VR that most files have here.
    header = {name: table(VOI_ENTRIES, first=10, vr="OW")}

    assert shown(VOI_ROW, **header) == [*VOI_SHOWN, 255, 255]


def test_table_in_a_file_of_implicit_vr(tmp_path):
    dataset = dataset_of([VOI_ROW], VOILUTSequence=table(VOI_ENTRIES, first=10))
    dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

    assert row_of(picture) == [*VOI_SHOWN, 255, 255]


def test_voi_table_after_a_rescaling(shown):
    header = {"RescaleSlope": 1, "RescaleIntercept": 0}

    assert shown(VOI_ROW, **header, VOILUTSequence=table(VOI_ENTRIES, first=10)) == [
        *VOI_SHOWN,
        255,
        255,
    ]


def test_voi_table_of_8_bits_and_more_than_256_entries(shown):
    header = {"VOILUTSequence": table([i // 16 for i in range(4096)])}

    assert shown([0, 255, 256, 2048, 4095], **header) == [0, 15, 16, 128, 255]


def test_modality_table(shown):
    # Above the table its last entry holds.
    header = {"ModalityLUTSequence": table([i // 4 for i in range(1024)])}

    assert shown([0, 4, 512, 1023, 4095], **header) == [0, 1, 128, 255, 255]


def test_modality_table_then_window(shown):
    header = {"ModalityLUTSequence": table([0, 100, 200, 300], first=10, bits=16), **IDENTITY}

    assert shown([0, 10, 11, 12, 13, 99], **header) == [0, 0, 100, 200, 255, 255]


@pytest.mark.parametrize("entries", [[255, 155, 0], [0, 255, 0]], ids=["falling", "hill"])
def test_modality_table_that_does_not_rise(shown, entries):
    assert shown([0, 1, 2], ModalityLUTSequence=table(entries)) == entries


# Colour


def test_rgb(tmp_path):
    pixels = np.array([[[255, 0, 9], [1, 2, 3]]], dtype=np.uint8)
    path = save(
        dataset_of(pixels, bits=8, PhotometricInterpretation="RGB", **COLOUR), tmp_path / "a.dcm"
    )

    [picture] = pictures(path, window=(1, 1))

    np.testing.assert_array_equal(picture.image, pixels)
    assert picture.kind == "DICOM RGB 8 bits"


def test_rgb_by_planes(tmp_path):
    header = {**COLOUR, "PlanarConfiguration": 1, "PhotometricInterpretation": "RGB"}
    dataset = dataset_of(np.zeros((1, 2, 3), dtype=np.uint8), bits=8, **header)
    dataset.PixelData = bytes([255, 1, 0, 2, 9, 3])

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

    np.testing.assert_array_equal(picture.image, [[[255, 0, 9], [1, 2, 3]]])


def test_ybr_full(tmp_path):
    # PS3.3 C.7.6.3.1.2 for (76, 85, 255): R = 76 + 1.402 * 127 = 254.05,
    # G = 76 - 0.3441 * -43 - 0.7141 * 127 = 0.10, B = 76 + 1.772 * -43 = -0.2.
    pixels = np.array([[[76, 85, 255], [30, 128, 128]]], dtype=np.uint8)
    header = {**COLOUR, "PhotometricInterpretation": "YBR_FULL"}

    [picture] = pictures(save(dataset_of(pixels, bits=8, **header), tmp_path / "a.dcm"))

    np.testing.assert_array_equal(picture.image, [[[254, 0, 0], [30, 30, 30]]])


@pytest.mark.parametrize("interpretation", ["HSV", "YBR_PARTIAL_420"])
def test_other_colours_are_refused(tmp_path, interpretation):
    pixels = np.full((2, 2, 3), 9, dtype=np.uint8)
    header = {**COLOUR, "PhotometricInterpretation": interpretation}

    refusal(save(dataset_of(pixels, bits=8, **header), tmp_path / "a.dcm"))


def test_colour_of_16_bits_is_shown_in_the_range(tmp_path):
    pixels = np.array([[[0, 100, 200], [400, 500, 1020]]], dtype=np.uint16)
    header = {**COLOUR, "PhotometricInterpretation": "RGB"}
    path = save(dataset_of(pixels, bits=16, **header), tmp_path / "a.dcm")

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
    path = save(
        dataset_of(np.array([[0, 1]], dtype=np.uint8), bits=8, **header), tmp_path / "a.dcm"
    )

    [picture] = pictures(path)

    np.testing.assert_array_equal(picture.image, [[[10, 10, 255], [20, 20, 0]]])


def test_palette_of_8_bits_in_words(shown):
    header = palette(np.array([10, 200], dtype="<u2").tobytes(), 2, 8)

    assert shown(np.array([0, 1], dtype=np.uint8), bits=8, **header) == [10, 200]


@pytest.mark.parametrize("count", [3, 299])
def test_palette_of_8_bits_of_other_lengths(shown, count):
    # keeps the position in the palette as uint8, as wide as the entries are.
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


# Several frames

FRAMES = np.array([[[0, 100, 204]], [[1, 2, 3]], [[204, 50, 0]]], dtype=np.uint16)


def test_several_frames_are_refused_with_the_remedy(tmp_path):
    path = save(dataset_of(FRAMES, NumberOfFrames=3), tmp_path / "a.dcm")

    message = refusal(path)

    assert "expected one frame, received 3; set data.dicom.frames: split" in message


def test_several_frames_are_split_in_order(tmp_path):
    path = save(dataset_of(FRAMES, NumberOfFrames=3, **IDENTITY), tmp_path / "a.dcm")

    frames = pictures(path, frames="split")

    assert [picture.frame for picture in frames] == [0, 1, 2]
    assert [row_of(picture) for picture in frames] == FRAMES[:, 0].tolist()


def test_one_frame_is_no_part(tmp_path):
    path = save(dataset_of(FRAMES[:1], NumberOfFrames=1, **IDENTITY), tmp_path / "a.dcm")

    assert [picture.frame for picture in pictures(path, frames="split")] == [None]


def test_fewer_frames_than_promised_are_refused(tmp_path):
    refusal(save(dataset_of(FRAMES, NumberOfFrames=4), tmp_path / "a.dcm"), frames="split")


@pytest.mark.parametrize("count", [-1, 0, None])
def test_number_of_frames_that_is_none_is_one(tmp_path, count):
    path = save(dataset_of(FRAMES[0], NumberOfFrames=count, **IDENTITY), tmp_path / "a.dcm")

    assert [row_of(picture) for picture in pictures(path)] == [FRAMES[0][0].tolist()]


def groups_of(rescale: dict[str, float] | None, window: dict[str, Any] | None) -> Dataset:
    """An item of the functional groups (PS3.3 C.7.6.16.2.9 and C.7.6.16.2.10)."""
    item = Dataset()
    for name, values in (
        ("PixelValueTransformationSequence", rescale),
        ("FrameVOILUTSequence", window),
    ):
        if values is not None:
            inner = Dataset()
            for keyword, value in values.items():
                setattr(inner, keyword, value)
            setattr(item, name, [inner])
    return item


SAME = {"RescaleSlope": 1, "RescaleIntercept": 0}
TWICE = {"RescaleSlope": 2, "RescaleIntercept": -100}
# Shows x as x / 2: the lower end is 255 - 510 / 2 = 0, the upper 510.
HALF = {"WindowCenter": 255.5, "WindowWidth": 511}


def test_enhanced_frames_have_their_own_rescaling_and_window(tmp_path):
    frames = np.array([[[0, 100, 204]]] * 3, dtype=np.uint16)
    exact = {"WindowCenter": 100, "WindowWidth": 200, "VOILUTFunction": "LINEAR_EXACT"}
    path = save(
        dataset_of(
            frames,
            NumberOfFrames=3,
            PerFrameFunctionalGroupsSequence=[
                groups_of(SAME, HALF),  # halved
                groups_of(TWICE, IDENTITY),  # -100, 100 and 308
                groups_of(SAME, exact),  # 100 / 200 * 255 = 127.5, and above the end
            ],
        ),
        tmp_path / "a.dcm",
    )

    rows = [row_of(picture) for picture in pictures(path, frames="split")]

    assert rows[:2] == [[0, 50, 102], [0, 100, 255]]
    assert rows[2][0] == 0
    assert rows[2][1] in (127, 128)
    assert rows[2][2] == 255


def test_enhanced_frames_share_groups(tmp_path):
    dataset = dataset_of(
        FRAMES,
        NumberOfFrames=3,
        SharedFunctionalGroupsSequence=[groups_of(TWICE, None)],
        PerFrameFunctionalGroupsSequence=[groups_of(None, w) for w in (IDENTITY, HALF, IDENTITY)],
    )
    path = save(dataset, tmp_path / "a.dcm")

    # 2 * stored - 100: -100, 100, 308; then -98, -96, -94; then 308, 0, -100.
    rows = [row_of(picture) for picture in pictures(path, frames="split")]

    assert rows == [[0, 100, 255], [0, 0, 0], [255, 0, 0]]


def test_chosen_window_overrides_that_of_every_frame(tmp_path):
    dataset = dataset_of(
        FRAMES,
        NumberOfFrames=3,
        PerFrameFunctionalGroupsSequence=[groups_of(SAME, HALF) for _ in FRAMES],
    )
    path = save(dataset, tmp_path / "a.dcm")

    frames = pictures(path, window=(128, 256), frames="split")

    assert [row_of(picture) for picture in frames] == FRAMES[:, 0].tolist()


def test_frames_become_images_of_one_group(tmp_path):
    for name in ("x", "y"):
        frames = FRAMES.repeat(8, axis=1) + ord(name)
        path = tmp_path / "set" / name / f"{name}.dcm"
        save(dataset_of(frames, NumberOfFrames=3, **IDENTITY), path)
    data = DataConfig(
        source=tmp_path / "set", image_size=16, dicom=DicomConfig(frames="split", window=(128, 256))
    )

    images = read_images(data, tmp_path / "cache")

    assert [file.frame for file in images.files] == [0, 1, 2] * 2
    assert [Path(file.name).name for file in images.files[:2]] == ["x.dcm#0", "x.dcm#1"]
    assert len({file.sha256 for file in images.files}) == 6


# Encodings


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

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 64, 255, 255]


def test_rle_is_read(tmp_path):
    dataset = dataset_of(FRAMES, NumberOfFrames=3, **IDENTITY)
    dataset.compress(uid.RLELossless)

    frames = pictures(save(dataset, tmp_path / "a.dcm"), frames="split")

    assert [row_of(picture) for picture in frames] == FRAMES[:, 0].tolist()


def test_jpeg_in_colour_is_read(tmp_path):
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 255
    packed = io.BytesIO()
    Image.fromarray(red).save(packed, "JPEG", quality=95)
    dataset = dataset_of(red, bits=8, PhotometricInterpretation="YBR_FULL_422", **COLOUR)

    [picture] = pictures(
        save(compressed(dataset, uid.JPEGBaseline8Bit, packed.getvalue()), tmp_path / "a.dcm")
    )

    np.testing.assert_allclose(np.asarray(picture.image, dtype=int), red, atol=2)


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.MPEG2MPML])
def test_compression_that_nobody_decodes_is_named(tmp_path, syntax, monkeypatch):
    if syntax == uid.JPEGLSLossless:
        # As on a machine without any of the libraries, whatever this one has.
        decoder = get_decoder(syntax)
        monkeypatch.setattr(decoder, "_available", {})
    path = save(compressed(dataset_of([[1, 2]]), syntax, b"\xff\xd8\xff\xd9"), tmp_path / "a.dcm")

    message = refusal(path)

    assert syntax.name in message
    assert "install one that pydicom lists for it" in message
    assert "decompress the files" in message


def test_jpeg_of_12_bits_asks_for_a_library(tmp_path, monkeypatch):
    decoder = get_decoder(uid.JPEGExtended12Bit)
    only_pillow = {k: v for k, v in decoder._available.items() if k == "pillow"}
    monkeypatch.setattr(decoder, "_available", only_pillow)
    dataset = compressed(dataset_of([[1, 2]]), uid.JPEGExtended12Bit, b"\xff\xd8\xff\xd9")

    message = refusal(save(dataset, tmp_path / "a.dcm"))

    assert uid.JPEGExtended12Bit.name in message
    assert "install" in message


# Files that hold no image


def test_file_without_pixels_is_refused(tmp_path):
    dataset = dataset_of([[1, 2]])
    del dataset.PixelData

    assert "expected pixels" in refusal(save(dataset, tmp_path / "a.dcm"))


@pytest.mark.parametrize(("nan_value", "grey"), [(None, 0), (0.5, 128)])
def test_float_pixels_are_shown_in_the_range(tmp_path, nan_value, grey):
    dataset = dataset_of([[1, 2, 3]])
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.FloatPixelData = np.float32([0.2, np.nan, 1]).tobytes()
    dataset.BitsAllocated = 32
    path = save(dataset, tmp_path / "a.dcm")

    [picture] = pictures(path, grey_range=(0, 1), nan_value=nan_value)

    assert row_of(picture) == [51, grey, 255]
    assert bool(picture.notes) == (nan_value is None)


@pytest.mark.parametrize("kept", [0, 100, 132, 140, 250, -100, -2])
def test_truncated_file_is_refused(tmp_path, kept):
    path = save(dataset_of(np.ones((8, 8), dtype=np.uint16)), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:kept])

    refusal(path)


@pytest.mark.parametrize("kept", [-6, -40])
def test_truncated_rle_is_refused(tmp_path, kept):
    dataset = dataset_of(np.arange(64, dtype=np.uint16).reshape(8, 8))
    dataset.compress(uid.RLELossless)
    path = save(dataset, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:kept])

    refusal(path)


@pytest.mark.parametrize("content", [b"", b"patient,label\n1,2\n" * 20, b"\x89PNG\r\n\x1a\n"])
def test_what_is_not_dicom_is_refused(tmp_path, content):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)

    assert "content is broken or not what its name says" in refusal(path)


def test_missing_pydicom_is_named(tmp_path, monkeypatch):
    path = save(dataset_of([[1, 2]]), tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)

    message = refusal(path, MachineError)

    assert "DICOM files need the package pydicom; run pip install 'kerasmed[medical]'" in message


def test_missing_pydicom_skips_no_image(tmp_path, monkeypatch):
    for name in ("x", "y"):
        save(dataset_of([[1, 2]]), tmp_path / "set" / name / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    data = DataConfig(source=tmp_path / "set", on_bad_image="skip")

    with pytest.raises(MachineError, match="kerasmed\\[medical\\]"):
        read_images(data, tmp_path / "cache")
    with pytest.raises(MachineError, match="kerasmed\\[medical\\]"):
        read_fingerprints(data, tmp_path / "cache")


# Names

NAMES = ["a.dcm", "a.DCM", "a.dicom", "IM0001", "1.2.840.113619.2.5.1762583153"]


@pytest.mark.parametrize("name", NAMES)
def test_dicom_is_recognised_by_content(tmp_path, name):
    for folder in ("x", "y"):
        save(dataset_of([[0, 64, 255]], **IDENTITY), tmp_path / folder / name)

    source = open_source(DataConfig(source=tmp_path))
    [picture] = pictures(source.entries[0].path)

    assert [entry.path.name for entry in source.entries] == [name, name]
    assert row_of(picture) == [0, 64, 255]
    assert read_image(source.entries[0].path, 16).shape == (16, 16, 3)


def test_numbered_file_that_is_not_dicom_is_refused(tmp_path):
    for folder in ("x", "y"):
        save(dataset_of([[1, 2]]), tmp_path / folder / NAMES[-1])
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
        save(dataset_of([[1, 2]]), tmp_path / folder / NAMES[-1])
    stray = save(dataset_of([[1, 2]]), tmp_path / NAMES[-1])

    with pytest.raises(DataError, match="outside the class folders") as caught:
        open_source(DataConfig(source=tmp_path))

    assert str(stray) in str(caught.value)


# Privacy

SECRETS = ("SECRET", "19370405", "777777777")
NAMED = {
    "PatientName": "SECRET^NAME",
    "PatientBirthDate": "19370405",
    "InstitutionName": "SECRET HOSPITAL",
    "PatientAddress": "SECRET STREET",
}


def leaks(content: bytes) -> list[str]:
    """Secrets that are in it, also as NumPy stores text."""
    encodings = ("utf-8", "utf-16-le", "utf-32-le")
    return [word for word in SECRETS for code in encodings if word.encode(code) in content]


def leaks_below(folder: Path) -> dict[str, list[str]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    leaked = {str(path): leaks(path.read_bytes()) for path in files}
    return {path: words for path, words in leaked.items() if words}


def test_leaks_are_found():
    assert leaks(b"a SECRET") == ["SECRET"]
    assert leaks(np.array(["x 19370405"]).tobytes()) == ["19370405"]
    assert leaks(b"secret") == []


PATIENTS, EACH = 8, 2


def write_patients(folder: Path, with_id: bool = True) -> dict[str, int]:
    """Images of eight people in both classes, and whose each file is."""
    rng = np.random.default_rng(0)
    owners = {}
    for patient in range(PATIENTS):
        for class_name in ("sick", "well"):
            for number in range(EACH):
                pixels = rng.integers(0, 4096, (8, 8), dtype=np.uint16)
                dataset = dataset_of(pixels, **NAMED, StudyInstanceUID=f"1.777777777.{patient}")
                dataset.PatientID = f"SECRET {patient}" if with_id else "  "
                path = save(dataset, folder / class_name / f"1.2.{len(owners)}")
                owners[str(path)] = patient
                assert leaks(path.read_bytes()), number
    return owners


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("patients") / "set"
    return folder, write_patients(folder)


def split(folder: Path, out: Path, **data: Any) -> dict[str, Any]:
    """What `kerasmed data split` writes for a folder."""
    config = out.with_suffix(".yaml")
    values = {
        "name": "x",
        "data": {"source": "x", "image_size": 32, **data},
        "split": {"train": 0.4, "test": 0.2, "near_duplicate_bits": None},
    }
    config.write_text(yaml.safe_dump(values))
    assert main(["data", "split", str(config), "--data", str(folder), "--out", str(out)]) == 0
    return json.loads((out / "split.json").read_text())


@pytest.mark.parametrize("with_id", [True, False], ids=["PatientID", "StudyInstanceUID"])
def test_nobody_crosses_roles_or_is_named(tmp_path, capfd, with_id):
    owners = write_patients(tmp_path / "set", with_id)

    files = split(tmp_path / "set", tmp_path / "run")["files"]

    roles, groups = defaultdict(set), defaultdict(set)
    for file in files:
        roles[owners[file["path"]]].add(file["role"])
        groups[file["group"]].add(owners[file["path"]])
    assert len(files) == len(owners) == 32
    assert [len(roles[patient]) for patient in range(PATIENTS)] == [1] * PATIENTS
    assert sorted(map(list, groups.values())) == [[patient] for patient in range(PATIENTS)]
    assert leaks_below(tmp_path / "set")
    assert leaks_below(tmp_path / "run") == {}
    assert leaks("".join(capfd.readouterr()).encode()) == []


def test_nobody_is_named_in_the_caches(tmp_path, patients):
    folder, owners = patients
    data = DataConfig(source=folder, image_size=16, grey_range=(0, 4095))

    images = read_images(data, tmp_path / "run" / "images")
    fingerprints = read_fingerprints(data, tmp_path / "run" / "fingerprints")

    whose = [owners[str(file.path)] for file in images.files]
    for pseudonyms in ([file.patient for file in images.files], fingerprints.patients.tolist()):
        assert len(set(pseudonyms)) == len(set(zip(pseudonyms, whose, strict=True))) == PATIENTS
    assert leaks_below(tmp_path / "run") == {}


def test_patients_cannot_be_recognised_from_one_run_to_the_next(tmp_path, patients):
    data = DataConfig(source=patients[0], image_size=16, grey_range=(0, 4095))

    runs = [read_images(data, tmp_path / name) for name in ("one", "two")]

    first, second = ({str(file.patient) for file in run.files} for run in runs)
    assert len(first) == len(second) == PATIENTS
    assert not first & second


def test_images_of_nobody_are_not_put_together(tmp_path):
    for name in ("x", "y"):
        dataset = dataset_of(FRAMES[0] + ord(name), PatientID="", StudyInstanceUID="")
        save(dataset, tmp_path / "set" / name / "a.dcm")

    images = read_images(
        DataConfig(source=tmp_path / "set", grey_range=(0, 4095)), tmp_path / "cache"
    )

    assert [file.patient for file in images.files] == [None, None]


def test_patient_of_the_table_goes_before_that_of_the_header(tmp_path):
    rows = ["path,label,patient"]
    for number, name in enumerate(("x", "y", "y")):
        dataset = dataset_of(FRAMES[number], PatientID=f"SECRET {number}")
        save(dataset, tmp_path / "files" / f"{number}.dcm")
        rows.append(f"files/{number}.dcm,{name},{min(number, 1)}")
    (tmp_path / "set.csv").write_text("\n".join(rows))

    images = read_images(
        DataConfig(source=tmp_path / "set.csv", grey_range=(0, 4095)), tmp_path / "cache"
    )

    first, second, third = (file.patient for file in images.files)
    assert first != second == third


# What makes a file unreadable: elements that a value is written into, which pydicom would not
# write, and where the file is cut off.
BROKEN: dict[str, tuple[dict[str, Any], bytes]] = {
    "frames": ({"NumberOfFrames": "12345678"}, b"12345678"),
    "window": ({"WindowCenter": "12345678", "WindowWidth": 9}, b"12345678"),
    "slope": ({"RescaleSlope": "12345678", "RescaleIntercept": 0}, b"12345678"),
    "interpretation": ({"PhotometricInterpretation": "ABCDEFGH"}, b"ABCDEFGH"),
    "syntax": ({}, b"1.2.840.10008.1.2.1\0"),
}


def write_broken(path: Path, what: str) -> Path:
    dataset = dataset_of(np.ones((8, 8), np.uint16), **NAMED, PatientID="SECRET ID")
    if what == "cut":
        path = save(dataset, path)
        path.write_bytes(path.read_bytes()[:-9])
    elif what == "cut in the name":
        content = save(dataset, path).read_bytes()
        path.write_bytes(content[: content.index(b"^NAME") + 3])
    elif what == "no pixels":
        del dataset.PixelData
        save(dataset, path)
    elif what == "compression":
        save(compressed(dataset, uid.MPEG2MPML, b"SECRET"), path)
    elif what == "rubbish in JPEG":
        save(compressed(dataset, uid.JPEGBaseline8Bit, b"SECRET"), path)
    else:
        header, old = BROKEN[what]
        for name, value in header.items():
            setattr(dataset, name, value)
        with_bytes(save(dataset, path), old, b"SECRET".ljust(len(old)))
    return path


READ = ["frames", "window", "slope"]  # what decoding does not need
CASES = [*BROKEN, "cut", "cut in the name", "no pixels", "compression", "rubbish in JPEG"]


@pytest.mark.parametrize("what", [case for case in CASES if case != "syntax"])
def test_errors_and_notes_quote_nothing_of_the_header(tmp_path, capfd, what):
    path = write_broken(tmp_path / "a.dcm", what)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if what in READ:
            [picture] = pictures(path)
            message = " ".join(picture.notes)
        else:
            message = refusal(path)

    assert message or what == "frames"
    assert leaks(message.encode()) == []
    assert [leaks(str(warning.message).encode()) for warning in caught] == [[]] * len(caught)
    assert leaks("".join(capfd.readouterr()).encode()) == []


def test_unknown_syntax_is_not_quoted(tmp_path):
    assert leaks(refusal(write_broken(tmp_path / "a.dcm", "syntax")).encode()) == []


def test_skipped_files_are_listed_without_their_headers(tmp_path, capfd):
    write_patients(tmp_path / "set")
    cases = [case for case in CASES if case != "syntax"]
    for number, what in enumerate(cases):
        write_broken(tmp_path / "set" / "sick" / f"bad{number}.dcm", what)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split(tmp_path / "set", tmp_path / "run", on_bad_image="skip")

    skipped = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(b"bad0.dcm" in path.read_bytes() for path in skipped)
    assert leaks_below(tmp_path / "run") == {}
    assert leaks("".join(capfd.readouterr()).encode()) == []


def test_rules_broken_elsewhere_in_the_header_are_not_our_business(tmp_path, capfd):
    header = {"PatientAge": "043Y", "PatientWeight": "123456", "InstanceNumber": "654321", **NAMED}
    path = save(dataset_of([[0, 64, 255]], **header, **IDENTITY), tmp_path / "a.dcm")
    for old, new in (
        (b"043Y", b"SECR"),
        (b"123456", b"SECRET"),
        (b"654321", b"SECRET"),
        (b"19370405", b"SECRET99"),
    ):
        with_bytes(path, old, new)

    [picture] = pictures(path)

    assert row_of(picture) == [0, 64, 255]
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"ISO_IR 192", b"SECRET 192"), (b"SECRET^NAME", b"SECRET^\xff\xfeME")],
    ids=["character set", "name"],
)
def test_text_that_cannot_be_decoded_is_not_our_business(tmp_path, old, new):
    # error) is printed for each such file, and that of an unknown character set quotes it.
    header = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "SECRET^NAME", **IDENTITY}
    path = with_bytes(save(dataset_of([[0, 64, 255]], **header), tmp_path / "a.dcm"), old, new)

    [picture] = pictures(path)

    assert row_of(picture) == [0, 64, 255]


def test_padding_behind_the_pixels_is_no_warning(tmp_path):
    dataset = dataset_of([[0, 64, 255]], **IDENTITY)
    dataset.PixelData += bytes(20)

    [picture] = pictures(save(dataset, tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 64, 255]


def test_only_the_patients_id_leaves_the_header(tmp_path):
    path = save(dataset_of([[1, 2]], **NAMED, PatientID=" SECRET 7 "), tmp_path / "a.dcm")

    [picture] = pictures(path)

    assert picture.patient == "SECRET 7"
    assert picture.kind == "DICOM MONOCHROME2 12 bits"
    assert picture.image.info == {}


def test_model_file_reads_with_the_window_that_it_was_trained_with(model_path, tmp_path):
    header = {"WindowCenter": 2048, "WindowWidth": 4096}
    path = save(dataset_of(np.full((4, 4), 64, np.uint16), **header), tmp_path / "a")
    model = onnx.load(model_path)
    formats = DataConfig(source=tmp_path, dicom=DicomConfig(window=(128, 256))).formats
    model.metadata_props.add(key="kerasmed.formats", value=json.dumps(formats))
    windowed = tmp_path / "windowed.onnx"
    onnx.save(model, windowed)

    assert (OnnxClassifier(model_path).read([path]) == 4).all()  # 64 / 4095 * 255
    assert (OnnxClassifier(windowed).read([path]) == 64).all()
    [record] = predict_files(OnnxClassifier(windowed), [path])
    assert record["probabilities"]["r"] == pytest.approx(1 / 3)
