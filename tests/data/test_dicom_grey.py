"""Grey values of DICOM files follow the standard: rescaling, windows, lookup tables."""

from functools import partial

import numpy as np
import pytest
from dicom_files import IDENTITY, dataset_of, pictures, row_of, shown_row, with_bytes, write_dicom
from pydicom import Dataset, uid


def table(entries: list[int], first: int = 0, bits: int = 8, vr: str = "US") -> list[Dataset]:
    """A modality or VOI lookup table (PS3.3 C.11.1.1 and C.11.2.1.1)."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    packed = np.array(entries, dtype="<u2").tobytes()
    item.add_new("LUTData", vr, packed if vr == "OW" else entries)
    return [item]


@pytest.fixture
def shown(tmp_path):
    """The first row that a file with the given row and header is shown as."""
    return partial(shown_row, tmp_path / "a")


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
    # LINEAR has no widths below 1, so such a window is shown as LINEAR_EXACT:
    # 0.01 * stored is 0, 0.1 and 0.5 of a window from 0 to 0.5.
    header = {"RescaleSlope": 0.01, "RescaleIntercept": 0}

    assert shown([0, 10, 50, 4095], window=(0.25, 0.5), **header) == [0, 51, 255, 255]


BAD_NUMBERS = [b"0   ", b"-5  ", b"NaN ", b"inf ", b"50,5", b"wide", b"1e9x"]


@pytest.mark.parametrize("width", BAD_NUMBERS)
def test_width_that_is_none_leaves_the_range(tmp_path, width):
    dataset = dataset_of([[0, 64, 255]], WindowCenter=100, WindowWidth="4321")
    path = with_bytes(write_dicom(dataset, tmp_path / "a.dcm"), b"4321", width)

    [alone] = pictures(path)
    [ranged] = pictures(path, grey_range=(0, 255))

    assert (alone.needs_range, ranged.needs_range) == (True, False)
    assert row_of(ranged) == [0, 64, 255]
    assert alone.notes == ("a window with an invalid centre or width is ignored",)


@pytest.mark.parametrize("width", BAD_NUMBERS)
def test_after_a_width_that_is_none_comes_the_next_window(tmp_path, width):
    header = {"WindowCenter": [50, 128], "WindowWidth": ["4321", 256]}
    path = write_dicom(dataset_of([[0, 64, 255]], **header), tmp_path / "a.dcm")

    [picture] = pictures(with_bytes(path, b"4321", width))

    assert row_of(picture) == [0, 64, 255]
    assert len(picture.notes) == 1


def test_window_of_an_unknown_function_leaves_the_range(tmp_path):
    dataset = dataset_of([[0, 64, 255]], VOILUTFunction="CUBIC", **IDENTITY)

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"), grey_range=(0, 510))

    assert row_of(picture) == [0, 32, 128]
    assert picture.notes == ("a window with an unknown VOI LUT function is ignored",)


def test_after_a_window_that_is_none_comes_the_table(tmp_path):
    dataset = dataset_of(
        [[0, 1, 2]], WindowCenter=0, WindowWidth=0, VOILUTSequence=table([0, 100, 200])
    )

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 100, 200]


@pytest.mark.parametrize("entries", [[], None])
def test_table_without_entries_leaves_the_range(tmp_path, entries):
    items = table([1, 2])
    if entries is None:
        del items[0].LUTData
    else:
        items[0].LUTData = entries
    dataset = dataset_of([[0, 64, 255]], VOILUTSequence=items)

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"), grey_range=(0, 255))

    assert row_of(picture) == [0, 64, 255]
    assert picture.notes == ("an empty lookup table is ignored",)


# 10 and 20 stored are 10 and 20 with the slope's default, 1010 and 1020 with an intercept alone.
@pytest.mark.parametrize("slope", BAD_NUMBERS[:1] + BAD_NUMBERS[2:])
def test_slope_that_is_none_is_one_and_the_intercept_is_kept(tmp_path, slope):
    header = {"RescaleSlope": "4321", "RescaleIntercept": 1000}
    path = with_bytes(
        write_dicom(dataset_of([[10, 20]], **header), tmp_path / "a.dcm"), b"4321", slope
    )

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
    path = write_dicom(dataset_of([[10, 20]], **header), tmp_path / "a.dcm")

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

    [picture] = pictures(write_dicom(dataset, tmp_path / "a"))

    assert row_of(picture) == [0, 128, 255]


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


def test_a_stale_window_over_8_bits_is_seen(tmp_path):
    row = np.arange(256, dtype=np.uint8)[None]
    dataset = dataset_of(row, bits=8, WindowCenter=2048, WindowWidth=4096)

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

    assert len(set(row_of(picture))) == 17
    assert len(np.unique(picture.values)) == 256


def test_padding_does_not_count_for_the_range(tmp_path):
    row = np.array([[-2000] * 50 + list(range(100))], np.int16)
    header = {"PixelPaddingValue": -2000, "bits": 16, "signed": True}

    [picture] = pictures(write_dicom(dataset_of(row, **header), tmp_path / "a.dcm"))

    assert np.isnan(picture.values).sum() == 50
    assert row_of(picture)[:50] == [0] * 50
    assert len(set(row_of(picture)[50:])) == 100


def test_missing_values_are_black_in_a_window_of_monochrome1(tmp_path):
    dataset = dataset_of([[1, 2, 3]], PhotometricInterpretation="MONOCHROME1")
    dataset.WindowCenter, dataset.WindowWidth = 0.5, 1
    dataset.VOILUTFunction = "LINEAR_EXACT"
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.FloatPixelData = np.float32([0, np.nan, 1]).tobytes()
    dataset.BitsAllocated = 32

    assert row_of(pictures(write_dicom(dataset, tmp_path / "a.dcm"))[0]) == [255, 0, 0]


def test_negative_slope_with_a_window(shown):
    # -stored + 255 is 255, 155, 0 and -45 of the identity window.
    header = {"RescaleSlope": -1, "RescaleIntercept": 255, **IDENTITY}

    assert shown([0, 100, 255, 300], **header) == [255, 155, 0, 0]


def test_negative_slope_without_a_window(shown):
    # -stored is 0, -1024, -2049 and -4095, and the least of them is black.
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

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 51, 153, 255]
    assert not picture.needs_range


def test_voi_table_from_a_large_value_on_where_none_is_negative(tmp_path):
    items = table([0, 100, 200, 255], first=65000)
    dataset = dataset_of([[0, 65001, 65002, 65535]], bits=16, VOILUTSequence=items)

    assert row_of(pictures(write_dicom(dataset, tmp_path / "a.dcm"))[0]) == [0, 100, 200, 255]


@pytest.mark.parametrize("bits", [8, 16])
def test_voi_table_of_other_bits_than_its_descriptor_names(tmp_path, bits):
    # 12 bits, whether it says 8 (all white) or 16 (nearly black).
    items = table([0, 819, 2457, 4095], bits=bits)

    [picture] = pictures(
        write_dicom(dataset_of([[0, 1, 2, 3]], VOILUTSequence=items), tmp_path / "a.dcm")
    )

    assert row_of(picture) == [0, 51, 153, 255]
    assert len(picture.notes) == 1


def test_voi_table_of_a_big_endian_file(tmp_path):
    items = table([0, 819, 2457, 4095], bits=12)
    items[0].add_new("LUTData", "OW", np.array([0, 819, 2457, 4095], ">u2").tobytes())
    dataset = dataset_of(np.array([[0, 1, 2, 3]], ">u2"), VOILUTSequence=items)
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

    assert row_of(picture) == [0, 51, 153, 255]


def test_voi_table_of_bytes_packed_into_words(tmp_path):
    items = table([1, 2], bits=8)
    items[0].LUTDescriptor = [4, 0, 8]
    items[0].add_new("LUTData", "OW", bytes([0, 51, 153, 255]))

    [picture] = pictures(
        write_dicom(dataset_of([[0, 1, 2, 3]], VOILUTSequence=items), tmp_path / "a.dcm")
    )

    assert row_of(picture) == [0, 51, 153, 255]


def test_voi_table_of_10_bits(shown):
    # x / 1023 * 255: 49.9 at 200, 199.4 at 800.
    header = {"VOILUTSequence": table([0, 200, 800, 1023], first=10, bits=10)}

    assert shown(VOI_ROW, **header) == [0, 0, 50, 199, 255, 255]


@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
def test_table_of_words(shown, name):
    # OW is the value representation that most files use here.
    header = {name: table(VOI_ENTRIES, first=10, vr="OW")}

    assert shown(VOI_ROW, **header) == [*VOI_SHOWN, 255, 255]


def test_table_in_a_file_of_implicit_vr(tmp_path):
    dataset = dataset_of([VOI_ROW], VOILUTSequence=table(VOI_ENTRIES, first=10))
    dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian

    [picture] = pictures(write_dicom(dataset, tmp_path / "a.dcm"))

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


@pytest.mark.parametrize(("nan_value", "grey"), [(None, 0), (0.5, 128)])
def test_float_pixels_are_shown_in_the_range(tmp_path, nan_value, grey):
    dataset = dataset_of([[1, 2, 3]])
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.FloatPixelData = np.float32([0.2, np.nan, 1]).tobytes()
    dataset.BitsAllocated = 32
    path = write_dicom(dataset, tmp_path / "a.dcm")

    [picture] = pictures(path, grey_range=(0, 1), nan_value=nan_value)

    assert row_of(picture) == [51, grey, 255]
    assert bool(picture.notes) == (nan_value is None)
