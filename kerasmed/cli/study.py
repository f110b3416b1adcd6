"""Commands on a whole study: demo, init, study, report, release; and schema, doctor."""

import json
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kerasmed.cli.app import app
from kerasmed.cli.options import (
    Assignments,
    ConfigPath,
    DataOption,
    OutOption,
    parse_shard,
    refuse_other_keys,
)
from kerasmed.cli.runs import run_one_stage, run_whole_study
from kerasmed.errors import ConfigError, StageError
from kerasmed.text import counted


class ImageFormat(StrEnum):
    """File format of released images."""

    png = "png"
    dicom = "dicom"


@app.command()
def demo(
    out: OutOption = None,
    assignments: Assignments = None,
) -> None:
    """Run a whole study on made-up images; takes minutes on two CPU cores."""
    from importlib import resources

    with resources.as_file(resources.files("kerasmed.study") / "demo.yaml") as path:
        run_whole_study(path, assignments, None, out)


@app.command()
def init(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Class folders, .csv or .npz.")],
    assignments: Assignments = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="File to write (default: <name of DIR>.yaml)."),
    ] = None,
) -> None:
    """Read your images and write a commented experiment file for them.

    The comments list classes, files, sizes, patients in file names, and flips that look harmless.
    --set takes data.*, such as data.dicom.frames=split, and the file keeps the value.
    """
    from kerasmed.study.init import default_path, init

    refuse_other_keys(assignments, "data.", whom="kerasmed init")
    path = out or default_path(source)
    print("\n".join(init(source, path, assignments)))
    print(f"Wrote {path}. Read the lines marked CHECK, then:")
    print(f"  kerasmed data check {shlex.quote(str(path))}")
    print(f"  kerasmed study {shlex.quote(str(path))}")


@app.command()
def study(
    config: ConfigPath,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Run as process I of N in one run folder.")
    ] = None,
    executor: Annotated[
        str, typer.Option(metavar="local|ray|ray://HOST:PORT", help="Where the shards run.")
    ] = "local",
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Run every unfinished stage in order, up to the report.

    With --shard, N processes or machines divide the synthetic images and the CNNs; all need access
    to the run folder. With --executor ray, Ray divides them.
    """
    if shard is not None and executor != "local":
        raise ConfigError("--shard and --executor both divide the work; give only one of them.")
    index, shards = parse_shard(shard or "1/1")
    run_whole_study(config, assignments, data, out, index, shards, executor)


@app.command()
def report(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Write the HTML report from the results."""
    _, run = run_one_stage("report", config, assignments, data, out)
    print(run.report)


@app.command()
def release(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="Run folder of a finished study.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder to create.")
    ] = None,
    image_format: Annotated[
        ImageFormat | None, typer.Option("--format", help="png (the default) or dicom.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Also hand on this CNN; can be repeated."),
    ] = None,
    despite: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Reason to release a set with a red light on privacy."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Terms, such as CC BY 4.0.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Who releases it, with an address.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Only check a folder that was received.")
    ] = None,
) -> None:
    """Write the synthetic set, marked and described, to hand on; or check such a folder.

    Networks are left out unless named by --model: the answer on privacy covers only the images.
    """
    if check is not None:
        others = (run, directory, image_format, model or None, despite, licence, by)
        if any(option is not None for option in others):
            raise ConfigError("--check takes one folder and nothing else; drop the others.")
        _check_release(check)
        return
    if run is None or directory is None:
        raise ConfigError("kerasmed release takes RUN and DIR, or --check DIR.")
    from kerasmed.study.release.write import release
    from kerasmed.study.run_folder import RunFolder

    models, written_as = tuple(model or ()), image_format or ImageFormat.png
    counts = release(RunFolder(run), directory, written_as.value, models, despite, licence, by)
    print(f"{directory}: {counts['released']} images, {counts['withheld']} withheld as copies.")
    blanks = [f"--{name}" for name, value in (("licence", licence), ("by", by)) if value is None]
    print(f"Read {directory / 'DATASHEET.md'} before you pass it on.")
    if blanks:
        print(f"The cards have blanks: fill them with {' and '.join(blanks)}.")


def _check_release(folder: Path) -> None:
    from kerasmed.study.release.check import check_release

    problems = check_release(folder)
    for problem in problems:
        print(problem)
    if problems:
        raise StageError(
            f"{folder}: {counted(len(problems), 'problem')}; ask the sender for another copy."
        )
    print(f"{folder}: marks, checksums and cards are in order.")


@app.command()
def schema(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Kind of file (default: list all).")
    ] = None,
) -> None:
    """Print the JSON schema of a kind of result file, for programs that read it."""
    from kerasmed.cli.tables import print_result_files
    from kerasmed.study.result_files import RESULT_FILES, json_schema

    if name is None:
        print_result_files(RESULT_FILES)
    else:
        print(json.dumps(json_schema(name), indent=2))


@app.command()
def doctor() -> None:
    """Show what this machine has, and what really runs on it."""
    from kerasmed.cli.doctor import examine
    from kerasmed.cli.tables import print_pairs

    print_pairs(examine())
