"""The test files that pydicom and nibabel ship are read, or refused with a cause."""

from pathlib import Path

import numpy as np
import pytest

from kerasmed.data.config import DicomConfig, Formats, NiftiConfig
from kerasmed.data.readers import read_pictures
from kerasmed.errors import DataError

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

PYDICOM = Path(pydicom.__file__).parent / "data"
NIBABEL = Path(nibabel.__file__).parent / "tests" / "data"
NO_DATA = {".py", ".pyc", ".md", ".json", ".txt", ".zip"}
FILES = [
    path
    for folder in (PYDICOM, NIBABEL)
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.suffix not in NO_DATA
]
# What may be wrong with such a file; "broken" is none of these.
CAUSES = (
    "received a DICOM file without them",  # pixels: reports, plans, structures, directories
    "no installed library decodes its compression (",
    "expected the numbers of rows and columns",
    "the file is cut off",
    "unsupported file extension",
)
# A space before the first element; values of a bit are cut off in the middle of a stream.
BROKEN = {"no_meta.dcm"}


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_of_other_projects_are_read_or_refused_with_a_cause(path):
    formats = Formats(dicom=DicomConfig(frames="split"), nifti=NiftiConfig(frames="split"))
    try:
        pictures = list(read_pictures(path, formats))
    except DataError as error:
        message = str(error)
        assert message.startswith(f"Cannot read {path}: ")
        assert "\n" not in message
        assert path.name in BROKEN or any(cause in message for cause in CAUSES), message
        return
    assert pictures
    assert {np.asarray(picture.image).dtype for picture in pictures} == {np.dtype(np.uint8)}
    assert {picture.image.mode for picture in pictures} == {"RGB"}


def test_there_are_such_files():
    assert len(FILES) > 200
