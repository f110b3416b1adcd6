"""From stored values of a DICOM frame to what is shown: rescaling, window, lookup tables.

PS3.3 C.11.1 and C.11.2. An element that cannot be used is ignored, with a note for the set.
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
_PLAIN_BITS = 8  # of stored values that are shown as they are where no window says otherwise


@dataclass(frozen=True)
class _Window:
    centre: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True)
class _Table:
    """A lookup table: ``entries[value - first]``, its ends beyond them; white is its full scale."""

    first: int
    entries: np.ndarray
    white: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        at = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[at.astype(np.int64)]


def integer(dataset: "Dataset", name: str, default: int) -> int:
    """A whole number of the header; the default where it is missing, empty or no number."""
    try:
        value = dataset.get(name)
        return default if value in (None, "") else int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def shown(stored: np.ndarray, dataset: "Dataset", formats: Formats, kind: str) -> Picture:
    """A grey frame as it is shown.

    By the first of these that there is: the window of the settings, the file's first usable window
    or lookup table, the stored range where that has at most 8 bits, the range of the settings.
    MONOCHROME1 is inverted, so that air is dark in every file.

    Args:
        stored: (height, width).
        dataset: group 0028 of the header, with that of the frame.
        formats: the settings.
        kind: of the picture.
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
    """Through the modality table, or slope and intercept, each with its default: float32."""
    signed = integer(dataset, "PixelRepresentation", 0) == 1
    # Of this table no full scale is needed: its depth may be what it likes.
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
    """Grey levels (0 to 255) by a window or a lookup table; None where there is none."""
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
    """The windows of the file that can be used, in their order."""
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
            share = 1 / (1 + np.exp(-4 * (values.astype(np.float64) - centre) / width))
        return np.rint(np.nan_to_num(share) * 255).astype(np.uint8)
    if window.function == "LINEAR_EXACT" or width < 1:  # LINEAR has no widths below 1
        return to_grey(values, centre - width / 2, centre + width / 2)
    black = centre - 0.5 - (width - 1) / 2
    if width == 1:
        return np.where(values > black, np.uint8(255), np.uint8(0))
    return to_grey(values, black, black + width - 1)


def _tables(
    dataset: "Dataset", name: str, signed: bool, notes: list[str], checks_bits: bool = True
) -> list[_Table]:
    """The lookup tables of a sequence that can be used, in their order."""
    items = dataset.get(name) or []
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    found = (_table(item, signed, order, notes if checks_bits else None) for item in items)
    tables = [table for table in found if table is not None]
    if len(tables) < len(items):
        notes.append("an empty lookup table is ignored")
    return tables


def _table(item: "Dataset", signed: bool, order: str, notes: list[str] | None) -> _Table | None:
    """PS3.3 C.11.1.1 and C.11.2.1.1.

    Args:
        item: of the sequence.
        signed: whether the values that are looked up may be negative: in implicit VR pydicom gives
            the first of them unsigned.
        order: of bytes in the file, "<" or ">".
        notes: takes a note where the descriptor and the table differ.
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
    """Bits of a table's full scale: as its descriptor states, unless its entries belie that.

    Args:
        largest: entry of the table.
        stated: by its descriptor; far more than the entries have would leave them nearly black.
    """
    needed = max(8, largest.bit_length())
    return needed if needed > stated or stated - needed >= 2 else stated


def _entries(data: Any, count: int, order: str) -> np.ndarray | None:
    """The entries of a table, of one or two bytes each or as numbers; None where there are none."""
    if isinstance(data, bytes):
        is_packed = len(data) < 2 * count and len(data) in (count, count + 1)
        entries = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
        if is_packed:
            entries = np.frombuffer(data, np.uint8)
    else:
        entries = np.atleast_1d(np.asarray(data)).astype(np.int64) % 2**16
    return entries[:count].astype(np.int64) if len(entries) else None


def _without_padding(values: np.ndarray, stored: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """Values with NaN where the file says that it has none (PS3.3 C.7.5.1.1.2)."""
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
    """The numbers of an element; None in the place of each that is none."""
    if name not in dataset:
        return []
    element = dataset.get_item(name)
    value = element.value
    if value in (None, "", b""):
        return []
    if isinstance(value, bytes) and element.VR in _TEXT:
        parts: list[Any] = value.decode("latin-1").replace("\0", "").split("\\")
    else:
        try:
            value = dataset[name].value
        except (TypeError, ValueError):
            return [None]
        parts = (
            list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
        )
    return [_number(part) for part in parts]


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
