"""The base of every settings class, the types that several use, and what is wrong with one."""

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

Fraction = Annotated[float, Field(gt=0, lt=1)]

Count = Annotated[int, Field(ge=1)]

Rate = Annotated[float, Field(gt=0)]

UnitInterval = Annotated[float, Field(ge=0, le=1)]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Section(BaseModel):
    """One block of the experiment file; an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def describe_problems(error: ValidationError) -> str:
    """What is wrong with settings, and with which values, in one line."""
    problems = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            problems.append(f"unknown key {key}; remove it or correct its spelling")
            continue
        if problem["type"] == "missing":
            problems.append(f"missing key {key}; add it")
            continue
        message = problem["msg"].removeprefix("Value error, ")
        received = "" if isinstance(problem["input"], dict) else f", received {problem['input']!r}"
        problems.append(f"{key}: {message}{received}".removeprefix(": "))
    return "; ".join(dict.fromkeys(problems)) + "."
