"""The base of every settings class, and the types that several of them use."""

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

Fraction = Annotated[float, Field(gt=0, lt=1)]

Count = Annotated[int, Field(ge=1)]

Rate = Annotated[float, Field(gt=0)]

UnitInterval = Annotated[float, Field(ge=0, le=1)]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Section(BaseModel):
    """One block of the experiment file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
