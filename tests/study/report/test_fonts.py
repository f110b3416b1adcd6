"""Figures of names that matplotlib's own font cannot write."""

import io
import warnings

import pytest
from matplotlib import font_manager, rcParams
from matplotlib.figure import Figure

from kerasmed.study.report import fonts
from kerasmed.study.report.fonts import fonts_for

# Letters of the Private Use Area, which no font has.
NOWHERE = "\U0010fff0\U0010fff1"
# A sign that is in STIX, which comes with matplotlib, and not in DejaVu Sans.
ONLY_IN_STIX = "\u2a50"


@pytest.fixture
def only_own_fonts(monkeypatch):
    """A machine with no fonts but those that come with matplotlib."""
    own = [font for font in font_manager.fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])


def draw(text: str) -> None:
    figure = Figure()
    figure.text(0, 0, text)
    figure.savefig(io.BytesIO())


def test_names_in_latin_letters_need_no_other_font(capsys):
    before = list(rcParams["font.family"])
    with fonts_for(["benign", "é µ $x$ \u200d"]):
        assert rcParams["font.family"] == before

    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("only_own_fonts")
def test_missing_letters_are_named_once_with_the_remedy(capsys):
    before = list(rcParams["font.family"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fonts_for([f"肺 {NOWHERE}", "炎 肺"]):
            draw("肺")
            draw("炎")
    (line,) = capsys.readouterr().err.splitlines()
    assert "no installed font has 炎 肺" in line
    assert "install a font that has them, such as Noto Sans" in line
    assert list(rcParams["font.family"]) == before


@pytest.mark.usefixtures("only_own_fonts")
def test_many_missing_letters_are_counted(capsys):
    with fonts_for(["".join(map(chr, range(0x4E00, 0x4E00 + 25)))]):
        pass

    assert "and 15 others" in capsys.readouterr().err


@pytest.mark.usefixtures("only_own_fonts")
def test_an_installed_font_that_has_the_letters_is_taken(capsys):
    with fonts_for([f"a{ONLY_IN_STIX}"]):
        assert "STIXGeneral" in rcParams["font.family"]
        draw(ONLY_IN_STIX)

    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("only_own_fonts")
def test_a_font_installed_after_matplotlib_listed_them_is_found(monkeypatch, capsys):
    own = font_manager.fontManager.ttflist
    stix = [font.fname for font in own if font.name == "STIXGeneral"]
    others = [font for font in own if font.name != "STIXGeneral"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", others)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: stix)

    with fonts_for([ONLY_IN_STIX]):
        assert "STIXGeneral" in rcParams["font.family"]

    assert capsys.readouterr().err == ""


def test_a_font_that_cannot_be_read_has_nothing(tmp_path):
    path = tmp_path / "broken.ttf"
    path.write_bytes(b"no font")

    assert fonts._drawn_by(str(path), {"a"}) == set()
