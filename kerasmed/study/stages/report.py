"""The stage that writes the report."""

from typing import Any

from kerasmed.study.config import Config
from kerasmed.study.inputs import load_split, read_synthetic
from kerasmed.study.run_folder import RunFolder


def write_report(config: Config, run: RunFolder) -> dict[str, Any]:
    """Draw the figures and the page from what the other stages wrote."""
    from kerasmed.study.report.page import render_report

    image_set, split = load_split(config, run)
    render_report(run, image_set, split, read_synthetic(config, run))
    return {"page": run.report.name}
