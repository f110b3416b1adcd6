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
    """Procedural images that stand in for a domain."""

    family: Literal["mri", "smear", "ct"] = "mri"
    per_class: Count = 300


class DicomConfig(Section):
    """How grey values of DICOM files become 0 to 255."""

    # Centre and width, in units after the rescaling (Hounsfield units in CT), in the place of the
    # files' own windows. Without it the file's first usable window is taken, and data.grey_range
    # where it has none.
    window: tuple[float, Rate] | None = None
    frames: Literal["refuse", "split"] = "refuse"


class NiftiConfig(Section):
    """Which slices of a NIfTI volume are taken, and how their values become 0 to 255."""

    axis: Literal["sagittal", "coronal", "axial"] = "axial"
    # First and last slice taken, as a share of the volume from its left, back or lower end.
    slices: tuple[UnitInterval, UnitInterval] = (0.0, 1.0)
    # Whether a file of four dimensions is refused, or each of its volumes taken.
    frames: Literal["refuse", "split"] = "refuse"
    # Whether values are shown by the range of the whole set, or by the 0.1st and 99.9th percentile
    # of each volume, for scanners whose units differ.
    range: Literal["set", "volume"] = "set"

    @field_validator("slices")
    @classmethod
    def slices_go_up(cls, pair: tuple[float, float]) -> tuple[float, float]:
        return _going_up(pair, "data.nifti.slices")


def _going_up(pair: tuple[float, float], name: str) -> tuple[float, float]:
    if pair[0] >= pair[1]:
        raise ValueError(f"{name} must go up; received {list(pair)}")
    return pair


class Formats(Section):
    """The choices that a file's format leaves open."""

    dicom: DicomConfig = DicomConfig()
    nifti: NiftiConfig = NiftiConfig()
    # Values shown black and white where a file holds more than 8 bits a channel and does not say
    # itself (PNG and TIFF of 16 bits, NIfTI, DICOM without a window), after the file's rescaling.
    # Without it, the 0.1st and 99.9th percentile of the training images.
    grey_range: tuple[float, float] | None = None
    # What a value that is no number (NaN) stands for; black if null.
    nan_value: float | None = None

    @field_validator("grey_range")
    @classmethod
    def range_goes_up(cls, pair: tuple[float, float] | None) -> tuple[float, float] | None:
        return None if pair is None else _going_up(pair, "data.grey_range")


class DataConfig(Formats):
    """Where the images come from and what size they get."""

    # A folder of class folders, a .csv with the columns path, label and perhaps patient, or an .npz
    # laid out as MedMNIST does.
    source: Path | None = None
    phantoms: PhantomConfig | None = None
    class_names: Annotated[list[str], Field(min_length=2)] | None = Field(
        default=None, description="of the labels 0, 1, ... of an .npz, which has none"
    )
    image_size: Annotated[int, Field(ge=16, le=512)] = 64
    on_bad_image: Literal["stop", "skip"] = "stop"
    # Folders such as train/ and test/ with the same class folders inside: "merge" takes all of them
    # as one set that is split anew, "keep" takes the set's own test images as the role `test`. An
    # .npz or a table with a column `split` is merged, and says so, unless its parts are kept.
    official_split: Literal["refuse", "merge", "keep"] = "refuse"
    # Pictures of few values whose name is another's with a suffix, or in a folder such as masks/.
    masks: Literal["leave_out", "keep"] = "leave_out"
    # Which flips and turns of an image show a valid image of the same class: "mirror" is left to
    # right, "dihedral" also upside down and quarter turns. Both kinds of training draw from them.
    symmetry: Literal["none", "mirror", "dihedral"] = "none"

    @property
    def formats(self) -> dict[str, Any]:
        """Of the choices of format those that are not the default, as plain values."""
        return self.model_dump(
            mode="json", include=set(Formats.model_fields), exclude_defaults=True
        )

    @model_validator(mode="after")
    def one_source(self) -> "DataConfig":
        if (self.source is None) == (self.phantoms is None):
            raise ValueError("give exactly one of data.source (or --data PATH) and data.phantoms")
        if len(set(self.class_names or [])) < len(self.class_names or []):
            raise ValueError(f"data.class_names must differ; received {self.class_names}")
        is_npz = self.source is not None and self.source.suffix.lower() == ".npz"
        if self.class_names is not None and not is_npz:
            raise ValueError(
                "data.class_names goes with an .npz alone, whose labels are numbers; remove it"
            )
        return self


class SplitConfig(Section):
    """Shares of each class. What is left over after train and test is the role `reserve`."""

    train: Fraction = 0.2
    validation: Fraction = Field(default=0.1, description="of train")
    test: Fraction = 0.2
    # What else may not be torn apart, beside duplicates: the images of a patient whom a table or a
    # DICOM header names, or whom `pattern` finds in the path; or runs of neighbouring files.
    group_by: Literal["patient", "pattern", "neighbours"] = "patient"
    # Whether a table or a header that names patients is believed; "ignore" where it names one dummy
    # for all.
    patient: Literal["together", "ignore"] = "together"
    pattern: str | None = Field(
        default=None, description="regular expression; its first group is the patient"
    )
    run_length: Annotated[int, Field(ge=2)] = 30
    # Greatest number of the 256 bits of a perceptual hash in which two near-duplicates differ.
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)] | None = Field(
        default=32, description="only images of equal pixels are duplicates if null"
    )

    @model_validator(mode="after")
    def leaves_a_reserve(self) -> "SplitConfig":
        if self.train + self.test >= 1:
            raise ValueError("split.train + split.test must stay below 1")
        return self

    @model_validator(mode="after")
    def run_length_is_used(self) -> "SplitConfig":
        default = type(self).model_fields["run_length"].default  # which a run's record names too
        if self.group_by != "neighbours" and self.run_length != default:
            raise ValueError(
                "split.run_length goes with split.group_by: neighbours; received "
                f"{self.group_by!r}; change one of the two"
            )
        return self

    @model_validator(mode="after")
    def pattern_has_a_group(self) -> "SplitConfig":
        if (self.group_by == "pattern") != (self.pattern is not None):
            raise ValueError("split.pattern and split.group_by: pattern go together; give both")
        try:
            groups = re.compile(self.pattern or "()").groups
        except re.error as error:
            raise ValueError(f"split.pattern is no regular expression: {error}") from None
        if groups < 1:
            raise ValueError(
                "split.pattern must have one group in parentheses around what names the patient; "
                f"received {self.pattern!r}"
            )
        return self
