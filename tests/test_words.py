"""One thing has one name: words that were retired come back nowhere."""

import json
import re
from pathlib import Path

import pytest
import typer.main

from kerasmed.cli.main import app

ROOT = Path(__file__).parents[1]
TEXTS = sorted(
    path
    for pattern in ("*.md", "*.cfg", "Makefile", "docs/**/*.md", "docs/notebooks/*.ipynb",
                    "configs/*.yaml", "exported/*.md", "kerasmed/**/*", "tests/**/*.py",
                    "benchmarks/*.py", "benchmarks/results/**/*")
    for path in ROOT.glob(pattern)
    if path.is_file() and path.suffix not in (".pyc", ".png") and path != Path(__file__)
)  # fmt: skip
RETIRED = re.compile(
    r"\b(mend(s|ed|ing)?|told|loudly|of before|beside|by heart|seen|held[- _]out|shares?|cells?"
    r"|pieces?|parts?(?! of\b)|grad_cam|planting|standalone)\b",
    re.IGNORECASE,
)
# Words of others: a path's attribute, HTML and CSS, the blocks of a notebook, and cells of blood.
ALLOWED = re.compile(
    r'\.parts\b|\bparts?\[|cell_kinds|\.cells\b|"cells"|blood[-_ ]cells?', re.IGNORECASE
)


def retired(text: str) -> list[str]:
    return [
        f"{number}: {line.strip()[:120]}"
        for number, line in enumerate(text.splitlines(), 1)
        if RETIRED.search(ALLOWED.sub("", line))
    ]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_texts_hold_no_retired_word(path):
    assert not retired(path.read_text(encoding="utf-8"))


def test_the_check_finds_words_and_leaves_others():
    assert retired("mend the file") == ["1: mend the file"]
    assert all(map(retired, ("held_out = 3", "Seen images", "all parts")))
    assert not retired("part of a set, unseen, shared, a cellular departure, path.parts")


def _helps(command, name: str = "kerasmed"):
    context = typer.Context(command, info_name=name)
    yield name, command.get_help(context)
    for child_name, child in getattr(command, "commands", {}).items():
        yield from _helps(child, f"{name} {child_name}")


def test_help_holds_no_retired_word():
    helps = dict(_helps(typer.main.get_command(app)))
    assert len(helps) > 15
    assert not {name: retired(text) for name, text in helps.items() if retired(text)}


def test_results_and_report_hold_no_retired_word(tiny_run):
    page = (tiny_run / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"data:[\w/]+;base64,[\w+/=]+", "", page)
    results = {path.name: path.read_text() for path in tiny_run.glob("evaluation/*.[cj]s*")}
    results |= {"run.json": json.dumps(json.loads((tiny_run / "run.json").read_text())["stages"])}
    assert len(results) > 10
    for name, text in {"report.html": page, **results}.items():
        assert not retired(text), name
