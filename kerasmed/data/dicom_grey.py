"""Stored values of a DICOM frame as grey levels: rescaling, window, lookup tables.

PS3.3 C.11.1 and C.11.2. An unusable element is ignored, and a note says so.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasmed.data.config import Formats
from kerasmed.data.picture import Picture, own_range, to_grey, to_rgb, without_missing

if TYPE_CHECKING:
    from pydicom import Dataset

GREY = ("MONOCHROME1", "MONOCHROME2")
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_TEXT = ("DS", "IS", "LO", "SH", "ST", "LT", "UN", None)  # value representations of numbers in text
_PLAIN_BITS = 8  # values of at most this depth are shown as they are if there is no window


@dataclass(frozen=True)
class _Window:
    centre: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True)
class _Table:
    """A lookup table: ``entries[value - first]``, clipped to its ends; white is its full scale."""

    first: int
    entries: np.ndarray
    white: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        positions = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[positions.astype(np.int64)]


def integer(dataset: "Dataset", name: str, default: int) -> int:
    """A whole number from the header; the default if it is missing, empty or not a number."""
    try:
        value = dataset.get(name)
        return default if value in (None, "") else int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def grey_picture(stored: np.ndarray, dataset: "Dataset", formats: Formats, kind: str) -> Picture:
    """A grey frame as a picture.

    The first of these that exists decides: the window of the settings, the file's first usable
    window or lookup table, the stored range if it has at most 8 bits, the range of the settings.
    MONOCHROME1 is inverted, so that air is dark in every file.

    Args:
        stored: values as stored, (height, width).
        dataset: group 0028 of the header, with the frame's own elements.
        formats: the settings.
        kind: the picture's ``kind``.
    """
    notes: list[str] = []
    values = _rescaled(stored, dataset, notes)
    values = without_missing(values, formats, notes)
    present = _without_padding(values, stored, dataset)
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    grey = _by_window(values, dataset, formats, notes)
    bits = integer(dataset, "BitsStored", 16)
    is_plain = bits <= _PLAIN_BITS and stored.dtype.kind in "iu"
    needs_range, is_windowed = False, grey is not None
    if grey is None:
        if is_plain:
            ends = _stored_ends(dataset, bits)
            black, white = sorted(_rescaled(ends, dataset, []).tolist())
        else:
            needs_range = formats.grey_range is None
            black, white = formats.grey_range or own_range(present)
        grey = to_grey(values, black, white, inverted)
    elif inverted:
        grey = np.where(np.isnan(values), np.uint8(0), 255 - grey)
    return Picture(
        to_rgb(grey),
        kind,
        values=None if is_plain and not is_windowed else present,
        needs_range=needs_range,
        inverted=inverted,
        notes=tuple(notes),
    )


def _stored_ends(dataset: "Dataset", bits: int) -> np.ndarray:
    low = -(2 ** (bits - 1)) if integer(dataset, "PixelRepresentation", 0) == 1 else 0
    return np.array([low, low + 2**bits - 1])


def _rescaled(stored: np.ndarray, dataset: "Dataset", notes: list[str]) -> np.ndarray:
    """Values after the modality table, or else slope and intercept: float32."""
    signed = integer(dataset, "PixelRepresentation", 0) == 1
    # The full scale of this table is not needed, so its depth is not checked.
    for table in _tables(dataset, "ModalityLUTSequence", signed, notes, checks_bits=False):
        return table(stored).astype(np.float32)
    slope, intercept = (
        _factor(dataset, name, default, notes)
        for name, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    with np.errstate(over="ignore", invalid="ignore"):
        return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def _factor(dataset: "Dataset", name: str, default: float, notes: list[str]) -> float:
    if name not in dataset or dataset.get_item(name).value in (None, "", b""):
        return default
    numbers = _numbers(dataset, name)
    value = numbers[0] if numbers else None
    if value is None or (name == "RescaleSlope" and value == 0):
        notes.append(f"an invalid {name} is ignored ({default:g} is used)")
        return default
    return value


def _by_window(
    values: np.ndarray, dataset: "Dataset", formats: Formats, notes: list[str]
) -> np.ndarray | None:
    """Grey levels (0 to 255) by a window or a lookup table; None if there is neither."""
    if formats.dicom.window is not None:
        return _windowed(values, _Window(*formats.dicom.window))
    for window in _windows(dataset, notes):
        return _windowed(values, window)
    ends = _stored_ends(dataset, integer(dataset, "BitsStored", 16))
    can_be_negative = bool((_rescaled(ends, dataset, []) < 0).any())
    for table in _tables(dataset, "VOILUTSequence", can_be_negative, notes):
        return to_grey(table(values), 0, table.white)
    return None


def _windows(dataset: "Dataset", notes: list[str]) -> list[_Window]:
    """The usable windows of the file, in their order."""
    centres, widths = (_numbers(dataset, name) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if not centres and not widths:
        return []
    windows = [
        _Window(centre, width, function)
        for centre, width in zip(centres, widths, strict=False)
        if centre is not None and width is not None and width > 0
    ]
    if function not in _FUNCTIONS:
        notes.append("a window with an unknown VOI LUT function is ignored")
        return []
    if len(windows) < max(len(centres), len(widths)):
        notes.append("a window with an invalid centre or width is ignored")
    return windows


def _windowed(values: np.ndarray, window: _Window) -> np.ndarray:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3: grey levels 0 to 255."""
    centre, width = window.centre, window.width
    if window.function == "SIGMOID":
        with np.errstate(over="ignore"):
            brightness = 1 / (1 + np.exp(-4 * (values.astype(np.float64) - centre) / width))
        return np.rint(np.nan_to_num(brightness) * 255).astype(np.uint8)
    if window.function == "LINEAR_EXACT" or width < 1:  # LINEAR has no widths below 1
        return to_grey(values, centre - width / 2, centre + width / 2)
    black = centre - 0.5 - (width - 1) / 2
    if width == 1:
        return np.where(values > black, np.uint8(255), np.uint8(0))
    return to_grey(values, black, black + width - 1)


def _tables(
    dataset: "Dataset", name: str, signed: bool, notes: list[str], checks_bits: bool = True
) -> list[_Table]:
    """The usable lookup tables of a sequence, in their order."""
    items = dataset.get(name) or []
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    read = (_table(item, signed, order, notes if checks_bits else None) for item in items)
    tables = [table for table in read if table is not None]
    if len(tables) < len(items):
        notes.append("an empty lookup table is ignored")
    return tables


def _table(item: "Dataset", signed: bool, order: str, notes: list[str] | None) -> _Table | None:
    """One lookup table (PS3.3 C.11.1.1 and C.11.2.1.1); None if it cannot be used.

    Args:
        item: one item of the sequence.
        signed: whether the values looked up may be negative. In implicit VR pydicom returns the
            first of them as unsigned.
        order: byte order of the file, "<" or ">".
        notes: receives a note if the descriptor contradicts the table.
    """
    try:
        count, first, bits = (int(value) for value in item.LUTDescriptor)
        data = item.LUTData
    except (AttributeError, TypeError, ValueError):
        return None
    if data is None:
        return None
    count = count % 2**16 or 2**16
    first = first % 2**16
    if signed and first >= 2**15:
        first -= 2**16
    entries = _entries(data, count, order)
    if entries is None or not 1 <= bits <= 16:
        return None
    own_bits = true_bits(int(entries.max()), bits)
    if own_bits != bits and notes is not None:
        notes.append(
            "a lookup table has another bit depth than its descriptor states; its own is used"
        )
    return _Table(first, entries, 2**own_bits - 1)


def true_bits(largest: int, stated: int) -> int:
    """Bits of a table's full scale: as its descriptor states, unless its entries contradict it.

    Args:
        largest: largest entry of the table.
        stated: bits that its descriptor states. Many more than the entries use would make the
            image nearly black.
    """
    needed = max(8, largest.bit_length())
    return needed if needed > stated or stated - needed >= 2 else stated


def _entries(data: Any, count: int, order: str) -> np.ndarray | None:
    """The entries of a table, from one or two bytes each or from numbers; None if it is empty."""
    if isinstance(data, bytes):
        is_packed = len(data) < 2 * count and len(data) in (count, count + 1)
        entries = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
        if is_packed:
            entries = np.frombuffer(data, np.uint8)
    else:
        entries = np.atleast_1d(np.asarray(data)).astype(np.int64) % 2**16
    return entries[:count].astype(np.int64) if len(entries) else None


def _without_padding(values: np.ndarray, stored: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """Values with NaN in place of the padding that the file states (PS3.3 C.7.5.1.1.2)."""
    if "PixelPaddingValue" not in dataset or stored.dtype.kind not in "iu":
        return values
    bits = 8 * stored.dtype.itemsize
    first = integer(dataset, "PixelPaddingValue", 0)
    last = integer(dataset, "PixelPaddingRangeLimit", first)
    low, high = sorted(
        value % 2**bits
        if stored.dtype.kind == "u"
        else (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
        for value in (first, last)
    )
    return np.where((stored >= low) & (stored <= high), np.float32(np.nan), values)


def _numbers(dataset: "Dataset", name: str) -> list[float | None]:
    """The numbers of an element; None in place of each value that is not a number."""
    if name not in dataset:
        return []
    element = dataset.get_item(name)
    value = element.value
    if value in (None, "", b""):
        return []
    if isinstance(value, bytes) and element.VR in _TEXT:
        values: list[Any] = value.decode("latin-1").replace("\0", "").split("\\")
    else:
        try:
            value = dataset[name].value
        except (TypeError, ValueError):
            return [None]
        values = (
            list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
        )
    return [_number(value) for value in values]


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
