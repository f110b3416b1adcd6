"""Names that would be read as mathematics, commands or signs of the page they are shown on."""

import io
import os

import pytest
from matplotlib.figure import Figure

from kerasmed.cli.tables import print_predictions, print_split
from kerasmed.text import printable, text_for_figure, text_for_latex, text_for_markdown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("肺/炎 [1] $x$_{a} %", "肺/炎 [1] $x$_{a} %"),
        ("a\nb\tc\x1b[31m", r"a\nb\tc\x1b[31m"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),  # a joiner that Persian needs
    ],
)
def test_printable(name, shown):
    assert printable(name) == shown


@pytest.mark.parametrize("name", ["$a$_b", "$", r"a\$b", r"\$x$", "$$", "_hidden", "__", "%_{^}"])
def test_figures_show_names_as_they_are(name):
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], label=text_for_figure(name))
    axes.set_title(text_for_figure(name))
    axes.set_xticks([0], [text_for_figure(name)])
    legend = axes.legend(*axes.get_legend_handles_labels())

    (label,) = legend.get_texts()
    for text in (label, axes.title, axes.get_xticklabels()[0]):
        drawn, is_mathematics = text._preprocess_math(text.get_text())
        assert drawn.removeprefix("\u200b") == name
        assert not is_mathematics
    figure.savefig(io.BytesIO())


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        (r"\&%$#_{}", r"\textbackslash{}\&\%\$\#\_\{\}"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        ('<|>"', r"\textless{}\textbar{}\textgreater{}\symbol{34}"),
        ("[1] x", "{[}1{]} x"),
        ("* x", "{*} x"),
        ("a--b -- c-d", "a-{}-b -{}- c-d"),
        ("?`!`''``,,", "?{}`!{}`{}'{}'{}`{}`{},{},"),
        ("a\n\nb\x07", r"a\textbackslash{}n\textbackslash{}nb\textbackslash{}x07"),
        ("肺炎 é", "肺炎 é"),
    ],
)
def test_latex_reads_names_as_text(name, escaped):
    assert text_for_latex(name) == escaped


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("_a_ *b* `c`", r"\_a\_ \*b\* \`c\`"),
        ("<b>[1](x) &amp; $x$ #", r"\<b\>\[1\](x) \&amp; \$x\$ \#"),
        ("a\\b\n", r"a\\b\\n"),
        (".5 mm 肺", ".5 mm 肺"),
    ],
)
def test_markdown_reads_names_as_text(name, escaped):
    assert text_for_markdown(name) == escaped


def test_tables_show_names_as_they_are(capsys):
    name = "[red]x[/red] :heart: a\nb"
    rows = [{"image": name, "predicted": name, "probabilities": {name: 1.0}}]

    print_predictions(rows, [name], as_json=False)

    printed = "".join(capsys.readouterr().out.split())
    assert printed.count("[red]x[/red]:heart:") == printed.count(r"a\nb") == 3


def test_split_table_shows_names_as_they_are(capsys):
    name = "[b]:lung:"
    duplicates = dict.fromkeys(
        ("byte_identical", "pixel_identical", "near_duplicates", "only_mirrored_or_turned"), 0
    )
    result = {
        "images": {name: 3}, "roles": {"test": {name: 3}}, "groups": 3, "largest_group": 1,
        "duplicates": {**duplicates, "label_conflicts": [], "near_across_labels": []},
        "skipped": [], "grey_range": None, "remarks": [],
    }  # fmt: skip

    print_split(result)

    assert name in capsys.readouterr().out
