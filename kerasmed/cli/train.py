"""The commands `kerasmed train` and `kerasmed sample`."""

from typing import Annotated

import typer

from kerasmed.cli.app import app, train_app
from kerasmed.cli.options import Assignments, ConfigPath, DataOption, OutOption, parse_shard
from kerasmed.cli.runs import open_run, run_one_stage


@train_app.command("diffusion")
def train_diffusion(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Train the diffusion model; an interrupted training continues where it stopped."""
    run_one_stage("diffusion", config, assignments, data, out)


@train_app.command("upscaler")
def train_upscaler(
    config: ConfigPath,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Train the upscaler of a study of large images; an interrupted training continues."""
    run_one_stage("upscaler", config, assignments, data, out)


@app.command()
def sample(
    config: ConfigPath,
    per_class: Annotated[int | None, typer.Option(help="Number of images per class.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Draw only shard I of N.")
    ] = None,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Draw the synthetic set; an interrupted run continues where it stopped.

    Draw the shards with --shard, at the same time or one after another. Then run the command
    without --shard to complete the set.
    """
    extra = [f"sampling.per_class={per_class}"] if per_class is not None else []
    settings = (assignments or []) + extra
    if shard is None:
        run_one_stage("sampling", config, settings, data, out)
        return
    from kerasmed.study.engine import check_inputs
    from kerasmed.study.stages import STAGES
    from kerasmed.study.stages.sampling import draw_shard

    index, shards = parse_shard(shard)
    resolved, run = open_run(config, settings, data, out)
    with run.locked(index, shards):
        check_inputs(STAGES["sampling"], resolved, run)
        missing = draw_shard(resolved, run, index, shards)
    print(f"Shard {shard} is drawn; {missing} images of all sets are missing.")


@train_app.command("classifier")
def train_classifier(
    config: ConfigPath,
    backbone: Annotated[
        list[str] | None, typer.Option(help="Name of a backbone; repeat for several.")
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(help="Regime: real, synthetic, both, pretrained ...; repeat for several."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of random seeds per CNN.")] = None,
    assignments: Assignments = None,
    data: DataOption = None,
    out: OutOption = None,
) -> None:
    """Train the CNNs that are missing; with `--on real` no synthetic images are needed."""
    extra = [f"classifiers.backbones=[{', '.join(backbone)}]"] if backbone else []
    extra += [f"classifiers.train_on=[{', '.join(on)}]"] if on else []
    extra += [f"classifiers.seeds={seeds}"] if seeds is not None else []
    run_one_stage("classifiers", config, (assignments or []) + extra, data, out)
