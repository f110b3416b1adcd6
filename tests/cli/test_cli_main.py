"""The options of `kerasmed` itself: --version, --help and shell completion."""

import os
import subprocess
import sys

import typer.main

from kerasmed.cli.app import WORKFLOW, app
from kerasmed.cli.main import main


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert "kerasmed 0." in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "study" in capsys.readouterr().out


def test_help_lists_each_command_once_under_a_heading(capsys):
    assert main(["--help"]) == 0

    lines = capsys.readouterr().out.splitlines()
    headings = [line.rstrip(":") for line in lines if line.endswith(":") and line[0] != " "]
    assert headings == ["Options", *WORKFLOW]
    listed = [name for names in WORKFLOW.values() for name in names]
    assert sorted(listed) == sorted(typer.main.get_command(app).commands)
    assert all(sum(line.startswith(f"  {name} ") for line in lines) == 1 for name in listed)


def test_shell_completes_the_names_of_commands():
    code = "import sys; sys.argv = ['kerasmed']; from kerasmed.cli.main import main; main()"
    words = {"COMP_WORDS": "kerasmed re", "COMP_CWORD": "1", "_KERASMED_COMPLETE": "complete_bash"}

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | words, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout.split() == ["report", "release"]
