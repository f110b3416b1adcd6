"""The slices of a NIfTI volume as pictures. Needs nibabel (`pip install 'kerasmed[medical]'`)."""

import gzip
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerasmed.data.config import Formats
from kerasmed.data.picture import Picture, own_range, to_grey, to_rgb, without_missing
from kerasmed.errors import DataError

_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
_SECOND_HEADER = 540  # bytes of the NIfTI-2 header, which begins with this number
_LEAST_OFFSET = {348: 352, _SECOND_HEADER: 544}  # byte where values may begin, by header size
_GREATEST_OFFSET = 2**28  # extensions of the header take tens of megabytes at most


def read_slices(path: Path, formats: Formats) -> Iterator[Picture]:
    """The slices of a volume that the settings choose.

    The volume is first turned to the nearest standard directions: left to right, back to front, low
    to high. A slice has front or top up, and the patient's left side on the left. A volume of one
    slice yields that slice, whatever the axis.

    Args:
        path: a .nii or .nii.gz file of two or three dimensions.
        formats: axis, range of slices, values shown black and white, and what NaN stands for.

    Raises:
        DataError: the file has another number of dimensions, or colour.
        ModuleNotFoundError: nibabel is missing.
    """
    volumes, is_plain, notes = _read(path, formats.nifti.frames == "split")
    volumes = without_missing(volumes, formats, notes)
    single = [axis for axis, length in enumerate(volumes.shape[:3]) if length == 1]
    axis = single[0] if len(single) == 1 else _AXES[formats.nifti.axis]
    volumes = np.moveaxis(volumes, (3, axis), (0, 1))
    uses_own_range = formats.nifti.range == "volume"
    grey_range = (0.0, 255.0) if is_plain else formats.grey_range
    count = volumes.shape[1]
    start, stop = (round(fraction * count, 6) for fraction in formats.nifti.slices)
    slices = range(min(math.floor(start), count - 1), math.ceil(stop))
    for index, volume in enumerate(volumes):
        black, white = own_range(volume) if uses_own_range or grey_range is None else grey_range
        for number in slices:
            values = np.rot90(volume[number])
            yield Picture(
                to_rgb(to_grey(values, black, white)),
                "NIfTI",
                index * count + number,
                values=None if is_plain else values,
                needs_range=grey_range is None and not uses_own_range,
                notes=tuple(notes),
            )


def count_values(path: Path) -> int:
    """Number of values in a file, as its header states it."""
    with _open(path) as stream:
        return math.prod(_header(stream).get_data_shape())


def _open(path: Path) -> Any:
    """The file as a stream, decompressed if its content is gzip, whatever its name says."""
    with path.open("rb") as stream:
        is_gzip = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path) if is_gzip else path.open("rb")


def _read(path: Path, several: bool) -> tuple[np.ndarray, bool, list[str]]:
    """The volumes in the nearest standard directions, whether they are 0 to 255, and notes.

    nibabel's own loader refuses headers for faults that do not affect the values.

    Args:
        path: NIfTI file.
        several: whether a file of several volumes is accepted.

    Returns:
        float32 (x, y, z, volumes); whether the values are 0 to 255 as stored; notes.
    """
    import nibabel
    from nibabel import volumeutils

    nibabel.imageglobals.logger.setLevel(logging.CRITICAL)  # it prints the content of headers
    with _open(path) as stream:
        header = _header(stream)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        count = math.prod(shape[3:])
        if len(shape) < 2 or dtype.kind not in "iuf" or min(shape) < 1:
            raise DataError(
                f"Cannot read {path}: expected a grey volume of three dimensions or a picture of "
                f"two, received {tuple(shape)} of {dtype}; convert or remove it."
            )
        if count > 1 and not several:
            raise DataError(
                f"Cannot read {path}: expected one volume, received {count} of {shape[:3]}; "
                "set data.nifti.frames: split to take each."
            )
        shape = (*(*shape[:3], 1)[:3], count)
        least, offset = _LEAST_OFFSET[int(header.sizeof_hdr)], float(header["vox_offset"])
        offset = max(int(offset), least) if math.isfinite(offset) else least
        if offset > _GREATEST_OFFSET:
            raise DataError(
                f"Cannot read {path}: expected values that begin within {_GREATEST_OFFSET:,} "
                f"bytes, received the vox_offset {offset:,}; correct the header or remove it."
            )
        stored = volumeutils.array_from_file(shape, dtype, stream, offset, mmap=False)
    with np.errstate(over="ignore", invalid="ignore"):
        affine, notes = _affine(header)
        volume = _rescaled(stored, header)
        is_plain = volume.dtype == np.uint8
        volume = volume.astype(np.float32)
    orientation = nibabel.orientations.io_orientation(affine)
    if np.isfinite(orientation).all():
        volume = nibabel.orientations.apply_orientation(volume, orientation)
    return volume, is_plain, notes


def _header(stream: Any) -> Any:
    """The header of NIfTI-1 or 2, unchecked: many faults do not affect the values.

    nibabel's own reader also reads the extensions, to the end of the file.
    """
    import nibabel

    sizes = np.frombuffer(stream.read(4), "<i4")
    is_second = _SECOND_HEADER in (*sizes, *sizes.byteswap())
    stream.seek(0)
    kind = nibabel.Nifti2Header if is_second else nibabel.Nifti1Header
    return kind(stream.read(kind.template_dtype.itemsize), check=False)


def _rescaled(stored: np.ndarray, header: Any) -> np.ndarray:
    """Values after slope and intercept; a slope of 0 or NaN means neither applies (nifti1.h)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    intercept = intercept if math.isfinite(intercept) else 0.0
    if not math.isfinite(slope) or slope == 0 or (slope, intercept) == (1, 0):
        return stored
    return stored.astype(np.float64) * slope + intercept


def _affine(header: Any) -> tuple[np.ndarray, list[str]]:
    """The first usable of sform, qform and voxel sizes, in the standard's order, and notes."""
    notes: list[str] = []
    for code, read in (
        ("sform_code", header.get_sform),
        ("qform_code", header.get_qform),
    ):
        if int(header[code]) <= 0:
            continue
        try:
            affine = read()
        except Exception:  # nibabel.HeaderDataError, ValueError, LinAlgError
            affine = np.full((4, 4), np.nan)
        if _is_usable(affine):
            return affine, notes
        notes.append(f"an invalid {code[:5]} is ignored")
    affine = header.get_base_affine()
    return (affine if _is_usable(affine) else np.eye(4)), notes


def _is_usable(affine: np.ndarray) -> bool:
    directions = affine[:3, :3]
    if not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(directions, axis=0)
    return bool((lengths > 0).all() and abs(np.linalg.det(directions / lengths)) > 1e-3)
