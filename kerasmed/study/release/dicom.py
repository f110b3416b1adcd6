"""DICOM Secondary Capture of synthetic images. Needs pydicom (extra ``medical``)."""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from kerasmed.data.marks import Mark
from kerasmed.errors import MachineError
from kerasmed.files import written_aside

if TYPE_CHECKING:
    from pydicom import Dataset

_PATIENT: Final = "SYNTHETIC^IMAGE"


def write_dicom(path: Path, pixels: np.ndarray, mark: Mark) -> None:
    """Write one image, see ``dicom_of``."""
    dataset = dicom_of(pixels, mark)
    with written_aside(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def dicom_of(pixels: np.ndarray, mark: Mark) -> "Dataset":
    """One image, of a synthetic patient of its own.

    Grey images are MONOCHROME2, others RGB, of 8 bits and uncompressed. All UIDs follow from the
    mark, so that the same release has the same ones.

    Args:
        pixels: uint8 (height, width, 3).
        mark: generator, set and number of the image.

    Raises:
        MachineError: pydicom is missing.

    Source: DICOM PS3.3, A.8.1 (Secondary Capture Image IOD), C.12.1 (SOP Common: Synthetic Data).
    """
    try:
        from pydicom import Dataset, uid
        from pydicom.dataset import FileMetaDataset
    except ImportError:
        raise MachineError(
            "DICOM files need the package pydicom; run pip install 'kerasmed[medical]'."
        ) from None

    def identifier(*names: str) -> str:
        name = "/".join(("kerasmed", mark.set_id, *names))
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"

    is_grey = bool((pixels == pixels[..., :1]).all())
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.FileMetaInformationVersion = b"\0\1"
    dataset.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = uid.UID(identifier("implementation"))
    dataset.file_meta.ImplementationVersionName = "KERASMED"
    values = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["DERIVED", "SECONDARY"],
        "SyntheticData": "YES",
        "SOPClassUID": uid.SecondaryCaptureImageStorage,
        "SOPInstanceUID": identifier("image", mark.number),
        "StudyDate": "",
        "StudyTime": "",
        "AccessionNumber": "",
        "Modality": "OT",
        "ConversionType": "SYN",
        "Manufacturer": mark.generator[:64],
        "ReferringPhysicianName": "",
        "StudyDescription": "Synthetic image of no patient",
        "DerivationDescription": "Drawn by a generative model; no scan or photograph of a person",
        "PatientName": _PATIENT,
        "PatientID": f"{mark.set_id}-{mark.number}",
        "PatientBirthDate": "",
        "PatientSex": "",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "Synthetic: there is no patient",
        "StudyInstanceUID": identifier("study", mark.number),
        "SeriesInstanceUID": identifier("series", mark.number),
        "StudyID": "1",
        "Laterality": "",
        "SeriesNumber": "1",
        "InstanceNumber": "1",
        "PatientOrientation": "",
        "SamplesPerPixel": 1 if is_grey else 3,
        "PhotometricInterpretation": "MONOCHROME2" if is_grey else "RGB",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "PixelData": np.ascontiguousarray(pixels[..., 0] if is_grey else pixels).tobytes(),
    }
    for name, value in values.items():
        setattr(dataset, name, value)
    if not is_grey:
        dataset.PlanarConfiguration = 0
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\0"
    dataset["PixelData"].VR = "OB"
    purpose, equipment = Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109102", "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    equipment.Manufacturer = mark.generator[:64]
    equipment.ContributionDescription = "Drew the image"
    dataset.ContributingEquipmentSequence = [equipment]
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset
