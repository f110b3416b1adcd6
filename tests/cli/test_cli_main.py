"""The options of `kerasmed` itself: --version and --help."""

from kerasmed.cli.main import main


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert "kerasmed 0." in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "study" in capsys.readouterr().out
