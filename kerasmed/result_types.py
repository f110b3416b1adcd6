"""Types that several result files use; docs/reference/result_files.md explains the files.

The type of each file is next to the code that writes it. The text below a key is its description in
the JSON schema that ``kerasmed schema`` prints.
"""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from kerasmed.settings import UnitInterval

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

Whole = Annotated[int, Field(ge=0)]

NotNegative = Annotated[float, Field(ge=0)]

# 0 to 1. Sums, and probabilities in float32, can exceed 1 in their last digit.
Probability = Annotated[float, Field(ge=0, le=1.000001)]

# -1 to 1, such as a rank correlation, with the same rounding.
Signed = Annotated[float, Field(ge=-1.000001, le=1.000001)]

Pair = Annotated[list[float], Field(min_length=2, max_length=2)]

UnitPair = Annotated[list[UnitInterval], Field(min_length=2, max_length=2)]

# The 5th, 50th and 95th percentile and the maximum.
Percentiles = Annotated[list[float], Field(min_length=4, max_length=4)]


class Estimate(TypedDict):
    """A figure with its interval."""

    value: float
    """The figure."""
    interval: Pair
    """Its 95% interval, over groups such as patients."""


class NotComputed(TypedDict):
    """Stands for figures that could not be computed."""

    not_computed: str
    """The reason, and what to do about it."""
