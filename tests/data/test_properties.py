"""Headers, metadata and names at random: neither a traceback nor a loss without a word.

`make test` draws a hundred of each, `make test-all` thousands (pytest's --hypothesis-profile).
"""

import contextlib
import io
import re
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from kerasmed.data.config import DataConfig, Formats, SplitConfig
from kerasmed.data.entries import folder_name, label_of_folder
from kerasmed.data.measuring import read_measurements
from kerasmed.data.picture import FEW_LEVELS, Picture
from kerasmed.data.readers import read_pictures
from kerasmed.data.remarks import remarks
from kerasmed.errors import KerasmedError

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")

from pydicom import Dataset, uid  # noqa: E402
from pydicom.dataset import FileMetaDataset  # noqa: E402

SIZE = 16


def read(path: Path, formats: Formats | None = None) -> list[Picture] | None:
    """The pictures of a file; None where it is refused, in one line that names it."""
    try:
        return list(read_pictures(path, formats))
    except KerasmedError as error:
        message = str(error)
    assert str(path) in message
    assert re.fullmatch(r"[^\n]{30,900}\.", message)
    return None


def check_levels(path: Path, pictures: list[Picture]) -> None:
    """Where a picture shows few of the levels that its file holds, the set's remarks say so."""
    for picture in pictures:
        shown = len(np.unique(np.asarray(picture.image)))
        held = 0 if picture.values is None else len(np.unique(picture.values))
        if held < 2 * FEW_LEVELS or shown >= FEW_LEVELS:
            continue
        for name in "ab":
            folder = path.parent / "set" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / path.name).write_bytes(path.read_bytes())
        data = DataConfig(source=path.parent / "set")
        measurements = read_measurements(data, path.parent / "prints")
        lines = remarks(measurements, measurements.common_range(), data, SplitConfig())
        assert any("grey levels" in line and "data." in line for line in lines), (shown, held)
        return


# DICOM

NUMBER = st.one_of(
    st.floats(-5000, 5000).map(lambda value: f"{value:.6g}"),
    st.sampled_from(["", "0", "-1", "1", "NaN", "inf", "50,5", "1e400", "two", "  40 ", "1e-30"]),
)
SEVERAL = st.lists(NUMBER, min_size=1, max_size=3).map("\\".join)
SHORT = st.integers(0, 2**16 - 1)


@st.composite
def tables(draw: st.DrawFn) -> list[Dataset]:
    item = Dataset()
    count = draw(st.sampled_from([0, 1, 3, 256, 4096]))
    named = draw(st.sampled_from([count, 0, 7, 65535]))
    bits = draw(st.sampled_from([0, 8, 12, 16, 99]))
    if draw(st.booleans()):
        item.add_new("LUTDescriptor", "US", [named, draw(SHORT), bits])
    if draw(st.booleans()):
        entries = np.linspace(0, draw(SHORT), count).astype("<u2").tobytes()
        item.add_new("LUTData", "OW", entries)
    return [item] if draw(st.booleans()) else []


HEADER = {
    "WindowCenter": ("DS", SEVERAL),
    "WindowWidth": ("DS", SEVERAL),
    "RescaleSlope": ("DS", NUMBER),
    "RescaleIntercept": ("DS", NUMBER),
    "VOILUTFunction": ("CS", st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "CUBIC", ""])),
    "PixelPaddingValue": ("US", st.one_of(st.none(), SHORT)),
    "NumberOfFrames": ("IS", st.sampled_from(["1", "", "0", "-3", "many", "1.0"])),
    "PlanarConfiguration": ("US", st.sampled_from([None, 0, 1, 7])),
    "VOILUTSequence": ("SQ", tables()),
    "ModalityLUTSequence": ("SQ", tables()),
    "PresentationLUTShape": ("CS", st.sampled_from(["IDENTITY", "INVERSE", "?"])),
    "PatientID": ("LO", st.text(max_size=20)),
}
PIXELS = {
    "SamplesPerPixel": ("US", st.sampled_from([None, 1, 2, 3])),
    "PhotometricInterpretation": (
        "CS",
        st.sampled_from(["MONOCHROME1", "MONOCHROME2", "RGB", "", "GREY"]),
    ),
    "BitsStored": ("US", st.sampled_from([None, 0, 8, 10, 12, 16, 99])),
    "HighBit": ("US", st.sampled_from([None, 0, 7, 11, 15, 99])),
    "PixelRepresentation": ("US", st.sampled_from([None, 0, 1, 5])),
    "BitsAllocated": ("US", st.sampled_from([None, 8, 16, 32])),
}
SYNTAX = st.sampled_from([uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
VALUES = np.random.default_rng(0).permutation(SIZE * SIZE).reshape(SIZE, SIZE)


def write_dicom(path: Path, elements: dict[str, Any], syntax: Any, most: int) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.CTImageStorage, "1.2.3"
    dataset.Rows = dataset.Columns = SIZE
    for name, (vr, value) in elements.items():
        dataset.add_new(name, vr, value)
    pixels = (VALUES * (most // VALUES.max())).astype("<u2")
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    dataset.save_as(path, enforce_file_format=True)


def drawn(kinds: dict[str, tuple[str, st.SearchStrategy]]) -> st.SearchStrategy:
    """Some of the elements, each with its kind and a value."""
    return st.fixed_dictionaries(
        {}, optional={n: st.tuples(st.just(vr), s) for n, (vr, s) in kinds.items()}
    )


@pytest.fixture(autouse=True)
def values_as_they_are(monkeypatch):
    """Lets pydicom write what breaks its rules."""
    monkeypatch.setattr(pydicom.config.settings, "_writing_validation_mode", pydicom.config.IGNORE)


@given(drawn(HEADER), SYNTAX, st.sampled_from([255, 900, 4095, 65535]))
def test_grey_values_survive_any_header_that_the_pixels_do_not_need(header, syntax, most):
    whole = {
        "SamplesPerPixel": ("US", 1),
        "PhotometricInterpretation": ("CS", "MONOCHROME2"),
        "BitsAllocated": ("US", 16),
        "BitsStored": ("US", 16),
        "HighBit": ("US", 15),
        "PixelRepresentation": ("US", 0),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        try:
            write_dicom(path, {**header, **whole}, syntax, most)
        except (ValueError, TypeError, OverflowError):  # not even pydicom writes such
            assume(False)
        pictures = read(path)

        assert pictures is not None
        [picture] = pictures
        assert picture.image.size == (SIZE, SIZE)
        check_levels(path, pictures)


@given(drawn({**HEADER, **PIXELS}), SYNTAX, st.booleans())
def test_any_header_is_read_or_refused(elements, syntax, whole):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        try:
            write_dicom(path, elements, syntax, 4095)
        except (ValueError, TypeError, OverflowError, AttributeError):
            assume(False)
        if not whole:
            path.write_bytes(path.read_bytes()[132:])
        pictures = read(path)

        if pictures is not None:
            check_levels(path, pictures)


# EXIF


@st.composite
def exif_blocks(draw: st.DrawFn) -> bytes:
    """TIFF 6.0, section 2: some entries of any tag, type, count and value, or bytes at random."""
    if draw(st.booleans()):
        return b"Exif\0\0" + draw(st.binary(max_size=64))
    order = draw(st.sampled_from(["<", ">"]))
    tags = st.sampled_from([0x0112, 0x011A, 0x8769, 0x927C, 0x9204, 0xA005, 0x8825, 0x0100])
    entry = st.tuples(tags, st.integers(0, 14), st.integers(0, 2**31), st.integers(0, 2**32 - 1))
    entries = draw(st.lists(entry, max_size=5))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    packed = b"".join(struct.pack(order + "HHII", *values) for values in entries)
    return b"Exif\0\0" + start + struct.pack(order + "H", len(entries)) + packed + bytes(4)


PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
TURNED = [np.rot90(image, k) for image in (PHOTOGRAPH, PHOTOGRAPH[:, ::-1]) for k in range(4)]


@given(exif_blocks(), st.sampled_from(["PNG", "WEBP", "TIFF"]))
def test_any_exif_block_leaves_the_pixels(block, kind):
    stream = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    if kind == "TIFF":  # whose tags are those of EXIF: only a strange orientation
        options["tiffinfo"] = {0x0112: struct.unpack_from("<H", block + bytes(8), 6)[0]}
    else:
        options["exif"] = block
    with contextlib.suppress(Exception):  # what Pillow does not write is not tried
        Image.fromarray(PHOTOGRAPH).save(stream, kind, **options)
    assume(stream.getvalue())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{kind.lower()}"
        path.write_bytes(stream.getvalue())
        pictures = read(path)

    assert pictures is not None
    grey = pictures[0].pixels[..., 0]
    assert any(np.array_equal(grey, turned) for turned in TURNED)


# NIfTI

NEEDED = {"sizeof_hdr", "dim", "datatype", "vox_offset", "scl_slope", "scl_inter"}
FIELDS = {
    name: (dtype, offset)
    for name, (dtype, offset) in nibabel.Nifti1Header.template_dtype.fields.items()
    if name not in NEEDED
}
VOLUME = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) * 7


def nifti_of(changes: dict[str, bytes]) -> bytes:
    content = bytearray(nibabel.Nifti1Image(VOLUME, np.eye(4)).to_bytes())
    for name, value in changes.items():
        dtype, offset = nibabel.Nifti1Header.template_dtype.fields[name]
        content[offset : offset + dtype.itemsize] = value.ljust(dtype.itemsize, b"\0")[
            : dtype.itemsize
        ]
    return bytes(content)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.binary(max_size=32), max_size=8))
def test_values_survive_any_nifti_header_that_they_do_not_need(changes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii"
        path.write_bytes(nifti_of(changes))
        pictures = read(path)

        assert pictures is not None
        values = np.concatenate([picture.values.ravel() for picture in pictures])
        assert np.array_equal(np.sort(values), np.sort(VOLUME.ravel()))


@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), max_size=12), st.booleans())
def test_any_nifti_header_is_read_or_refused(changes, cut):
    content = bytearray(nifti_of({}))
    for position, value in changes:
        content[position] = value
    # A header that promises gigabytes makes nibabel ask for them.
    assume(int(np.prod(np.frombuffer(bytes(content[42:56]), "<i2").astype(float))) < 1e7)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii"
        path.write_bytes(bytes(content[:-9] if cut else content))
        pictures = read(path)

        if pictures is not None:
            check_levels(path, pictures)


# Names

LABELS = st.text(
    st.characters(blacklist_categories=["Cs"]) | st.sampled_from('$_%[]{}\\/.:*?"<>|#&~^ -'),
    min_size=1,
    max_size=12,
)


@given(LABELS)
def test_a_label_survives_as_the_name_of_a_folder(label):
    name = folder_name(label)

    assert label_of_folder(name) == label
    assert not name.startswith(".")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).mkdir()
        assert [path.name for path in Path(folder).iterdir()] == [name]


@given(st.lists(LABELS, min_size=2, max_size=2, unique_by=lambda label: label.strip()))
def test_any_labels_of_a_table_are_read_or_refused(labels):
    import csv

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with (root / "set.csv").open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(["path", "label"])
            for i, label in enumerate(labels):
                Image.fromarray(PHOTOGRAPH + np.uint8(i)).save(root / f"{i}.png")
                table.writerow([f"{i}.png", label])
        try:
            measurements = read_measurements(DataConfig(source=root / "set.csv"), root / "prints")
            classes = sorted(measurements.classes)
        except KerasmedError as error:
            classes = [str(error)]
    if len(classes) == 1:
        assert str(root) in classes[0]
    else:
        assert classes == sorted(label.strip() for label in labels)
