"""The commands `kerasmed data`."""

from pathlib import Path
from typing import Annotated

import typer

from kerasmed.cli.app import data_app
from kerasmed.cli.options import Assignments, ConfigPath, DataOption, OutOption
from kerasmed.cli.runs import run_one_stage
from kerasmed.errors import ConfigError


@data_app.command("list")
def data_list() -> None:
    """List the public data sets that can be fetched by name."""
    from kerasmed.cli.tables import print_datasets
    from kerasmed.data.datasets import DATASETS

    print_datasets(DATASETS)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name from `kerasmed data list`.")],
    taken_from: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Use a copy that is already on disk."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Target folder (default: data/NAME)."),
    ] = None,
) -> None:
    """Download a public data set, or use a copy, and compare it with the published counts."""
    from kerasmed.cli.tables import print_counts
    from kerasmed.data.datasets import fetch, find_dataset, verify

    known = find_dataset(name)
    result = verify(name, taken_from or fetch(name, out or Path("data") / name))
    print_counts(result["found"], result["published"])
    if not result["complete"]:
        print("Fewer images than published: published results may not apply to this copy.")
    print(f"Licence: {known.licence}. Cite: {known.citation}.")
    print(f"Next: kerasmed study {known.config} --data {result['source']}")


@data_app.command("check")
def data_check(
    source: Annotated[
        Path,
        typer.Argument(metavar="DIR|CONFIG", help="Class folders, .csv, .npz or experiment file."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
    assignments: Assignments = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Output folder (default: runs/check-<name>)."),
    ] = None,
) -> None:
    """Report counts, copies, outliers and shortcuts of a set, with a page of thumbnails."""
    from kerasmed.cli.tables import print_findings
    from kerasmed.study.config import load_config, override
    from kerasmed.study.data_check import check_data

    name = source.resolve().name
    if source.suffix in (".yaml", ".yml") and not source.is_dir():
        config = load_config(source, assignments)
        name = config.name
    else:
        values = {"name": "check", "data": {"source": str(source)}}
        config = override(values, assignments, source="--set")
    if config.data.source is None:
        raise ConfigError(f"{source} names no images to check: set data.source, or name a folder.")
    folder = out or Path("runs") / f"check-{name}"
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
    """Measure by how much a random split would overstate the accuracy."""
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
    """Decode the images (or draw phantoms), find copies, and write split.json."""
    from kerasmed.cli.tables import print_split

    _, run = run_one_stage("data", config, assignments, data, out)
    print_split(run.finished_stages()["data"]["result"])
