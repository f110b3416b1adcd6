"""Options that several commands take, and how their values are read."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kerasmed.errors import ConfigError, DataError

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="Experiment file (YAML).")]

Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")
]

DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="Class folders, .csv or .npz.")
]

OutOption = Annotated[
    str | None,
    typer.Option(
        "--out", metavar="DIR", help="Run folder (default: runs/<name>), or s3://BUCKET/PATH."
    ),
]

ProviderOption = Annotated[str, typer.Option(help="auto, cpu, cuda, tensorrt, openvino or coreml.")]

GreyRangeOption = Annotated[
    str | None,
    typer.Option(
        "--grey-range",
        metavar="LOW,HIGH",
        help="Values shown black and white, where neither file nor model says.",
    ),
]


class Precision(StrEnum):
    """Which of the files of one model is run."""

    given = "given"
    auto = "auto"


PrecisionOption = Annotated[
    Precision, typer.Option(help="auto: int8 or fp16 where it lies beside and suits the machine.")
]


def refuse_unreadable(errors: list[str], count: int) -> None:
    """What could be read has been dealt with by now."""
    if errors:
        raise DataError(f"{len(errors)} of {count} images cannot be read: {errors[0]}")


def parse_shard(text: str) -> tuple[int, int]:
    """I and N of "I/N"."""
    index, slash, shards = text.partition("/")
    if slash and index.isdecimal() and shards.isdecimal() and 1 <= int(index) <= int(shards):
        return int(index), int(shards)
    raise ConfigError(f"--shard takes I/N with 1 <= I <= N, received {text!r}; for example 1/4.")


def parse_range(text: str | None) -> tuple[float, float] | None:
    """LOW and HIGH of "LOW,HIGH"."""
    if text is None:
        return None
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--grey-range takes LOW,HIGH, received {text!r}; for example --grey-range=-1000,400."
        ) from None
    return low, high


def refuse_other_keys(assignments: list[str] | None, *taken: str) -> None:
    """Refuse settings that mean nothing with a model.

    Args:
        assignments: of --set.
        taken: keys that mean something; one that ends in a dot stands for all that begin so.

    Raises:
        ConfigError: naming another key.
    """
    for assignment in assignments or []:
        key = assignment.partition("=")[0]
        if not any(key == name or (name[-1] == "." and key.startswith(name)) for name in taken):
            known = ", ".join(name + "*" * (name[-1] == ".") for name in taken)
            raise ConfigError(f"--set with a model takes {known}, received {key}; drop it.")


def refuse_with_model(**options: object) -> None:
    """Options of a study say nothing to a model that stands alone."""
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"--{name} goes with an experiment file, not with a model; drop it.")
