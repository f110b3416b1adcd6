"""Settings of the ONNX files."""

from typing import Annotated, Literal

from pydantic import Field

from kerasmed.settings import Section

Precision = Literal["fp32", "fp16", "int8"]


class ExportConfig(Section):
    """The ONNX files."""

    precisions: Annotated[list[Precision], Field(min_length=1)] = ["fp32"]
    """Precisions of the files. float32 is always written; the others are converted from it."""
    calibration_images: Annotated[int, Field(ge=16)] = 64
    """Training images that set the ranges of int8."""
