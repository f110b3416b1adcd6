"""Synthetic images as DICOM, read back by pydicom and by our own reader."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from data.dicom_files import pictures

from kerasmed.data.marks import Mark
from kerasmed.study.release.dicom import write_dicom

RNG = np.random.default_rng(0)
GREY = np.repeat(RNG.integers(0, 256, (15, 15, 1), np.uint8), 3, axis=2)  # an odd number of bytes
COLOUR = RNG.integers(0, 256, (16, 16, 3), np.uint8)


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_pixels_read_back(pixels, tmp_path):
    path = tmp_path / "image.dcm"
    write_dicom(path, pixels, Mark("kerasmed 0.1.0", "5f2c", "000001"))
    stored = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(stored, pixels[..., 0] if pixels is GREY else pixels)
    (picture,) = pictures(path)
    np.testing.assert_array_equal(np.broadcast_to(picture.pixels, pixels.shape), pixels)
    assert "marked as synthetic" in picture.notes


def test_header_says_that_it_is_synthetic_and_names_nobody(tmp_path):
    for number in ("000001", "000002"):
        write_dicom(tmp_path / f"{number}.dcm", COLOUR, Mark("kerasmed 0.1.0", "5f2c", number))
    one, two = (pydicom.dcmread(tmp_path / f"00000{i}.dcm") for i in (1, 2))
    assert (one.SyntheticData, list(one.ImageType)) == ("YES", ["DERIVED", "SECONDARY"])
    assert (one.BurnedInAnnotation, one.ConversionType, one.Modality) == ("NO", "SYN", "OT")
    assert one.ContributingEquipmentSequence[0].Manufacturer == "kerasmed 0.1.0"
    assert str(one.PatientName) == "SYNTHETIC^IMAGE"
    for name in ("PatientID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        assert one[name].value != two[name].value
    assert one.SOPInstanceUID.startswith("2.25.")
    write_dicom(tmp_path / "again.dcm", COLOUR, Mark("kerasmed 0.1.0", "5f2c", "000001"))
    assert (tmp_path / "again.dcm").read_bytes() == (tmp_path / "000001.dcm").read_bytes()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_dciodvfy_finds_no_error(pixels, tmp_path):
    write_dicom(tmp_path / "x.dcm", pixels, Mark("kerasmed 0.1.0", "5f2c", "000001"))
    command = ["dciodvfy", str(tmp_path / "x.dcm")]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    errors = [line for line in said.splitlines() if line.startswith("Error")]
    # Older versions do not know the element Synthetic Data yet.
    assert [line for line in errors if "0x0008,0x001c" not in line] == []
