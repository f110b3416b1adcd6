"""Names of classes and files, which may hold any character, as text for each medium."""

import re
import unicodedata

# Control characters, bytes of file names that are no UTF-8, and separators of lines.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # Other characters in LaTeX's oldest encoding of fonts.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # The start of a command in some languages of the package babel.
    '"': r"\symbol{34}",
    # Arguments of the end of the row above, at the start of a row.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def printable(text: str) -> str:
    r"""One line of text for any medium: what cannot be printed is escaped, such as ``\n``."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNPRINTABLE
        else character
        for character in text
    )


def text_for_figure(text: str) -> str:
    """Text that matplotlib draws as it is: no mathematics, and no label that legends leave out."""
    text = printable(text).replace("$", r"\$")
    # A space of no width, since a label that starts with "_" counts as none.
    return f"\u200b{text}" if text.startswith("_") else text


def text_for_latex(text: str) -> str:
    """Text in which no character is a command of LaTeX; other scripts stay as they are."""
    # Two of these signs in a row would become another one, such as a dash.
    apart = re.sub(r"([-`',!?])(?=[-`',])", "\\1\0", printable(text))
    return "".join(_LATEX.get(character, character) for character in apart).replace("\0", "{}")


def text_for_markdown(text: str) -> str:
    """Text in which no character is a sign of Markdown, for a cell of a table too."""
    return re.sub(r"([\\`*_{}\[\]<>|~$&#])", r"\\\1", printable(text))


def counted(count: int, noun: str) -> str:
    """A number with its noun: "1 file", "24 files"."""
    return f"{count} {noun}{'s' * (count != 1)}"
