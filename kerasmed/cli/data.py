"""The commands `kerasmed data`."""

from pathlib import Path
from typing import Annotated

import typer

from kerasmed.cli.app import data_app
from kerasmed.cli.options import Assignments, ConfigPath, DataOption, OutOption
from kerasmed.cli.runs import run_one_stage


@data_app.command("list")
def data_list() -> None:
    """The data sets that are known by name."""
    from kerasmed.cli.tables import print_known
    from kerasmed.data.datasets import KNOWN

    print_known(KNOWN)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `kerasmed data list` shows it.")],
    taken_from: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="A copy already on disk.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to (default: data/NAME).")
    ] = None,
) -> None:
    """Download a known data set, or take a copy, and compare it with what was published."""
    from kerasmed.cli.tables import print_counts
    from kerasmed.data.datasets import fetch, find_known, verify

    known = find_known(name)
    found = verify(name, taken_from or fetch(name, out or Path("data") / name))
    print_counts(found["found"], found["published"])
    if not found["complete"]:
        print("Fewer images than were published: the figures of others need not hold for it.")
    print(f"Licence: {known.licence}. Cite: {known.citation}.")
    print(f"Next: kerasmed study {known.config} --data {found['source']}")


@data_app.command("check")
def data_check(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Class folders, .csv or .npz.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    assignments: Assignments = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/check-<name>.")
    ] = None,
) -> None:
    """Counts, copies, outliers and shortcuts of a set, and a page of thumbnails."""
    from kerasmed.cli.tables import print_findings
    from kerasmed.study.config import override
    from kerasmed.study.data_check import check_data

    values = {"name": "check", "data": {"source": str(source)}}
    config = override(values, assignments, source="--set")
    folder = out or Path("runs") / f"check-{source.resolve().name}"
    findings = check_data(config.data, config.split, folder)
    print_findings(findings, as_json)
    if not as_json:
        print(f"Page: {folder / 'check.html'}")


@data_app.command("leakage")
def data_leakage(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """What a random split would have claimed, against this study's split."""
    from kerasmed.cli.tables import print_leakage
    from kerasmed.files import read_json

    _, run = run_one_stage("leakage", config, assignments, data, out)
    print_leakage(read_json(run.evaluation / "leakage.json", "kerasmed data leakage"))


@data_app.command("split")
def data_split(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Decode the images (or make the phantoms), find copies, and write split.json."""
    from kerasmed.cli.tables import print_split

    _, run = run_one_stage("data", config, assignments, data, out)
    print_split(run.finished_stages()["data"]["result"])
