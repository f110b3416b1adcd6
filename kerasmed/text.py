"""Names of classes and files, which may hold any character, as text for each output format."""

import re
import unicodedata

# Control characters, bytes of file names that are not UTF-8, and line separators.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # Other characters in LaTeX's oldest font encoding.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # Starts a command in some languages of the package babel.
    '"': r"\symbol{34}",
    # At the start of a table row they would be arguments of the end of the row above.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def printable(text: str) -> str:
    r"""One line of text for any output; unprintable characters such as ``\n`` are escaped."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNPRINTABLE
        else character
        for character in text
    )


def text_for_figure(text: str) -> str:
    """Text that matplotlib draws unchanged, without mathematics, and shows in legends."""
    text = printable(text).replace("$", r"\$")
    # A zero-width space, since legends omit labels that start with "_".
    return f"\u200b{text}" if text.startswith("_") else text


def text_for_latex(text: str) -> str:
    """Text without LaTeX commands; other scripts are unchanged."""
    # Two of these characters in a row would become another one, such as a dash.
    separated = re.sub(r"([-`',!?])(?=[-`',])", "\\1\0", printable(text))
    return "".join(_LATEX.get(character, character) for character in separated).replace("\0", "{}")


def text_for_markdown(text: str) -> str:
    """Text without Markdown characters, also inside a table."""
    return re.sub(r"([\\`*_{}\[\]<>|~$&#])", r"\\\1", printable(text))


def counted(count: int, noun: str) -> str:
    """A number with its noun, such as "1 file" or "24 files"."""
    return f"{count} {noun}{'s' * (count != 1)}"
