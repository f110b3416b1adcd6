"""Settings of the images: source, formats, size and split."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from kerasmed.settings import Count, Fraction, Rate, Section, UnitInterval


class PhantomConfig(Section):
    """Computed images that stand in for real ones."""

    family: Literal["mri", "smear", "ct"] = "mri"
    """What they imitate."""
    per_class: Count = 300
    """Images of each class."""


class DicomConfig(Section):
    """How grey values of DICOM files are mapped to 0 to 255."""

    window: tuple[float, Rate] | None = None
    """Centre and width, in units after the rescaling (Hounsfield units in CT), instead of the
    files' own windows. Without it, each file's first usable window applies, or data.grey_range."""
    frames: Literal["refuse", "split"] = "refuse"
    """"refuse" rejects a file of several frames, "split" uses each of them."""


class NiftiConfig(Section):
    """Which slices of a NIfTI volume are used, and how their values are mapped to 0 to 255."""

    axis: Literal["sagittal", "coronal", "axial"] = "axial"
    """Orientation of the slices."""
    slices: tuple[UnitInterval, UnitInterval] = (0.0, 1.0)
    """First and last slice, as fractions of the volume from its left, back or lower end."""
    frames: Literal["refuse", "split"] = "refuse"
    """"refuse" rejects a file of four dimensions, "split" uses each of its volumes."""
    range: Literal["set", "volume"] = "set"
    """"set" maps values by the range of the whole set. "volume" maps them by the 0.1st and 99.9th
    percentiles of each volume, for scanners whose units differ."""

    @field_validator("slices")
    @classmethod
    def slices_go_up(cls, pair: tuple[float, float]) -> tuple[float, float]:
        """Refuse an empty range of slices."""
        return _going_up(pair, "data.nifti.slices")


def _going_up(pair: tuple[float, float], name: str) -> tuple[float, float]:
    if pair[0] >= pair[1]:
        raise ValueError(f"{name} must go up; received {list(pair)}")
    return pair


class Formats(Section):
    """Choices that a file format leaves open."""

    dicom: DicomConfig = DicomConfig()
    """Grey values of DICOM files."""
    nifti: NiftiConfig = NiftiConfig()
    """Slices of NIfTI volumes."""
    grey_range: tuple[float, float] | None = None
    """Values shown black and white, after the file's rescaling. They apply where a file holds more
    than 8 bits a channel and names no range (PNG and TIFF of 16 bits, NIfTI, DICOM without a
    window). Without them, the 0.1st and 99.9th percentiles of the training images apply."""
    nan_value: float | None = None
    """The value that replaces NaN; if null, NaN is shown black."""

    @field_validator("grey_range")
    @classmethod
    def range_goes_up(cls, pair: tuple[float, float] | None) -> tuple[float, float] | None:
        """Refuse a grey range without values in it."""
        return None if pair is None else _going_up(pair, "data.grey_range")


class DataConfig(Formats):
    """Where the images come from, and their size."""

    source: Path | None = None
    """A folder of class folders, a .csv with the columns path, label and optionally patient, or an
    .npz with the layout of MedMNIST."""
    phantoms: PhantomConfig | None = None
    """Computed images in place of a source."""
    class_names: Annotated[list[str], Field(min_length=2)] | None = None
    """Names of the labels 0, 1, ... of an .npz, which stores no names."""
    image_size: Annotated[int, Field(ge=16, le=512)] = 64
    """Height and width, in pixels, to which every image is brought."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """Whether a file that cannot be read stops the study, or is left out."""
    official_split: Literal["refuse", "merge", "keep"] = "refuse"
    """For folders such as train/ and test/ with the same class folders inside. "merge" pools them
    and splits the set anew, "keep" gives the set's own test images the role `test`. An .npz or a
    table with a column `split` is merged, with a notice, unless this is "keep"."""
    masks: Literal["leave_out", "keep"] = "leave_out"
    """Masks are images of few values whose name is another's with a suffix, or that lie in a folder
    such as masks/."""
    synthetic: Literal["refuse", "allow"] = "refuse"
    """Whether images that are marked as synthetic, as kerasmed's are, are taken for real ones."""
    symmetry: Literal["none", "mirror", "dihedral"] = "none"
    """Flips and turns that leave an image a valid image of its class. "mirror" is left to right,
    "dihedral" also upside down and quarter turns. The generator and the CNNs train with them."""

    @property
    def formats(self) -> dict[str, Any]:
        """The choices of format that differ from the default, as plain values."""
        return self.model_dump(
            mode="json", include=set(Formats.model_fields), exclude_defaults=True
        )

    @model_validator(mode="after")
    def one_source(self) -> "DataConfig":
        """Require images or phantoms, not both, and names that suit the images."""
        if (self.source is None) == (self.phantoms is None):
            raise ValueError("give exactly one of data.source (or --data PATH) and data.phantoms")
        if len(set(self.class_names or [])) < len(self.class_names or []):
            raise ValueError(f"data.class_names must differ; received {self.class_names}")
        is_npz = self.source is not None and self.source.suffix.lower() == ".npz"
        if self.class_names is not None and not is_npz:
            raise ValueError(
                "data.class_names applies only to an .npz, whose labels are numbers; remove it"
            )
        return self


class SplitConfig(Section):
    """Fractions of each class. Images outside train and test get the role `reserve`."""

    train: Fraction = 0.2
    """Fraction from which the diffusion model and the CNNs learn, including validation."""
    validation: Fraction = 0.1
    """Fraction of `train` that stops and calibrates trainings."""
    test: Fraction = 0.2
    """Fraction on which the CNNs are tested."""
    group_by: Literal["patient", "pattern", "neighbours"] = "patient"
    """What forms a group, in addition to duplicates: the images of a patient whom a table or a
    DICOM header names, or whom `pattern` finds in the path; or runs of neighbouring files."""
    patient: Literal["together", "ignore"] = "together"
    """"together" trusts the patients that a table or header names. "ignore" is for files that name
    one placeholder for all images."""
    pattern: str | None = None
    """Regular expression whose first group is the patient."""
    run_length: Annotated[int, Field(ge=2)] = 30
    """Files of a run, of `group_by: neighbours`."""
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)] | None = 32
    """Near-duplicates differ in at most this many of the 256 bits of their perceptual hashes. If
    null, only images of equal pixels are duplicates."""

    @model_validator(mode="after")
    def leaves_a_reserve(self) -> "SplitConfig":
        """Refuse fractions that leave no image for the role ``reserve``."""
        if self.train + self.test >= 1:
            raise ValueError("split.train + split.test must stay below 1")
        return self

    @model_validator(mode="after")
    def run_length_is_used(self) -> "SplitConfig":
        """Refuse a run length that would change nothing."""
        default = type(self).model_fields["run_length"].default  # runs record it too
        if self.group_by != "neighbours" and self.run_length != default:
            raise ValueError(
                "split.run_length applies only to split.group_by: neighbours; received "
                f"{self.group_by!r}; change one of the two"
            )
        return self

    @model_validator(mode="after")
    def pattern_has_a_group(self) -> "SplitConfig":
        """Require a pattern exactly where patients are found by one, with a group to find them."""
        if (self.group_by == "pattern") != (self.pattern is not None):
            raise ValueError("split.pattern and split.group_by: pattern go together; set both")
        try:
            groups = re.compile(self.pattern or "()").groups
        except re.error as error:
            raise ValueError(f"split.pattern is not a regular expression: {error}") from None
        if groups < 1:
            raise ValueError(
                "split.pattern must have one group in parentheses around the patient's name; "
                f"received {self.pattern!r}"
            )
        return self
