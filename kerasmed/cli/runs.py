"""Opening a run folder and running stages, for the commands on an experiment file."""

from pathlib import Path
from typing import TYPE_CHECKING

from kerasmed.errors import ConfigError

if TYPE_CHECKING:
    from kerasmed.study.config import Config
    from kerasmed.study.run_folder import RunFolder


def run_whole_study(
    config_path: Path,
    assignments: list[str] | None,
    data: Path | None,
    out: Path | None,
    index: int = 1,
    shards: int = 1,
    executor: str = "local",
) -> None:
    """Run all stages, then print the results and where the report is."""
    from kerasmed.study.runner import run_study

    config, run = open_run(config_path, assignments, data, out)
    run_study(config, run, index, shards, executor)
    print_evaluation(run)
    print(f"Report: {run.report}")


def print_evaluation(run: "RunFolder") -> None:
    """Print the tables of metrics, of means over seeds and of comparisons."""
    from kerasmed.cli.tables import print_comparisons, print_metrics, print_over_seeds
    from kerasmed.files import read_json

    for print_table, name in (
        (print_metrics, "metrics"),
        (print_over_seeds, "over_seeds"),
        (print_comparisons, "comparisons"),
    ):
        print_table(read_json(run.evaluation / f"{name}.json", "kerasmed evaluate"))


def run_one_stage(
    name: str,
    config_path: Path,
    assignments: list[str] | None,
    data: Path | None,
    out: Path | None,
) -> "tuple[str, RunFolder]":
    """Run one stage, after the data stage if needed; returns the study's name and folder."""
    from kerasmed.study.runner import run_stage
    from kerasmed.study.stages import STAGES

    config, run = open_run(config_path, assignments, data, out)
    run_stage(STAGES[name], config, run)
    return config.name, run


def open_run(
    config_path: Path, assignments: list[str] | None, data: Path | None, out: Path | None
) -> "tuple[Config, RunFolder]":
    """The settings of a study, and its run folder, which is created if needed."""
    from kerasmed.files import make_folder
    from kerasmed.study.config import load_config
    from kerasmed.study.run_folder import RunFolder

    if config_path.suffix == ".onnx":
        raise ConfigError(
            f"{config_path} is a model: expected an experiment file, or a model and images; add "
            "the images."
        )
    config = load_config(config_path, assignments, data)
    run = RunFolder(out or Path("runs") / config.name)
    make_folder(run.root)
    return config, run
