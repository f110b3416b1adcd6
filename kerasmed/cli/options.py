"""Options of several commands, and how their values are parsed."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kerasmed.errors import ConfigError, DataError

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="Experiment file (YAML).")]

Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; can be repeated."),
]

DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="Images: class folders, .csv or .npz.")
]


def parse_folder(value: str) -> Path:
    """The folder of ``--out``; an address would become a folder with a colon in its name."""
    if "://" in value:
        raise ConfigError(
            f"--out: expected a folder, received {value}; mount the object store, or copy the run "
            "folder with the store's own tool (docs/tutorials/on_a_cluster.md)."
        )
    return Path(value)


OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", parser=parse_folder, help="Run folder (default: runs/<name>)."
    ),
]

ProviderOption = Annotated[
    str, typer.Option(help="Provider: auto, cpu, cuda, tensorrt, openvino or coreml.")
]

GreyRangeOption = Annotated[
    str | None,
    typer.Option(
        "--grey-range",
        metavar="LOW,HIGH",
        help="Values shown black and white if neither file nor model defines them.",
    ),
]


class Precision(StrEnum):
    """Which file of a model is run."""

    given = "given"
    auto = "auto"


PrecisionOption = Annotated[
    Precision,
    typer.Option(
        help="auto: use the int8 or fp16 file next to MODEL.onnx if this machine runs it faster."
    ),
]


def refuse_unreadable(errors: list[str], count: int) -> None:
    """Report images that cannot be read, after all others have been processed."""
    if errors:
        raise DataError(f"{len(errors)} of {count} images cannot be read: {errors[0]}")


def parse_shard(text: str) -> tuple[int, int]:
    """I and N from "I/N"."""
    index, slash, shards = text.partition("/")
    if slash and index.isdecimal() and shards.isdecimal() and 1 <= int(index) <= int(shards):
        return int(index), int(shards)
    raise ConfigError(f"--shard takes I/N with 1 <= I <= N, received {text!r}; for example 1/4.")


def parse_range(text: str | None) -> tuple[float, float] | None:
    """LOW and HIGH from "LOW,HIGH"."""
    if text is None:
        return None
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--grey-range takes LOW,HIGH, received {text!r}; for example --grey-range=-1000,400."
        ) from None
    return low, high


def refuse_existing(folder: Path) -> None:
    """Refuse a target folder that holds something, which would be mixed with new results.

    Raises:
        ConfigError: it does.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"--out: expected a new or empty folder, received {folder}, which holds something; "
            "remove it or choose another one."
        )


def refuse_other_keys(assignments: list[str] | None, *taken: str, whom: str = "a model") -> None:
    """Refuse settings that have no effect on a single model.

    Args:
        assignments: values of --set.
        taken: allowed keys; one that ends in a dot allows all keys that begin with it.
        whom: what the settings are for.

    Raises:
        ConfigError: another key was set.
    """
    for assignment in assignments or []:
        key = assignment.partition("=")[0]
        if not any(key == name or (name[-1] == "." and key.startswith(name)) for name in taken):
            allowed = ", ".join(name + "*" * (name[-1] == ".") for name in taken)
            raise ConfigError(f"--set with {whom} takes {allowed}, received {key}; drop it.")


def refuse_with_model(**options: object) -> None:
    """Refuse options that have no effect on a single model."""
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"--{name} goes with an experiment file, not with a model; drop it.")
