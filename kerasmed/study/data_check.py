"""``kerasmed data check``: examine a set and show the findings on one HTML page."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from PIL import Image

from kerasmed.data.config import DataConfig, SplitConfig
from kerasmed.data.duplicates import Duplicates, find_duplicates
from kerasmed.data.entries import relative_path, root_of
from kerasmed.data.examine import Findings, examine
from kerasmed.data.groups import named_patients
from kerasmed.data.image_file import numbered_name
from kerasmed.data.measurements import Measurements
from kerasmed.data.measuring import read_measurements
from kerasmed.data.remarks import remarks
from kerasmed.data.sources import open_source
from kerasmed.files import write_json, write_text
from kerasmed.result_types import Pair

_EDGE = 96
_PER_CLASS = 12
_PAIRS = 12
# Gain in accuracy over always naming the most frequent class, above which a clue is highlighted.
NOTABLE_GAIN = 0.1


class DataCheck(Findings):
    """The findings of ``kerasmed data check`` (``check.json``, and its option --json)."""

    source: str
    """The folder or file that was examined."""
    remarks: list[str]
    """What a user should know, as sentences."""
    grey_range: Pair | None
    """Values shown black and white in files of more than 8 bits; null where none is needed."""


def check_data(data: DataConfig, split: SplitConfig, folder: Path) -> DataCheck:
    """Examine a set, and write ``check.html`` and ``check.json``.

    Args:
        data: source and format settings.
        split: how near-duplicates are found, and whether names of patients are used.
        folder: folder of the page, its numbers and the cache.

    Returns:
        The findings of ``examine``, with the source, the remarks and the grey range.

    Raises:
        DataError: the source has an unknown layout, no image in it can be read, or
            ``split.pattern`` finds no patient in a path.
    """
    measurements = read_measurements(data, folder / "cache" / "measurements")
    measurements.refuse_empty(data)
    if split.pattern is not None:
        root = root_of(Path(str(data.source)))
        patients = named_patients(measurements.files(root), split.pattern, root)
        measurements = replace(measurements, patients=np.array(patients, np.str_))
    duplicates = find_duplicates(measurements, split.near_duplicate_bits)
    grey_range = measurements.common_range()
    findings: DataCheck = {
        "source": str(data.source),
        "remarks": remarks(measurements, grey_range, data, split),
        "grey_range": grey_range and list(grey_range),
        **examine(measurements.in_range(grey_range), duplicates),
    }
    if grey_range is not None:  # for the thumbnails
        data = data.model_copy(update={"grey_range": grey_range})
    write_json(folder / "check.json", findings)
    _write_page(data, folder, findings, measurements, duplicates)
    return findings


def _write_page(
    data: DataConfig,
    folder: Path,
    findings: DataCheck,
    measurements: Measurements,
    duplicates: Duplicates,
) -> None:
    per_class = {
        str(name): _evenly_spread(np.flatnonzero(measurements.classes == name), _PER_CLASS)
        for name in np.unique(measurements.classes)
    }
    pairs = _pairs_by_distance(duplicates)
    outliers = [entry["image"] for entry in findings["brightness_outliers"][:_PER_CLASS]]
    rows = {row for of_class in per_class.values() for row in of_class}
    rows |= {row for _, group in pairs for a, b, _ in group for row in (a, b)}
    names = {str(measurements.names[row]) for row in rows} | set(outliers)
    pictures = _thumbnails(data, folder, names)

    def picture(row: int) -> dict[str, str]:
        name = str(measurements.names[row])
        return {"name": name, "uri": pictures[name]}

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(["j2"])
    )
    page = environment.get_template("data_check.html.j2").render(
        findings=findings,
        notable_gain=NOTABLE_GAIN,
        examples={name: [picture(row) for row in of_class] for name, of_class in per_class.items()},
        pairs=[
            (title, [(picture(a), picture(b), bits) for a, b, bits in group])
            for title, group in pairs
        ],
        outliers=[
            {**entry, "uri": pictures[entry["image"]]}
            for entry in findings["brightness_outliers"][:_PER_CLASS]
        ],
    )
    write_text(folder / "check.html", page)


def _evenly_spread(rows: np.ndarray, count: int) -> list[int]:
    """At most ``count`` of the rows, evenly spread."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)].tolist()


def _pairs_by_distance(
    duplicates: Duplicates,
) -> list[tuple[str, list[tuple[int, int, int]]]]:
    """Near-duplicates, from equal to barely similar, and those that are mirrored or turned."""
    kinds = (
        ("Near-duplicates, from the most to the least similar", ~duplicates.altered),
        ("Near-duplicates after mirroring or turning", duplicates.altered),
    )
    shown = []
    for title, chosen in kinds:
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(duplicates.distances[rows], kind="stable")]
        group = [
            (*duplicates.near[row].tolist(), int(duplicates.distances[row]))
            for row in _evenly_spread(rows, _PAIRS)
        ]
        if group:
            shown.append((title, group))
    return shown


def _thumbnails(data: DataConfig, folder: Path, names: set[str]) -> dict[str, str]:
    """Thumbnails as data URIs, by name."""
    source = open_source(data)
    thumbnails: dict[str, str] = {}
    wanted_files = {name.rsplit("#", 1)[0] for name in names} | names
    with source.opened(folder / "cache") as read:
        for entry in source.entries:
            relative = relative_path(entry.path, source.root)
            if str(relative) not in wanted_files:
                continue
            if entry.row is not None and numbered_name(relative, entry.row) not in names:
                continue
            for _, picture in read(entry, _EDGE):
                name = numbered_name(relative, picture.frame)
                if name in names:
                    thumbnails[name] = _data_uri(picture.image)
    return thumbnails


def _data_uri(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((_EDGE, _EDGE))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
