"""The slices of a NIfTI volume as 8-bit pixels.

Needs nibabel (`pip install 'kerasmed[medical]'`).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed.config import NiftiConfig
from kerasmed.errors import DataError, MachineError

_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
_PERCENTILES = (0.5, 99.5)


def read_slices(path: Path, settings: NiftiConfig) -> Iterator[tuple[int, np.ndarray]]:
    """Number and pixels of each slice asked for.

    The volume is first turned to the nearest of the directions left to right, back to front, low to
    high; a slice is shown with front or top up, and the patient's left side on the left.

    Args:
        path: a .nii or .nii.gz file of three dimensions.
        settings: axis, range of slices, and the values shown black and white.

    Yields:
        The slice's number along the axis, and uint8 (height, width).

    Raises:
        DataError: another number of dimensions, colour, or values that are no numbers.
        MachineError: nibabel is missing.
    """
    try:
        import nibabel
    except ImportError:
        raise MachineError(
            f"{path} is NIfTI: expected the package nibabel, received none; "
            "pip install 'kerasmed[medical]'."
        ) from None
    image: Any = nibabel.load(path)
    shape = tuple(n for n in image.shape[3:] if n != 1)
    if len(image.shape) < 3 or shape or image.get_data_dtype().kind not in "iuf":
        raise DataError(
            f"Cannot read {path}: expected a grey volume of three dimensions, received "
            f"{image.shape} of {image.get_data_dtype()}; save one volume a file."
        )
    with np.errstate(over="ignore"):
        volume = nibabel.as_closest_canonical(image).get_fdata(dtype=np.float32)
    volume = np.moveaxis(volume.reshape(volume.shape[:3]), _AXES[settings.axis], 0)
    if not np.isfinite(volume).all():
        raise DataError(
            f"Cannot read {path}: expected numbers, received NaN or infinity among its values; "
            "replace them by the background's value."
        )
    low, high = settings.intensity or np.percentile(volume, _PERCENTILES)
    first, last = settings.slices
    count = len(volume)
    start, stop = (round(share * count, 6) for share in (first, last))
    for number in range(min(math.floor(start), count - 1), math.ceil(stop)):
        grey = np.clip((volume[number] - low) / max(high - low, 1e-12), 0, 1)
        yield number, np.rint(np.rot90(grey) * 255).astype(np.uint8)
