"""The stage that writes the report."""

from typing_extensions import TypedDict

from kerasmed.study.config import Config
from kerasmed.study.inputs import load_split, read_synthetic
from kerasmed.study.run_folder import RunFolder


class ReportResult(TypedDict):
    """What ``run.json`` records of the report."""

    page: str
    """Name of the page in the run folder."""


def write_report(config: Config, run: RunFolder) -> ReportResult:
    """Draw the figures and the page from what the other stages wrote."""
    from kerasmed.study.report.page import render_report

    image_set, split = load_split(config, run)
    render_report(run, image_set, split, read_synthetic(config, run))
    return {"page": run.report.name}
