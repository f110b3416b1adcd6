"""Functions that write DICOM files and read them back, for the tests of DICOM."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasmed.data.config import DicomConfig, Formats
from kerasmed.data.readers import Picture, read_pictures
from kerasmed.errors import DataError, KerasmedError

# Skips every file that imports this module if pydicom is missing.
pytest.importorskip("pydicom")

from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

COLOUR = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
FRAMES = np.array([[[0, 100, 204]], [[1, 2, 3]], [[204, 50, 0]]], dtype=np.uint16)
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


def write_dicom(dataset: Dataset, path: Path) -> Path:
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


def pictures(path: Path, **settings: Any) -> list[Picture]:
    own = {name: settings.pop(name) for name in ("grey_range", "nan_value") if name in settings}
    return list(read_pictures(path, Formats(dicom=DicomConfig(**settings), **own)))


def row_of(picture: Picture) -> list[int]:
    """The first row of a grey picture."""
    pixels = np.asarray(picture.image)
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


def shown_row(
    path: Path, row: Any, window: tuple[float, float] | None = None, **header: Any
) -> list[int]:
    """The row of grey values that a file with the given row and header is shown as."""
    row = row if isinstance(row, np.ndarray) else np.array(row, dtype=np.uint16)
    [picture] = pictures(write_dicom(dataset_of(row[None], **header), path), window=window)
    return row_of(picture)


def refusal(path: Path, error: type[KerasmedError] = DataError, **settings: Any) -> str:
    with pytest.raises(error) as caught:
        pictures(path, **settings)
    message = str(caught.value)
    assert message.startswith((f"Cannot read {path}: ", f"{path} is DICOM: "))
    assert "\n" not in message
    assert any(word in message for word in WORDS)
    return message
