"""The stage that writes the report."""

from dataclasses import asdict
from typing import Any

from kerasmed.audit.verdicts import Verdict, verdicts
from kerasmed.files import read_json, write_json
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_split, load_synthetic
from kerasmed.study.run_folder import RunFolder


def read_verdicts(run: RunFolder) -> list[Verdict]:
    """The three answers, from what the stages evaluate and audit found."""
    return verdicts(
        read_json(run.evaluation / "metrics.json", "kerasmed evaluate CONFIG"),
        read_json(run.evaluation / "comparisons.json", "kerasmed evaluate CONFIG"),
        read_json(run.evaluation / "fidelity.json", "kerasmed audit CONFIG"),
        read_json(run.evaluation / "privacy.json", "kerasmed audit CONFIG"),
    )


def write_report(config: Config, run: RunFolder) -> dict[str, Any]:
    """Draw the figures and the page from what the other stages wrote."""
    from kerasmed.study.report.page import render_report

    image_set, split = load_split(config, run)
    write_json(run.evaluation / "verdicts.json", [asdict(each) for each in read_verdicts(run)])
    render_report(run, image_set, split, load_synthetic(config, run))
    return {"page": run.report.name}
